"""Best learning rates at an end of the grid are followed outwards."""

import math

import polars as pl
import polars.testing
import pytest

from relin.studies.frequency.settings import FrequencySpec
from relin.studies.phase.settings import PhaseSpec
from relin.study import SpecError, run_study, stored_study
from relin.study._edges import rates_beyond
from relin.study._grid import comparison_jobs, finals_jobs, follow_jobs, later_cost, selection_jobs
from relin.study._runner import Runner
from relin.study._spec import read_spec

SHARED = {"model_options": {"width": 8, "depth": 1}, "batch_size": 32, "num_records": 2, "probe_size": 32}
SPEC = FrequencySpec(
    **SHARED, steps=40, periods=[1, 4, math.inf], learning_rates=[0.03, 0.01], seeds=3, select_seeds=1, follow_edges=3
)


def records(*runs):
    names = ("schedule", "learning_rate", "result")
    return pl.DataFrame([dict(zip(names, run, strict=True)) for run in runs])


@pytest.mark.parametrize(
    ("results", "best", "expected"),
    [
        ({0.1: "successful", 0.03: "successful", 0.01: "successful"}, 0.03, None),
        ({0.1: "successful", 0.03: "successful", 0.01: "successful"}, 0.1, 0.333),
        ({0.1: "successful", 0.03: "successful", 0.01: "successful"}, 0.01, 0.00333),
        ({0.1: "diverged", 0.03: "successful"}, 0.03, 0.009),
        ({0.1: "diverged", 0.03: "diverged"}, 0.1, 0.009),
        ({0.1: "diverged", 0.03: "failed to train"}, 0.1, None),
        ({0.1: "failed to train", 0.03: "failed to train"}, 0.1, 0.333),
        ({1.001: "successful", 1.0: "successful"}, 1.001, 1.001 * (1.001 / 1.0)),
        ({1e6: "successful", 1e5: "successful"}, 1e6, None),
        ({1e-8: "successful", 1e-9: "successful"}, 1e-9, None),
    ],
)
def test_the_next_rate(results, best, expected):
    rows = records(*[("never", rate, result) for rate, result in results.items()])
    others = [rate for rate in results if rate != best]
    found = rates_beyond(rows, {"never": [best, *others]})
    assert found == ({} if expected is None else {"never": expected})


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("followed") / "study"
    progress = []
    return folder, *run_study(SPEC, folder, report=progress.append), progress


def walked(ends, schedule, rounds):
    """The rates offered to a schedule, by validation accuracy of the first seed: an oracle that shares no code."""
    own = dict(ends.filter(schedule=schedule, seed=0).select("learning_rate", "validation_accuracy").rows())
    offered = [0.03, 0.01]
    for _ in range(rounds):
        best = max(offered, key=lambda rate: own[rate])
        if best == max(offered):
            offered.insert(0, float(f"{offered[0] ** 2 / offered[1]:.3g}"))
        elif best == min(offered):
            offered.append(float(f"{offered[-1] ** 2 / offered[-2]:.3g}"))
        else:
            break
    return offered


def test_each_schedule_is_offered_rates_until_its_best_is_inside(followed):
    _, result, found, _ = followed
    ends = found.filter(step=40)
    inside = 0
    for outcome in result.outcomes:
        offered = walked(ends, outcome.schedule, 3)
        own = ends.filter(schedule=outcome.schedule, seed=0)
        assert sorted(offered) == own["learning_rate"].unique().sort().to_list()
        assert len(offered) > 2
        at_edge = outcome.learning_rate in (min(offered), max(offered))
        assert (outcome.rate_edge is not None) == at_edge
        inside += not at_edge
        chosen = ends.filter(schedule=outcome.schedule, learning_rate=outcome.learning_rate)
        assert chosen.height == outcome.num_seeds == 3
    assert inside > 0, "else nothing here shows where it stops"


def test_it_answers_again_from_the_folder_and_goes_on_where_it_was_killed(followed, tmp_path, monkeypatch):
    folder, result, found, _ = followed
    assert stored_study(folder)[1] == result
    train, calls = Runner.train, []

    def failing(runner, job, *arguments, **options):
        calls.append(job)
        if job.stage == "follow" and sum(own.stage == "follow" for own in calls) == 2:
            raise KeyboardInterrupt
        return train(runner, job, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "train", failing)
        with pytest.raises(KeyboardInterrupt):
            run_study(SPEC, tmp_path, executor="threads:1")
    again, records_again = run_study(SPEC, tmp_path)
    assert again == result
    polars.testing.assert_frame_equal(records_again, found, check_exact=True)


def test_progress_never_goes_back_nor_beyond_the_total(followed):
    progress = followed[3]
    shares = [p.done / p.total for p in progress]
    assert shares == sorted(shares)
    assert progress[-1].done == progress[-1].total
    assert "following the best rates outwards" in {p.stage for p in progress}


def test_the_runs_of_a_study_that_followed_nothing_are_taken(followed, tmp_path):
    _, result, found, _ = followed
    run_study(SPEC.model_copy(update={"follow_edges": 0}), tmp_path / "small")
    again, records_again = run_study(SPEC, tmp_path / "study", runs_from=tmp_path / "small")
    assert again == result
    polars.testing.assert_frame_equal(records_again, found, check_exact=True)


@pytest.mark.parametrize("finalists", [None, 1, 5])
def test_the_cost_of_later_stages_is_not_underestimated(finalists):
    spec = SPEC.model_copy(update={"finalists": finalists, "select_seeds": 2})
    names = [condition.name for condition in spec.all_conditions()]
    rates = [0.03, 0.01]
    spent = [sum(job.cost for job in selection_jobs(spec, 1))]
    for n in range(3):
        rates.append(rates[-1] / 3)
        jobs = follow_jobs(spec, {"equal-steps": dict.fromkeys(names, rates[-1])}, 1)
        assert {(run.learning_rate, run.seed) for job in jobs for run in job.runs} == {
            (rates[-1], seed) for seed in range(1 if finalists else 2)
        }
        spent.append(sum(job.cost for job in jobs))
        assert n == 0 or spent[-1] == spent[-2]
    ranked = {"equal-steps": dict.fromkeys(names, rates)}
    rest = [sum(job.cost for job in jobs) for jobs in (finals_jobs(spec, ranked, 1), comparison_jobs(spec, ranked, 1))]
    assert later_cost(spec, "select", 3) >= sum(spent[1:]) + sum(rest)
    assert later_cost(spec, "follow", 0) >= sum(rest)
    assert follow_jobs(spec, {"equal-steps": {}}, 1) == []


def test_each_total_of_a_map_follows_its_own(tmp_path):
    shared = {**SHARED, "updates": [0], "learning_rates": [0.03, 0.01], "seeds": 2, "select_seeds": 1}
    result, found = run_study(PhaseSpec(**shared, totals=[8, 64], follow_edges=2), tmp_path)
    offered = {
        key: own["learning_rate"].n_unique() for key, own in found.filter(seed=0).group_by("run_steps", "schedule")
    }
    assert all(2 <= number <= 4 for number in offered.values())
    assert max(offered.values()) > 2
    assert {cell.outcome.num_seeds for cell in result.cells} == {2}


def test_what_cannot_be_followed_is_refused():
    with pytest.raises(SpecError, match="two learning rates at least are needed"):
        read_spec("frequency", overrides={"learning_rates": [0.1], "follow_edges": 2})
    with pytest.raises(SpecError, match="this study compares schedules at the same rates"):
        read_spec("stability", overrides={"follow_edges": 1})
