import itertools
import math
from collections import Counter

import pytest

from relin.studies.frequency.settings import FrequencySpec
from relin.study._grid import comparison_jobs, finals_jobs, later_cost, selection_jobs

SPEC = FrequencySpec(
    steps=20,
    periods=[1, 4, math.inf],
    tolerances=[0.1],
    learning_rates=[0.1, 0.01],
    seeds=5,
    select_seeds=2,
)
NAMES = ["every-1", "every-4", "never", "when-error-0.1"]


def runs_of(jobs):
    return [run for job in jobs for run in job.runs]


def ranked(*rates, comparison="equal-steps", **other):
    return {comparison: {name: list(rates) for name in NAMES} | other}


def identity(run):
    return run.condition.name, run.learning_rate, run.seed


@pytest.mark.parametrize("lanes", [1, 6, 128])
def test_every_run_is_in_exactly_one_job(lanes):
    selected = runs_of(selection_jobs(SPEC, lanes))
    expected = Counter(itertools.product(NAMES, [0.1, 0.01], range(2)))
    assert Counter(map(identity, selected)) == expected
    chosen = ranked(0.1, never=[0.01])
    compared = runs_of(comparison_jobs(SPEC, chosen, lanes))
    assert Counter(map(identity, compared)) == Counter(
        (name, chosen["equal-steps"][name][0], seed) for name in NAMES for seed in (2, 3, 4)
    )


@pytest.mark.parametrize("lanes", [1, 6, 128])
@pytest.mark.parametrize("comparison", ["equal-steps", "equal-distance"])
def test_a_job_is_one_program(lanes, comparison):
    spec = SPEC.model_copy(update={"comparison": comparison})
    jobs = selection_jobs(spec, lanes) + comparison_jobs(spec, ranked(0.01, comparison=comparison), lanes)
    for job in jobs:
        assert len({(run.condition.program, run.num_steps) for run in job.runs}) == 1
        assert job.cost == sum(run.num_steps for run in job.runs)
    assert {run.num_steps for run in runs_of(jobs)} == ({20} if comparison == "equal-steps" else {20, 200})
    assert len({job.name for job in jobs}) == len(jobs)


def test_jobs_of_a_kind_are_equally_large():
    spec = SPEC.model_copy(update={"seeds": 14, "select_seeds": 4})
    sizes = {len(job.runs) for job in selection_jobs(spec, 15) if job.program == "every"}
    assert sizes == {12}  # 8 groups of 3 runs as two jobs of 4 groups, not as 5 and 3


def test_names_of_jobs_are_the_same_on_every_machine():
    assert [job.name for job in selection_jobs(SPEC, 1)][:2] == [
        "select-every-seed000-e0edfd50deec",
        "select-every-seed000-96cd9da0f206",
    ]


def test_the_cost_of_the_second_stage_is_not_underestimated():
    for rate in SPEC.learning_rates:
        jobs = comparison_jobs(SPEC, ranked(rate), 1)
        assert sum(job.cost for job in jobs) <= later_cost(SPEC, "select")


def test_all_seeds_may_select():
    spec = SPEC.model_copy(update={"select_seeds": 9})
    assert {run.seed for run in runs_of(selection_jobs(spec, 1))} == set(range(5))
    assert comparison_jobs(spec, ranked(0.1), 1) == []
    assert later_cost(spec, "select") == 0


def test_two_comparisons_share_the_runs_they_have_in_common():
    spec = SPEC.model_copy(update={"comparison": "both"})
    selected = runs_of(selection_jobs(spec, 1))
    lengths = Counter((run.condition.name, run.learning_rate, run.num_steps, run.seed) for run in selected)
    assert lengths == Counter(
        (name, rate, steps, seed)
        for name in NAMES
        for rate, steps in [(0.1, 20), (0.01, 20), (0.01, 200)]
        for seed in range(2)
    )
    chosen = ranked(0.1) | ranked(0.01, comparison="equal-distance", never=[0.1])
    compared = runs_of(comparison_jobs(spec, chosen, 1))
    assert Counter((run.condition.name, run.num_steps) for run in compared if run.seed == 2) == Counter(
        [(name, 20) for name in NAMES] + [(name, 200) for name in NAMES if name != "never"]
    )
    assert later_cost(spec, "select") >= sum(run.num_steps for run in compared)


@pytest.mark.parametrize("lanes", [1, 6, 128])
def test_finalists_alone_meet_the_other_seeds_that_choose(lanes):
    spec = SPEC.model_copy(update={"finalists": 1, "select_seeds": 3})
    assert Counter(map(identity, runs_of(selection_jobs(spec, lanes)))) == Counter(
        itertools.product(NAMES, [0.1, 0.01], [0])
    )
    best = ranked(0.1, 0.01, never=[0.01, 0.1])
    finals, compared = finals_jobs(spec, best, lanes), comparison_jobs(spec, best, lanes)
    assert Counter(map(identity, runs_of(finals))) == Counter(
        (name, best["equal-steps"][name][0], seed) for name in NAMES for seed in (1, 2)
    )
    assert {run.seed for run in runs_of(compared)} == {3, 4}
    assert later_cost(spec, "select") >= sum(job.cost for job in finals + compared)
    assert later_cost(spec, "finals") >= sum(job.cost for job in compared)
    assert finals_jobs(SPEC, best, lanes) == []
