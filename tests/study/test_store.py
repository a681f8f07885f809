import errno
import multiprocessing
import os
import stat
import subprocess
import time

import polars as pl
import polars.testing
import pytest

from relin._common import process
from relin._common.files import write_atomically
from relin.studies.frequency.settings import FrequencySpec
from relin.study import SpecError, Store, StoreError, _records
from relin.study._grid import selection_jobs
from relin.study._store import describe

SPEC = FrequencySpec(steps=20, periods=[1, 4], learning_rates=[0.1, 0.01], seeds=3, select_seeds=2)
JOBS = selection_jobs(SPEC, 1)


def records_of(job):
    rows = [
        {
            "schedule": run.condition.name,
            "num_steps": run.num_steps,
            "run_steps": run.num_steps,
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            "step": step,
            "test_accuracy": 0.1 * run.seed + step / 100,
            "result": "successful",
            "diverged_at": None,
            "spec": describe(SPEC.model_dump(mode="json")),
            "versions": "{}",
            "device": "cpu",
        }
        for run in job.runs
        for step in (20, 0)
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "study")
    store.open(SPEC, 1)
    return store


@pytest.fixture
def filled(store):
    for job in JOBS:
        store.write(job, records_of(job))
    return store


def test_records_come_back_in_an_order_that_does_not_depend_on_that_of_writing(filled):
    everything = pl.concat(map(records_of, JOBS)).sort("schedule", "learning_rate", "seed", "step")
    polars.testing.assert_frame_equal(filled.read(JOBS), everything)
    polars.testing.assert_frame_equal(filled.read(JOBS[::-1]), everything)


def test_the_folder_remembers_settings_and_jobing(store, tmp_path):
    assert store.spec() == SPEC
    assert store.open(SPEC, 128) == 1  # begun with 1: another device must find the same jobs
    assert Store(tmp_path / "new").open(SPEC, 128) == 128


def test_another_study_is_refused_and_nothing_changes(store):
    other = SPEC.model_copy(update={"steps": 21, "margin": 2.0})
    with pytest.raises(SpecError, match=r"holds a study with other settings \(margin, steps\); choose another folder"):
        store.open(other, 1)
    assert store.spec() == SPEC


def test_folders_without_a_study_are_told(tmp_path):
    with pytest.raises(SpecError, match=r"holds no study \(no spec.json\); name the folder given to --out"):
        Store(tmp_path).spec()


@pytest.mark.parametrize("content", ["", "{", '{"study": "frequency", "steps": "many"}', "[]"])
def test_damaged_settings_are_told(store, content):
    (store.folder / "spec.json").write_text(content)
    for use in (store.spec, lambda: store.open(SPEC, 1)):
        with pytest.raises(StoreError, match=r"spec\.json is not a study's settings; restore it"):
            use()


@pytest.mark.parametrize("deep", ['{"model_options": ' + "[" * 10**5, '{"a": ' + 200 * "[" + 200 * "]" + "}"])
def test_settings_nested_without_end_are_told(store, deep):
    (store.folder / "spec.json").write_text(deep)
    with pytest.raises(StoreError, match=r"spec\.json is not a study's settings; restore it"):
        store.spec()


@pytest.mark.parametrize(
    "content",
    [None, "", "{}", "3", "[" * 10**5]
    + [f'{{"lanes": {lanes}}}' for lanes in ('"x"', 0, -3, 10**999, "1e999", "NaN", 1.5, "true", "null")],
)
def test_damaged_jobing_is_told(store, content):
    path = store.folder / "packing.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(StoreError, match=r"packing\.json is missing or damaged; write"):
        store.lanes()


def test_a_truncated_job_is_told_with_its_file(filled):
    path = filled.path(JOBS[1])
    whole = path.read_bytes()
    for length in (0, 3, 4, 100, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=f"{path.name} is damaged .*; run the study again, which recomputes it"):
            filled.read(JOBS)
    path.write_bytes(whole)
    assert filled.read(JOBS).height == sum(2 * len(job.runs) for job in JOBS)


def test_a_job_with_the_records_of_another_is_told(filled):
    filled.path(JOBS[0]).write_bytes(filled.path(JOBS[1]).read_bytes())
    with pytest.raises(StoreError, match="is damaged"):
        filled.read(JOBS)
    pl.DataFrame({"x": [1]}).write_parquet(filled.path(JOBS[0]))
    with pytest.raises(StoreError, match="is damaged"):
        filled.read(JOBS)


DAMAGE = {
    "rows that are there twice": lambda records: pl.concat([records, records.head(1)]),
    "rows missing": lambda records: records.filter(pl.col("step") > 0),
    "other runs": lambda records: records.with_columns(seed=pl.col("seed") + 90),
    "a column test_accuracy of type String": lambda records: records.cast({"test_accuracy": pl.String}),
    "a column seed of type List": lambda records: records.with_columns(seed=pl.concat_list("seed")),
    "no column step": lambda records: records.drop("step"),
    "settings that no study has": lambda records: records.with_columns(spec=pl.lit("[" * 10**5)),
    "versions that no program has": lambda records: records.with_columns(versions=pl.lit("1.0")),
    "rows that no run of this study has": lambda records: pl.concat([records] * 50),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_job_without_digest_is_read_if_its_rows_are_those_of_its_runs(filled, fault):
    path, whole = filled.path(JOBS[1]), filled.read(JOBS)
    records = pl.read_parquet(path)
    records.write_parquet(path)  # as relin wrote jobs before they had digests
    polars.testing.assert_frame_equal(filled.read(JOBS), whole)
    DAMAGE[fault](records).write_parquet(path)
    with pytest.raises(StoreError, match=rf"{path.name} is damaged \({fault}.*\); run the study again"):
        filled.read(JOBS)
    assert not filled.finished(JOBS[1])
    assert filled.finished(JOBS[0])


@pytest.mark.parametrize(
    ("steps", "diverged_at", "whole"),
    [
        ([0, 5, 10, 15, 20], None, True),
        ([0, 8, 16, 20], None, True),  # T is no multiple of the interval
        ([0, 20], None, True),
        ([0, 5, 15, 20], None, False),
        ([0, 10, 15, 20], None, False),
        ([0, 5, 10], None, False),
        ([5, 10, 15, 20], None, False),
        ([20], None, False),
        ([0, 10, 30], None, False),
        ([0, 5, 10, 15], 14, True),
        ([0, 5], 14, False),
        ([0, 1, 2, 3], 4, True),  # the last row before the step that diverged
    ],
)
def test_a_row_missing_anywhere_is_told(steps, diverged_at, whole):
    first = records_of(JOBS[0]).head(1).with_columns(diverged_at=pl.lit(diverged_at, pl.Int64))
    rows = pl.concat([first.with_columns(step=pl.lit(step, pl.Int64)) for step in steps[::-1]])
    assert _records.faults([rows], [_records.identities(rows)]) == ({} if whole else {0: "rows missing"})


def test_records_of_other_settings_are_refused(filled):
    other = SPEC.model_copy(update={"batch_size": 7, "momentum": 0.5})
    text = describe(other.model_dump(mode="json"))
    filled.write(JOBS[0], records_of(JOBS[0]).with_columns(spec=pl.lit(text)))
    message = (
        r"select-.*\.parquet holds records of a study with other settings \(batch_size, momentum\); move it out of"
    )
    for use in (lambda: filled.read(JOBS), lambda: filled.damaged(JOBS), lambda: filled.finished(JOBS[0])):
        with pytest.raises(StoreError, match=message):
            use()


def test_a_job_that_is_no_regular_file_is_told(filled):
    path = filled.path(JOBS[0])
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(StoreError, match=r"is damaged \(not a regular file\)"):
        filled.read(JOBS)


def test_a_folder_removed_meanwhile_is_told_and_stays_away(filled, tmp_path):
    filled.folder.rename(tmp_path / "elsewhere")
    records = records_of(JOBS[0])

    def claim():
        with filled.claim(JOBS[0]):
            pass

    for use in (lambda: filled.write(JOBS[0], records), lambda: filled.write_whole(records), claim):
        with pytest.raises(StoreError, match="study was removed while the study ran; run the same command again"):
            use()
    assert not filled.folder.exists()
    filled.jobs.mkdir(parents=True)  # what removal left while files were being written into it
    with pytest.raises(StoreError, match="was removed while the study ran"):
        filled.write(JOBS[0], records)
    assert list(filled.jobs.iterdir()) == []


def test_what_dead_processes_left_is_removed_when_the_study_is_opened(filled):
    (filled.folder / "figures").mkdir()
    names = (".records.parquet.a.part", ".packing.json.b.part", "figures/.ridge.png.c.part", "packs/.x.parquet.d.part")
    for name in names:
        (filled.folder / name).write_bytes(b"half")
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    here, now = process.host(), time.time()
    left = [f".spec.json.{here}-{ended.pid}.abc.part", f".spec.json.0123456789ab-{ended.pid}.old.part"]
    written = [f".spec.json.{here}-{os.getpid()}.abc.part", f".spec.json.0123456789ab-{ended.pid}.new.part"]
    for name in (*left, *written):
        (filled.folder / name).write_bytes(b"half")
    os.utime(filled.folder / left[1], (now - 1e5, now - 1e5))
    filled.open(SPEC, 1)
    assert not any((filled.folder / name).exists() for name in (*names, *left))
    assert all((filled.folder / name).exists() for name in written)


def test_locks_of_earlier_versions_are_free(store):
    for name in (JOBS[0].name, "study"):
        (store.locks / name).touch()  # they held locks of the system on empty files
    store.open(SPEC, 1)
    with store.claim(JOBS[0]) as claim:
        assert claim == "ours"


def test_what_is_written_is_finished_though_its_writer_has_not_let_go(store):
    with store.claim(JOBS[0]):
        store.write(JOBS[0], records_of(JOBS[0]))
        with Store(store.folder).claim(JOBS[0]) as other:
            assert other == "finished"


def test_a_missing_job_is_told(filled):
    filled.path(JOBS[0]).unlink()
    with pytest.raises(StoreError, match="is missing; run the study again"):
        filled.read(JOBS)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_neither_half_a_file_nor_less_than_before(filled, monkeypatch, failing):
    before = filled.read(JOBS)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        filled.write(JOBS[0], records_of(JOBS[0]).with_columns(test_accuracy=pl.lit(9.0)))
    monkeypatch.undo()
    assert sorted(path.name for path in filled.jobs.iterdir()) == sorted(f"{job.name}.parquet" for job in JOBS)
    polars.testing.assert_frame_equal(filled.read(JOBS), before)


def test_files_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_job_is_claimed_once(store):
    with store.claim(JOBS[0]) as first, store.claim(JOBS[0]) as second, store.claim(JOBS[1]) as other:
        assert (first, second, other) == ("ours", "busy", "ours")
        store.write(JOBS[0], records_of(JOBS[0]))
    with store.claim(JOBS[0]) as again:
        assert again == "finished"


def test_a_claim_ends_with_its_process(store):
    context = multiprocessing.get_context("spawn")
    claimed = context.Event()
    holder = context.Process(target=_claim_for_ever, args=(store.folder, claimed))
    holder.start()
    try:
        assert claimed.wait(60)
        with store.claim(JOBS[0]) as claim:
            assert claim == "busy"
    finally:
        holder.kill()
        holder.join()
    with store.claim(JOBS[0]) as claim:
        assert claim == "ours"


def _claim_for_ever(folder, claimed):
    with Store(folder).claim(JOBS[0]):
        claimed.set()
        time.sleep(600)


def test_claiming_and_writing_a_job_lists_no_folder(store, monkeypatch):
    """Which would take time in proportion to the square of the number of jobs."""
    monkeypatch.setattr(os, "scandir", lambda path: pytest.fail(f"listed {path}"))
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail(f"listed {path}"))
    with store.claim(JOBS[0]) as claim:
        assert claim == "ours"
        store.write(JOBS[0], records_of(JOBS[0]))


def test_half_a_file_is_no_finished_job(store):
    (store.jobs / f".{JOBS[1].name}.parquet.abc.part").write_bytes(b"half")
    assert not store.finished(JOBS[1])


def test_the_state_of_a_job_is_removed_by_who_holds_it_only(store):
    """Who was suspended for a minute has lost the job, and another computes it, and keeps its state."""
    state = store.unfinished(JOBS[0])
    state.mkdir(parents=True)
    lease = store.locks / f"{JOBS[0].name}.lease"
    with store.claim(JOBS[0]):
        ours = lease.read_bytes()
        lease.write_text('{"token": "of another"}')
        store.write(JOBS[0], records_of(JOBS[0]))
        assert state.exists()
        lease.write_bytes(ours)
        store.write(JOBS[0], records_of(JOBS[0]))
        assert not state.parent.exists()


def test_all_versions_and_devices_are_told():
    records = pl.concat(map(records_of, JOBS))
    assert _records.environments(records) == {"device": "cpu"}
    versions = (
        pl.when(seed=0).then(pl.lit('{"relin": "0.1", "jax": "1"}')).otherwise(pl.lit('{"relin": "0.2", "jax": "1"}'))
    )
    device = pl.when(seed=0, learning_rate=0.1).then(pl.lit("gpu")).otherwise(pl.lit("cpu"))
    found = _records.environments(records.with_columns(versions=versions, device=device))
    assert found == {"relin": "0.1 (4 runs), 0.2 (4 runs)", "jax": "1", "device": "cpu (6 runs), gpu (2 runs)"}
