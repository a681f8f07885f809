"""Where a run goes on: after errors, with more steps, from files that were moved, with another `identity`."""

import os
import shutil
import signal
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core.checkpoint_runs import ADAM, KEY, PARAMS, X, Y, apply, bits, of_batches, train


def raising(at, error=RuntimeError):
    def progress(done, total):
        if done >= at:
            raise error

    return progress


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_an_error_after_the_last_record_leaves_no_record_that_more_steps_would_not_have(tmp_path, drive):
    with pytest.raises(RuntimeError) as caught:
        train(folder=tmp_path, progress=raising(12), every=1000, drive=drive)
    assert vars(caught.value)["solution"].records["step"].tolist() == [0, 5, 10, *([12] if drive == "compiled" else [])]
    assert bits(train(folder=tmp_path, steps=20, every=1000, drive=drive)) == bits(train(steps=20, drive=drive))


def test_what_was_recorded_before_the_data_ended_is_kept(tmp_path):
    how: Any = {"every": 1000, "steps": 11, "schedule": 4}
    short = train(folder=tmp_path, data=iter(of_batches() * 2), **how)
    assert (short.result, short.records["step"][-1]) == (il.Result.data_exhausted, 8)
    seen = []
    again = train(folder=tmp_path, data=iter(of_batches() * 3), progress=lambda n, total: seen.append(n), **how)
    assert seen[0] == 8
    assert bits(again) == bits(train(data=iter(of_batches() * 3), **how))


SPECTRAL: Any = {
    "solver": il.SpectralDescent(0.1),
    "schedule": il.Never(),
    "loss": il.SquaredError(),
    "batch_size": None,
}


def test_steps_taken_at_once_go_on_from_a_record_of_both_runs_alone(tmp_path):
    how = SPECTRAL | {"record_every": 4}
    train(folder=tmp_path / "at a record", steps=8, **how)
    assert bits(train(folder=tmp_path / "at a record", steps=12, **how)) == bits(train(steps=12, **how))
    train(folder=tmp_path / "between", steps=6, **how)
    with pytest.raises(ValueError, match="that ended between two, at step 6; pass num_steps=6"):
        train(folder=tmp_path / "between", steps=12, **how)


def test_steps_taken_at_once_are_kept_at_the_record_after_they_are_due(tmp_path):
    train(folder=tmp_path, steps=11, record_every=4, every=6, **SPECTRAL)
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["step-11", "step-8"]


def test_an_iterable_goes_on_in_memory():
    half = train(steps=6, record_every=3, data=of_batches())
    assert bits(train(record_every=3, data=of_batches(), resume=half)) == bits(train(record_every=3, data=of_batches()))


class Named(il.AbstractObserver):
    """Records under a name that it is given."""

    name: str

    def compute(self, context, state):
        return {self.name: jnp.sum(context.anchor["w"])}, state


def test_records_with_other_names_are_refused():
    half = train(steps=5, observers=[Named("a")])
    with pytest.raises(ValueError, match="must hold the same names, got some without a, b; pass") as caught:
        train(resume=half, observers=[Named("b")])
    assert vars(caught.value)["solution"].records["step"].tolist() == [0, 5]


def test_files_under_the_name_of_another_step_are_damaged(tmp_path):
    train(folder=tmp_path)
    for step, other in ((8, 9), (6, 7)):
        for kind in ("json", "safetensors"):
            shutil.copy(tmp_path / f"step-{step}.{kind}", tmp_path / f"step-{other}.{kind}")
    shutil.copy(tmp_path / "step-4.safetensors", tmp_path / "step-8.safetensors")
    for path in [*tmp_path.glob("step-1*")]:
        path.unlink()
    seen = []
    again = train(folder=tmp_path, progress=lambda n, total: seen.append(n))
    assert seen[0] == 6
    assert bits(again) == bits(train())


def test_a_kill_between_two_files_leaves_nothing_for_long(tmp_path):
    (tmp_path / "step-7.safetensors").write_bytes(b"of a run that was killed before it wrote step-7.json")
    train(folder=tmp_path, every=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-12.json", "step-12.safetensors"]


def test_a_file_in_the_place_of_the_folder_is_refused_at_once(tmp_path):
    (tmp_path / "run").write_text("notes")
    with pytest.raises(NotADirectoryError, match=r"A checkpoint's folder must be one, got the file .*run; name"):
        train(folder=tmp_path / "run")
    assert (tmp_path / "run").read_text() == "notes"


class Weak(il.AbstractObserver):
    """Its state is of a weak type, so that what it records is in half precision."""

    def init(self, context):
        return jnp.asarray(1.0)

    def compute(self, context, state):
        value = jnp.sum(context.anchor["w"]).astype(jnp.float16) * state
        return {"wide": value.astype(jnp.float32)}, state * 1.1


class Of(Weak):
    kind: Any

    def init(self, context):
        return jnp.zeros(2, self.kind)


def test_a_weak_type_stays_one(tmp_path):
    how = {"observers": [Weak()], "record_every": 3}
    train(folder=tmp_path, steps=6, **how)
    assert bits(train(folder=tmp_path, **how)) == bits(train(**how))


@pytest.mark.parametrize("kind", ["complex128", "float8_e4m3fn", "int4"])  # float8 is written, and not read again
def test_a_state_that_no_file_holds_is_refused_at_once(tmp_path, kind):
    with pytest.raises(TypeError, match=f"an observer or the batches hold numbers of the type {kind}, which"):
        train(folder=tmp_path, observers=[Of(jnp.dtype(kind))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("identity", ["run 1", {"a": float("nan")}, {"a": np.int64(3)}, {"a": np.ones(2)}])
def test_an_identity_that_no_file_holds_is_refused_at_once(tmp_path, identity):
    with pytest.raises(ValueError, match="`identity` must be numbers, texts, and lists and dictionaries of them"):
        il.Checkpoint(tmp_path, identity=identity)


def test_an_identity_is_compared_as_a_file_holds_it(tmp_path):
    def run(rates):
        checkpoint = il.Checkpoint(tmp_path, identity={"rates": rates, "nested": {3: "three"}})
        problem = il.Problem(apply, il.CrossEntropy())
        return il.train(problem, ADAM, 3, PARAMS, (X, Y), num_steps=4, key=KEY, checkpoint=checkpoint)

    assert bits(run((0.1, 0.2))) == bits(run([0.1, 0.2]))
    with pytest.raises(ValueError, match="differs in rates"):
        run((0.1, 0.3))


def test_the_function_that_makes_lanes_is_part_of_them(tmp_path):
    def lanes(power):
        def make(lane):
            solver = il.WeightSpace(optax.sgd(0.1))
            return il.Run(il.Problem(apply, il.CrossEntropy()), solver, il.Every(lane**power), PARAMS, KEY)

        options = {"num_steps": 6, "batch_size": 8, "drive": "map", "checkpoint": il.Checkpoint(tmp_path)}
        return il.train_lanes(make, jnp.array([1, 2]), (X, Y), **options)

    lanes(1)
    with pytest.raises(ValueError, match="differs in make"):
        lanes(2)


def test_a_second_sigterm_does_not_keep_the_first_from_writing(tmp_path, monkeypatch):
    from relin._loop import checkpoint

    def progress(done, total):
        if done >= 5:
            os.kill(os.getpid(), signal.SIGTERM)

    write = checkpoint.write_atomically

    def write_atomically(path, content):
        os.kill(os.getpid(), signal.SIGTERM)
        return write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", write_atomically)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        train(folder=tmp_path, every=1000, progress=progress)
    assert caught.value.code == 128 + signal.SIGTERM
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-5.json", "step-5.safetensors"]
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    assert bits(train(folder=tmp_path)) == bits(train())
