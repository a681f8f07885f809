import collections
import errno
import json
import math
import shutil
import threading

import jax
import polars as pl
import polars.testing
import pytest

from relin.studies.frequency.settings import FrequencySpec
from relin.study import AbstractExecutor, StoreError, ThreadExecutor, run_study, stored_study, train_one
from relin.study._store import Store

SPEC = FrequencySpec(
    model_options={"width": 8, "depth": 1},
    steps=20,
    batch_size=32,
    periods=[1, 4, math.inf],
    tolerances=[0.2],
    check_every=5,
    learning_rates=[0.1, 0.01],
    seeds=4,
    select_seeds=2,
    num_records=4,
    probe_size=32,
)
NUM_PACKS = 2 * 2 * 2 + 2 * 2  # kinds × rates × selecting seeds, and kinds × the other seeds


class OneByOne(AbstractExecutor):
    """The simplest executor that keeps the promise, and the reference for others."""

    def run(self, compute, jobs):
        for job in jobs:
            compute(job)
            yield job


class Compilations:
    """Counts what XLA compiles, by the name of the function."""

    def __init__(self):
        self.counts = collections.Counter()
        jax.monitoring.register_event_duration_secs_listener(self.listen)

    def listen(self, event, seconds, **details):
        if event.endswith("backend_compile_duration"):
            self.counts[details.get("fun_name")] += 1

    def of_programs(self):
        return self.counts["jit(_call)"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study computed by two threads: folder, result, records, what was compiled and the progress."""
    folder = tmp_path_factory.mktemp("study") / "finished"
    jax.clear_caches()  # of other tests that train the same programs
    compilations, progress = Compilations(), []
    result, records = run_study(SPEC, folder, executor=ThreadExecutor(2), report=progress.append)
    return folder, result, records, compilations.of_programs(), progress


def test_each_program_is_compiled_once_though_two_threads_start_together(finished):
    # Two kinds of schedule, K of any value and WhenError: two programs of three parts.
    assert finished[3] == 2 * 3


def test_records_say_what_they_are_of(finished):
    folder, _, records, _, _ = finished
    assert len(list((folder / "packs").iterdir())) == NUM_PACKS
    assert set(records["schedule"]) == {"every-1", "every-4", "never", "when-error-0.2"}
    periodic = records.filter(pl.col("step") == 20, pl.col("period").is_not_null())
    updates = periodic.select("schedule", "feature_updates").unique().sort("schedule").rows()
    assert updates == [("every-1", 19), ("every-4", 4), ("never", 0)]
    assert records["step"].unique().sort().to_list() == [0, 5, 10, 15, 20]
    row = records.row(0, named=True)
    assert FrequencySpec.model_validate(json.loads(row["spec"])) == SPEC
    assert {"relin", "jax", "numpy", "python"} <= json.loads(row["versions"]).keys()
    assert row["device"].startswith(jax.devices()[0].platform)
    never = records.filter(schedule="never")
    assert never["period"].unique().to_list() == [math.inf]
    assert records.filter(schedule="when-error-0.2")["period"].is_null().all()


def test_runs_are_paired_by_seed(finished):
    start = finished[2].filter(step=0)
    for _, group in start.group_by("seed"):
        assert group["test_accuracy"].n_unique() == 1
    assert start["test_loss"].n_unique() == 4


def test_each_schedule_gets_the_best_rate_of_the_selecting_seeds(finished):
    _, result, records, _, _ = finished
    last = records.filter(pl.col("step") == 20, pl.col("seed") < 2)
    for outcome in result.outcomes:
        means = last.filter(schedule=outcome.schedule).group_by("learning_rate").agg(pl.mean("validation_accuracy"))
        assert outcome.learning_rate == means.sort("validation_accuracy")["learning_rate"][-1]
        assert outcome.num_seeds == 4


def test_progress_never_goes_back_nor_beyond_the_total(finished):
    progress = finished[4]
    shares = [p.done / p.total for p in progress]
    assert shares == sorted(shares)
    assert all(p.done <= p.total for p in progress)
    assert (progress[0].done, progress[-1].done) == (0, progress[-1].total)
    assert progress[-1].total == 20 * (2 * 2 * 4 + 2 * 4)
    assert [p.stage for p in progress][:: len(progress) - 1] == ["trying learning rates", "comparing schedules"]


def test_the_executor_changes_nothing(finished, tmp_path):
    result, records = run_study(SPEC, tmp_path, executor=OneByOne())
    polars.testing.assert_frame_equal(records, finished[2], check_exact=True)
    assert result == finished[1]


def test_a_finished_study_is_answered_without_training(finished, monkeypatch):
    folder, result, records, _, _ = finished
    monkeypatch.setattr("relin.study._runner.Runner.train", lambda *_: pytest.fail("trained again"))
    progress = []
    again = run_study(SPEC, folder, report=progress.append)
    assert again[0] == result
    polars.testing.assert_frame_equal(again[1], records, check_exact=True)
    assert [(p.done, p.total) for p in progress][-1] == (480, 480)
    spec, stored, _ = stored_study(folder)
    assert (spec, stored) == (SPEC, result)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("survivors", [1, 9])
def test_what_was_finished_before_a_failure_is_kept_and_the_rest_resumes(
    finished, tmp_path, monkeypatch, failure, survivors
):
    write, written = Store.write, []

    def failing(store, job, records):
        if len(written) == survivors:
            raise failure
        write(store, job, records)
        written.append(job)

    monkeypatch.setattr(Store, "write", failing)
    with pytest.raises(type(failure)):
        run_study(SPEC, tmp_path, executor=OneByOne())
    monkeypatch.setattr(Store, "write", write)
    assert len(list((tmp_path / "packs").iterdir())) == survivors
    with pytest.raises(StoreError, match=r"does not hold a whole study yet \(\d+ of \d+ jobs of runs are missing"):
        stored_study(tmp_path)
    (tmp_path / "packs" / f".{written[0].name}.parquet.x.part").write_bytes(b"half a file")
    progress = []
    _, records = run_study(SPEC, tmp_path, report=progress.append)
    polars.testing.assert_frame_equal(records, finished[2], check_exact=True)
    assert progress[0].done == 20 * sum(len(job.runs) for job in written if job.stage == "select")


def test_an_error_stops_the_jobs_in_flight(tmp_path):
    """The other thread must not train on, to the end, for nobody."""
    first, stopped = threading.Event(), threading.Event()

    class Failing(AbstractExecutor):
        def run(self, compute, jobs):
            def in_flight():
                first.set()
                try:
                    compute(jobs[0])
                except Exception:
                    stopped.set()

            thread = threading.Thread(target=in_flight)
            thread.start()
            try:
                assert first.wait(10)
                yield from self._fail()
            finally:
                threads.append(thread)

        def _fail(self):
            raise RuntimeError("elsewhere")
            yield

    threads = []
    with pytest.raises(RuntimeError, match="elsewhere"):
        run_study(SPEC.model_copy(update={"steps": 20_000, "num_records": 4000}), tmp_path, executor=Failing())
    threads[0].join(60)
    assert stopped.is_set()
    assert list((tmp_path / "packs").iterdir()) == []


def test_a_damaged_job_is_told_and_recomputed(finished, tmp_path):
    run_study(SPEC, tmp_path)
    jobs = sorted((tmp_path / "packs").iterdir())
    for path, size in ((jobs[0], 100), (jobs[-1], 0)):
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StoreError, match=rf"{jobs[0].name}|{jobs[-1].name} is damaged .*; run the study again, which"):
        stored_study(tmp_path)
    told, progress = [], []
    _, records = run_study(SPEC, tmp_path, tell=told.append, report=progress.append)
    assert sorted(line.split("/")[-1].split(" ")[0] for line in told) == [jobs[0].name, jobs[-1].name]
    assert all(line.endswith("its runs are computed again.") for line in told)
    polars.testing.assert_frame_equal(records, finished[2], check_exact=True)
    polars.testing.assert_frame_equal(stored_study(tmp_path)[2], finished[2], check_exact=True)


def test_jobs_of_another_study_are_refused(finished, tmp_path):
    other = SPEC.model_copy(update={"margin": 7.0})
    run_study(other, tmp_path)
    name = sorted(path.name for path in (tmp_path / "packs").iterdir())[0]
    (tmp_path / "packs" / name).write_bytes((finished[0] / "packs" / name).read_bytes())
    for use in (lambda: run_study(other, tmp_path), lambda: stored_study(tmp_path)):
        with pytest.raises(StoreError, match=rf"{name} holds records of a study with other settings \(margin\)"):
            use()


def test_a_folder_removed_while_the_study_runs(tmp_path):
    class Removing(OneByOne):
        def run(self, compute, jobs):
            for number, job in enumerate(super().run(compute, jobs)):
                if number == 1:
                    shutil.rmtree(tmp_path / "study")
                yield job

    with pytest.raises(StoreError, match="study was removed while the study ran; run the same command again"):
        run_study(SPEC, tmp_path / "study", executor=Removing())
    assert not (tmp_path / "study").exists()


def test_a_study_begun_on_another_device_keeps_its_jobs(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("relin.study._study._lanes_per_job", lambda: 128)
    Store(tmp_path).open(SPEC, 1)
    run_study(SPEC, tmp_path)
    names = [{path.name for path in (folder / "packs").iterdir()} for folder in (tmp_path, finished[0])]
    assert names[0] == names[1]


def test_divergence_is_an_outcome(tmp_path):
    spec = SPEC.model_copy(
        update={"loss": "squared-error", "learning_rates": [1e6, 0.01], "tolerances": [], "steps": 60}
    )
    result, records = run_study(spec, tmp_path)
    diverged = records.filter(result="diverged")
    assert set(diverged["learning_rate"]) == {1e6}
    assert {"every-1", "every-4", "never"} == set(diverged["schedule"])
    assert diverged["diverged_at"].is_between(1, 59).all()
    ends = records.group_by("schedule", "learning_rate", "seed").agg(
        pl.col("result", "train_loss", "num_classes").last()
    )
    failed = ends.filter(result="failed to train")
    assert failed.height > 0
    assert (failed["train_loss"] > 0.99 * 0.45).all()  # half the variance of one-hot targets
    for outcome in result.outcomes:
        own = ends.filter(schedule=outcome.schedule)
        counted = [own.filter(result=how).height for how in ("diverged", "failed to train")]
        assert [outcome.num_diverged_all_rates, outcome.num_failed_all_rates] == counted
        assert outcome.num_runs_all_rates == own.height


def test_equal_distance_end_to_end(tmp_path):
    spec = SPEC.model_copy(
        update={"comparison": "equal-distance", "learning_rates": [0.1, 0.05], "tolerances": [], "seeds": 3}
    )
    result, records = run_study(spec, tmp_path)
    last = records.group_by("schedule", "learning_rate", "seed").agg(pl.max("step", "feature_updates"))
    assert dict(last.select("learning_rate", "step").unique().rows()) == {0.1: 20, 0.05: 40}
    assert records["num_steps"].unique().to_list() == [20]
    star = next(outcome for outcome in result.outcomes if outcome.period == result.k_star)
    assert result.sufficient_feature_updates == star.feature_updates
    assert "equal learning rate × steps" in result.verdict
    assert f"in {20 if star.learning_rate == 0.1 else 40} steps" in result.verdict


def test_one_run_alone_is_the_run_of_the_study(finished):
    same = finished[2].filter(schedule="every-4", learning_rate=0.1, seed=1)
    alone = train_one(SPEC, "every-4", 0.1, seed=1)
    polars.testing.assert_frame_equal(alone.drop("stage"), same.drop("stage"), check_column_order=False, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_options": {"width": -3}}, "`width` must be an integer of at least 1"),
        ({"batch_size": 1201}, r"there are 1200 training examples in digits, got 1201"),
        ({"train_limit": 16}, r"there are 16 training examples that train_limit leaves in digits, got 32"),
        ({"train_limit": 5000}, "limit must be from 1 to 1200"),
    ],
)
def test_what_cannot_run_is_refused_before_the_folder_is_made(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run_study(SPEC.model_copy(update=change), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("every-4", 0.0, 0), "learning rate must be above 0"),
        (("every-4", math.nan, 0), "learning rate must be above 0"),
        (("every-4", math.inf, 0), "learning rate must be above 0"),
        (("every-4", 0.1, -1), "seed must be from 0 to 2147483647, got -1"),
        (("every-4", 0.1, 2**31), "seed must be from 0"),
        (("every-0", 0.1, 0), "schedule must be every-K"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_one(SPEC, *arguments)


def test_executors_need_a_worker():
    with pytest.raises(ValueError, match="`workers` must be at least 1, got 0"):
        ThreadExecutor(0)


def test_settings_and_one_file_of_records_are_enough_to_report(finished, tmp_path):
    folder, result, records, *_ = finished
    for name in ("spec.json", "records.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    spec, again, same = stored_study(tmp_path)
    assert spec == SPEC
    assert again == result
    polars.testing.assert_frame_equal(same, records)
    (tmp_path / "records.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(StoreError, match=r"records.parquet is damaged .*; restore it"):
        stored_study(tmp_path)
