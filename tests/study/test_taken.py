"""Runs taken from an earlier study: the answer is as if all were trained, and only the rest is."""

import json
import math
import shutil
from typing import Literal

import polars as pl
import polars.testing
import pytest

import relin as il
from relin._loop import checkpoint
from relin.studies.frequency import Frequency
from relin.studies.frequency.settings import FrequencySpec
from relin.studies.kernel.settings import KernelSpec
from relin.studies.phase.settings import PhaseSpec
from relin.study import SpecError, StoreError, _registry, run_study, stored_study
from relin.study._grid import selection_jobs
from relin.study._records import to_parquet
from relin.study._runner import Runner
from relin.study._spec import read_spec
from relin.study._study import study_of
from relin.study._taken import Taken

SHARED = {
    "model_options": {"width": 8, "depth": 1},
    "batch_size": 32,
    "num_records": 4,
    "probe_size": 32,
    "check_every": 5,
}
SMALL = FrequencySpec(
    **SHARED, steps=20, periods=[1, 4], learning_rates=[0.03, 0.01], seeds=3, select_seeds=1, methods=["every-4+clip-1"]
)
LARGE = {
    "periods": [1, 4, math.inf],
    "learning_rates": [0.3, 0.03, 0.01],
    "seeds": 4,
    "select_seeds": 2,
    "margin": 2.0,
    "tolerances": [0.2],
}


def larger(spec, **settings):
    return type(spec).model_validate({**spec.model_dump(), **LARGE, **settings})


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "study"
    run_study(SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The larger study without anything taken: its result and records."""
    return run_study(larger(SMALL), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def trained(monkeypatch):
    """The runs that are trained, as they are."""
    own, train = [], Runner.train

    def counting(runner, job, *arguments, **options):
        own.extend(run.identity for run in job.runs)
        return train(runner, job, *arguments, **options)

    monkeypatch.setattr(Runner, "train", counting)
    return own


def runs_of(records):
    return set(records.select("schedule", "run_steps", "learning_rate", "seed").unique().rows())


def test_only_what_is_new_is_trained_and_the_answer_is_that_of_the_whole(small, whole, trained, tmp_path):
    result, records = run_study(larger(SMALL), tmp_path / "study", runs_from=small)
    polars.testing.assert_frame_equal(records, whole[1], check_exact=True)
    assert result == whole[0]
    taken = runs_of(stored_study(small)[2])
    assert {identity[:4] for identity in trained} == runs_of(records) - taken
    assert len(trained) == len(set(trained))
    assert len(taken & runs_of(records)) >= 6
    spec, again, stored = stored_study(tmp_path / "study")
    assert (spec, again) == (larger(SMALL), result)
    polars.testing.assert_frame_equal(stored, records, check_exact=True)


def test_of_a_job_of_many_runs_those_that_are_new_are_trained(small, whole, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("relin.study._study._lanes_per_job", lambda: 128)
    _, records = run_study(larger(SMALL), tmp_path / "study", runs_from=small)
    polars.testing.assert_frame_equal(records, whole[1], rel_tol=1e-4, abs_tol=1e-5)
    assert {identity[:4] for identity in trained} == runs_of(records) - runs_of(stored_study(small)[2])
    assert len(list((tmp_path / "study" / "packs").iterdir())) < len(trained)


def test_records_and_settings_are_enough(small, whole, trained, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("spec.json", "records.parquet"):
        shutil.copy(small / name, kept / name)
    _, records = run_study(larger(SMALL), tmp_path / "study", runs_from=kept)
    polars.testing.assert_frame_equal(records, whole[1], check_exact=True)
    assert {identity[:4] for identity in trained} == runs_of(records) - runs_of(stored_study(small)[2])


def test_where_all_runs_are_there_nothing_is_trained(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, "train", lambda *_: pytest.fail("trained again"))
    other = SMALL.model_copy(update={"margin": 30.0, "learning_rates": [0.03]})
    progress = []
    result, records = run_study(other, tmp_path / "study", runs_from=small, report=progress.append)
    assert {outcome.learning_rate for outcome in result.outcomes} == {0.03}
    assert all(p.done == p.total for p in progress[-1:])
    assert {p.done for p in progress if p.stage == "trying learning rates"} == {20 * 3}
    assert runs_of(records) <= runs_of(stored_study(small)[2])


def test_an_unfinished_study_gives_what_it_has_and_damaged_jobs_are_trained(small, whole, trained, tmp_path):
    begun = tmp_path / "begun"
    shutil.copytree(small, begun)
    (begun / "records.parquet").unlink()
    first, second, *_ = sorted((begun / "packs").iterdir())
    gone = runs_of(pl.concat([pl.read_parquet(first), pl.read_parquet(second)]))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    told = []
    _, records = run_study(larger(SMALL), tmp_path / "study", runs_from=begun, tell=told.append)
    assert [second.name in sentence and "is damaged" in sentence for sentence in told] == [True]
    polars.testing.assert_frame_equal(records, whole[1], check_exact=True)
    assert gone & runs_of(records)
    assert {identity[:4] for identity in trained} == runs_of(records) - (runs_of(stored_study(small)[2]) - gone)


def test_it_goes_on_where_it_was_killed(small, whole, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "train", failing)
        with pytest.raises(KeyboardInterrupt):
            run_study(larger(SMALL), tmp_path / "study", runs_from=small)
    _, records = run_study(larger(SMALL), tmp_path / "study", runs_from=small)
    polars.testing.assert_frame_equal(records, whole[1], check_exact=True)


def test_totals_are_added_to_a_map(trained, tmp_path):
    settings = {**SHARED, "updates": [0, 1], "learning_rates": [0.1], "seeds": 2, "select_seeds": 1}
    run_study(PhaseSpec(**settings, totals=[8, 16]), tmp_path / "small")
    trained.clear()
    spec = PhaseSpec(**settings, totals=[8, 16, 32])
    result, records = run_study(spec, tmp_path / "taken", runs_from=tmp_path / "small")
    assert {identity[1] for identity in trained} == {32}
    expected, whole = run_study(spec, tmp_path / "whole")
    polars.testing.assert_frame_equal(records, whole, check_exact=True)
    assert result == expected


def test_runs_of_other_lengths_are_no_runs_of_the_study(trained, tmp_path):
    """With equal distances a larger rate makes the runs of all others longer."""
    spec = SMALL.model_copy(update={"comparison": "equal-distance", "methods": []})
    run_study(spec, tmp_path / "small")
    trained.clear()
    longer = spec.model_copy(update={"learning_rates": [0.06, 0.03, 0.01]})
    with pytest.raises(SpecError, match="small has none of the runs of this study"):
        run_study(longer, tmp_path / "study", runs_from=tmp_path / "small")
    assert not (tmp_path / "study").exists()
    same = longer.model_copy(update={"reference_rate": 0.03})
    run_study(same, tmp_path / "study", runs_from=tmp_path / "small")
    assert 0.03 not in {identity[2] for identity in trained if identity[3] == 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 40}, r"holds runs with other settings \(steps\), and none of them can be taken"),
        (
            {"batch_size": 16, "seeds": 5},
            r"other settings \(batch_size\).*may differ only in which runs there are, such as",
        ),
        ({"model_options": {"width": 4, "depth": 1}}, r"other settings \(model_options\)"),
        ({"optimiser": "adam", "momentum": None}, r"other settings \(momentum, optimiser, optimiser_options\)"),
        ({"num_records": 5}, r"other settings \(num_records\)"),
        ({"learning_rates": [1.0, 0.5]}, "has none of the runs of this study"),
    ],
)
def test_runs_that_are_others_are_refused_before_the_folder_is_made(small, tmp_path, change, message):
    spec = read_spec("frequency", overrides={**SMALL.model_dump(mode="json"), "optimiser_options": {}, **change})
    with pytest.raises(SpecError, match=message):
        run_study(spec, tmp_path / "study", runs_from=small)
    assert not (tmp_path / "study").exists()


def test_a_killed_study_goes_on_with_the_runs_of_another_one(small, tmp_path, monkeypatch):
    """The state of a job whose other runs were taken is that of the rest, whose places in it others may have then."""
    spec = larger(SMALL, periods=[1, 4, 16, math.inf], methods=[], tolerances=[])
    run_study(SMALL.model_copy(update={"periods": [1, 4], "methods": []}), tmp_path / "one")
    run_study(SMALL.model_copy(update={"periods": [1, 16], "methods": []}), tmp_path / "other")
    expected, whole = run_study(spec, tmp_path / "whole")
    monkeypatch.setattr("relin.study._study._lanes_per_job", lambda: 128)
    monkeypatch.setattr(checkpoint, "_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    train = Runner.train

    def killed(runner, job, progress=None, **options):
        def advance(done, total):
            if done >= total / 2:
                raise KeyboardInterrupt

        return train(runner, job, advance, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            run_study(spec, tmp_path / "study", runs_from=tmp_path / "one")
    assert list((tmp_path / "study" / "unfinished").iterdir())
    result, records = run_study(spec, tmp_path / "study", runs_from=tmp_path / "other")
    counts = ["schedule", "learning_rate", "seed", "step", "feature_updates"]
    polars.testing.assert_frame_equal(records.select(counts), whole.select(counts))
    assert [outcome.feature_updates for outcome in result.outcomes] == [o.feature_updates for o in expected.outcomes]


@pytest.mark.parametrize("change", [{}, {"seeds": 2, "select_seeds": 1, "learning_rates": [0.03]}, {"margin": 9.0}])
def test_runs_that_began_otherwise_are_refused_before_any_is_taken(small, tmp_path, change):
    """Of other versions, or on other files of the same name; also where nothing is left to train."""
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(small / "spec.json", other)
    records = pl.read_parquet(small / "records.parquet")
    began = pl.when(seed=0, step=0).then(pl.col("test_loss") * 1.01).otherwise("test_loss")
    (other / "records.parquet").write_bytes(to_parquet(records.with_columns(began.alias("test_loss"))))
    spec = larger(SMALL) if not change else SMALL.model_copy(update=change)
    message = (
        r"other holds runs of other networks or on other data.* test loss of seed 0 is \d\.\d+ there and \d\.\d+ here"
    )
    with pytest.raises(StoreError, match=message):
        run_study(spec, tmp_path / "study", runs_from=other)
    assert not (tmp_path / "study").exists()


def test_at_each_place_the_beginning_is_that_of_the_records(small):
    """What is compared is what `Performance` measured, in every cell of a study with an axis too."""
    width = {"widths": [8, 12], "learning_rates": [1.0], "seeds": 2, "select_seeds": 1, "steps": 4, "kernel_probe": 8}
    options = {"model_options": {"depth": 1}, "batch_size": 32, "num_records": 1, "probe_size": 16, "finalists": None}
    spec = read_spec("width", overrides={**width, **options})
    runner = study_of(spec).runner(None)
    for cell in spec.cells():
        job = selection_jobs(cell, 1)[0]
        recorded = runner.train(job).filter(step=0).item(0, "test_loss")
        assert runner.untrained_loss(0, cell.place) == pytest.approx(recorded, rel=1e-5)


def test_a_run_that_the_earlier_study_holds_twice_is_taken_once(small, whole, tmp_path):
    """As one that was begun on two devices, after its packing was lost."""
    twice = tmp_path / "twice"
    shutil.copytree(small, twice)
    packs = sorted((twice / "packs").glob("select-every-*"))
    both = pl.concat([pl.read_parquet(path) for path in packs], how="diagonal_relaxed")
    (twice / "packs" / "select-every-seed000-000000000000.parquet").write_bytes(to_parquet(both))
    _, records = run_study(larger(SMALL), tmp_path / "study", runs_from=twice)
    polars.testing.assert_frame_equal(records, whole[1], check_exact=True)


def test_columns_of_runs_that_are_not_taken_stay_there(tmp_path):
    more = SMALL.model_copy(update={"methods": ["every-4+line-1"]})
    fewer = SMALL.model_copy(update={"methods": []})
    run_study(more, tmp_path / "more")
    _, records = run_study(fewer, tmp_path / "taken", runs_from=tmp_path / "more")
    _, expected = run_study(fewer, tmp_path / "whole")
    polars.testing.assert_frame_equal(records, expected, check_exact=True)


def test_a_finished_study_of_which_records_are_kept_is_answered_by_the_same_command(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, "train", lambda *_: pytest.fail("trained again"))
    for name in ("spec.json", "records.parquet"):
        shutil.copy(small / name, tmp_path / name)
    result, records = run_study(SMALL, tmp_path)
    assert (result, records.height) == (stored_study(small)[1], stored_study(small)[2].height)
    assert not (tmp_path / "packs").exists()
    with pytest.raises(SpecError, match=r"holds a study with other settings \(steps\)"):
        run_study(SMALL.model_copy(update={"steps": 30}), tmp_path)


class MeasuredSpec(FrequencySpec, frozen=True):
    study: Literal["measured"] = "measured"  # pyright: ignore[reportIncompatibleVariableOverride]


class Measured(Frequency):
    """Measures runs by a setting that others choose runs by, and does not say so."""

    name = "measured"
    settings = MeasuredSpec

    def observers(self, extra_rate, runner):
        return [il.Sharpness(runner.probe(8 * self.spec.select_seeds))]


def test_a_study_of_ones_own_that_measures_in_its_own_way_must_say_what_leaves_runs_as_they_are(
    small, tmp_path, monkeypatch
):
    earlier = tmp_path / "earlier"
    shutil.copytree(small, earlier)
    settings = {**SMALL.model_dump(mode="json"), "study": "measured"}
    (earlier / "spec.json").write_text(json.dumps(settings))
    monkeypatch.setitem(_registry._named, "measured", Measured)
    with pytest.raises(SpecError, match=r"other settings \(seeds\).* may differ in no setting"):
        Taken(Measured(MeasuredSpec(**{**settings, "seeds": 5})), earlier, None, print)


def test_folders_without_runs_are_refused(small, tmp_path):
    with pytest.raises(SpecError, match="holds no study"):
        run_study(SMALL, tmp_path / "study", runs_from=tmp_path)
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(small / "spec.json", begun)
    with pytest.raises(StoreError, match="begun holds no finished runs that are whole"):
        run_study(SMALL, tmp_path / "study", runs_from=begun)


def test_studies_whose_runs_are_measured_by_others_need_equal_settings(small, tmp_path):
    kernel = KernelSpec(**SHARED, steps=8, periods=[1, math.inf], learning_rates=[0.1], seeds=2, select_seeds=1)
    with pytest.raises(SpecError, match=r"its study may differ in no setting"):
        run_study(kernel, tmp_path / "study", runs_from=small)
    with pytest.raises(SpecError, match="The study damping takes no runs of another one"):
        run_study(read_spec("damping"), tmp_path / "study", runs_from=small)
