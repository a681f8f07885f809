import errno
import multiprocessing
import os
import stat
import time

import polars as pl
import polars.testing
import pytest

from relin._files import write_atomically
from relin.study import FrequencySpec, SpecError, Store, StoreError
from relin.study._grid import selection_packs

SPEC = FrequencySpec(steps=20, periods=[1, 4], learning_rates=[0.1, 0.01], seeds=3, select_seeds=2)
PACKS = selection_packs(SPEC, 1)


def records_of(pack):
    rows = [
        {
            "schedule": run.method.name,
            "num_steps": run.num_steps,
            "run_steps": run.num_steps,
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            "step": step,
            "test_accuracy": 0.1 * run.seed + step / 100,
        }
        for run in pack.runs
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
    for pack in PACKS:
        store.write(pack, records_of(pack))
    return store


def test_records_come_back_in_an_order_that_does_not_depend_on_that_of_writing(filled):
    everything = pl.concat(map(records_of, PACKS)).sort("schedule", "learning_rate", "seed", "step")
    polars.testing.assert_frame_equal(filled.read(PACKS), everything)
    polars.testing.assert_frame_equal(filled.read(PACKS[::-1]), everything)


def test_the_folder_remembers_settings_and_packing(store, tmp_path):
    assert store.spec() == SPEC
    assert store.open(SPEC, 128) == 1  # begun with 1: another device must find the same packs
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


@pytest.mark.parametrize("content", [None, "", "{}", '{"lanes": "x"}', "3"])
def test_damaged_packing_is_told(store, content):
    path = store.folder / "packing.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(StoreError, match=r"packing\.json is missing or damaged; write"):
        store.lanes()


def test_a_truncated_pack_is_told_with_its_file(filled):
    path = filled.path(PACKS[1])
    whole = path.read_bytes()
    for length in (0, 3, 4, 100, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=f"{path.name} is damaged; remove it and run the study again"):
            filled.read(PACKS)
    path.write_bytes(whole)
    assert filled.read(PACKS).height == sum(2 * len(pack.runs) for pack in PACKS)


def test_a_pack_with_the_records_of_another_is_told(filled):
    filled.path(PACKS[0]).write_bytes(filled.path(PACKS[1]).read_bytes())
    with pytest.raises(StoreError, match="is damaged"):
        filled.read(PACKS)
    pl.DataFrame({"x": [1]}).write_parquet(filled.path(PACKS[0]))
    with pytest.raises(StoreError, match="is damaged"):
        filled.read(PACKS)


def test_a_missing_pack_is_told(filled):
    filled.path(PACKS[0]).unlink()
    with pytest.raises(StoreError, match="is missing; run the study again"):
        filled.read(PACKS)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_neither_half_a_file_nor_less_than_before(filled, monkeypatch, failing):
    before = filled.read(PACKS)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        filled.write(PACKS[0], records_of(PACKS[0]).with_columns(test_accuracy=pl.lit(9.0)))
    monkeypatch.undo()
    assert sorted(path.name for path in filled.packs.iterdir()) == sorted(f"{pack.name}.parquet" for pack in PACKS)
    polars.testing.assert_frame_equal(filled.read(PACKS), before)


def test_files_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_pack_is_claimed_once(store):
    with store.claim(PACKS[0]) as first, store.claim(PACKS[0]) as second, store.claim(PACKS[1]) as other:
        assert (first, second, other) == ("ours", "busy", "ours")
        store.write(PACKS[0], records_of(PACKS[0]))
    with store.claim(PACKS[0]) as again:
        assert again == "finished"


def test_a_claim_ends_with_its_process(store):
    context = multiprocessing.get_context("spawn")
    claimed = context.Event()
    process = context.Process(target=_claim_for_ever, args=(store.folder, claimed))
    process.start()
    try:
        assert claimed.wait(60)
        with store.claim(PACKS[0]) as claim:
            assert claim == "busy"
    finally:
        process.kill()
        process.join()
    with store.claim(PACKS[0]) as claim:
        assert claim == "ours"


def _claim_for_ever(folder, claimed):
    with Store(folder).claim(PACKS[0]):
        claimed.set()
        time.sleep(600)


def test_what_a_dead_process_left_is_removed_but_not_what_others_write(store):
    left = store.packs / f".{PACKS[0].name}.parquet.abc.part"
    others = store.packs / f".{PACKS[1].name}.parquet.abc.part"
    for path in (left, others):
        path.write_bytes(b"half")
    with store.claim(PACKS[0]):
        assert not left.exists()
    assert others.exists()
    assert not store.finished(PACKS[1])
