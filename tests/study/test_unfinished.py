"""A study's job that was killed on the way goes on where it was."""

import pytest

from relin._common.lease import InUseError, SoleWriter
from relin._loop import checkpoint as _checkpoint
from relin.study import _study
from relin.study._executor import ThreadExecutor
from relin.study._spec import read_spec

SETTINGS = {
    "train_limit": 64, "steps": 40, "seeds": 2, "select_seeds": 1, "periods": [1, 8], "sparse_periods": [],
    "tolerances": [], "learning_rates": [0.1], "num_records": 8, "model_options": {"width": 8, "depth": 1},
}  # fmt: skip


class KilledError(BaseException):
    pass


def run(folder, report=lambda done: None):
    return _study.run_study(
        read_spec("frequency", overrides=SETTINGS), folder, report=report, executor=ThreadExecutor(1)
    )


def test_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", float("inf"))
    written, write = [], _checkpoint.Keeper.write

    def last_write(keeper, reached):
        write(keeper, reached)
        written.append((keeper.folder, reached.step))
        if reached.step >= 30:
            raise KilledError

    monkeypatch.setattr(_checkpoint.Keeper, "write", last_write)
    with pytest.raises(KilledError):
        run(tmp_path / "killed")
    folder, step = written[-1]
    assert folder.is_relative_to(tmp_path / "killed" / "unfinished")
    assert list(folder.glob(f"step-{step}.json"))
    begun, newest = [], _checkpoint.Keeper.newest

    def found(keeper, *like):
        reached = newest(keeper, *like)
        begun.append(reached and reached.step)
        return reached

    monkeypatch.setattr(_checkpoint.Keeper, "write", write)
    monkeypatch.setattr(_checkpoint.Keeper, "newest", found)
    again = run(tmp_path / "killed")
    assert begun[0] == step >= 30
    assert not any(begun[1:])
    assert again[0] == whole[0]
    assert again[1].drop("spec").equals(whole[1].drop("spec"))
    assert not (tmp_path / "killed" / "unfinished").exists()


@pytest.mark.slow
def test_a_job_whose_state_another_process_keeps_still_is_computed_without_it(tmp_path, monkeypatch):
    """One that was suspended, and lost the job."""
    whole, refused = run(tmp_path / "whole"), []

    def refuse(sole):
        refused.append(sole)
        raise InUseError

    monkeypatch.setattr(SoleWriter, "take", refuse)
    assert run(tmp_path / "other")[0] == whole[0]
    assert refused


@pytest.mark.slow
def test_what_cannot_be_read_is_begun_anew(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    monkeypatch.setattr(_checkpoint, "_SECONDS", 0.0)
    monkeypatch.setattr(_checkpoint, "_SHARE", float("inf"))
    write = _checkpoint.Keeper.write

    def damaged(keeper, reached):
        write(keeper, reached)
        for path in keeper.folder.glob("*.safetensors"):
            path.write_bytes(b"no tensors")
        raise KilledError

    monkeypatch.setattr(_checkpoint.Keeper, "write", damaged)
    with pytest.raises(KilledError):
        run(tmp_path / "killed")
    monkeypatch.setattr(_checkpoint.Keeper, "write", write)
    assert run(tmp_path / "killed")[0] == whole[0]
