"""What a run keeps that is stopped: by an error, a signal, or its own rule."""

import json
import signal
import subprocess
import sys

import numpy as np
import optax
import pytest

import relin as il
from core.checkpoint_runs import bits, train


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_ends_a_run_keeps_its_state(tmp_path, error):
    def progress(done, total):
        if done >= 5:
            raise error

    with pytest.raises(error) as caught:
        train(folder=tmp_path, progress=progress, every=100)
    assert (tmp_path / "step-5.json").exists()
    assert caught.value.solution.result is il.Result.interrupted
    assert bits(train(folder=tmp_path, every=100)) == bits(train())


def test_an_interrupted_run_goes_on_in_memory():
    def progress(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(progress=progress)
    assert bits(train(resume=caught.value.solution)) == bits(train())


@pytest.mark.parametrize("at", [17, 18, 19])
def test_the_loss_at_the_end_is_that_of_the_last_tenth(tmp_path, at):
    def progress(done, total):
        if done >= at:
            raise KeyboardInterrupt

    how = {"steps": 20, "record_every": None, "drive": "host"}
    with pytest.raises(KeyboardInterrupt) as caught:
        train(folder=tmp_path, progress=progress, every=1000, **how)
    alone = train(**how)
    assert alone.final_loss is not None
    assert bits(train(folder=tmp_path, every=1000, **how)) == bits(alone)
    assert bits(train(resume=caught.value.solution, **how)) == bits(alone)


def test_what_ends_a_run_counts_for_the_records_it_has():
    alone = train(record_every=1, steps=8)
    level = alone.records["training_loss"][3]
    stop = lambda record: record["training_loss"] == level  # noqa: E731
    solution = train(record_every=1, resume=alone, stop=stop)
    assert (solution.result, solution.records["step"][-1]) == (il.Result.stopped, 8)


def test_stops_early():
    losses = train(steps=40, record_every=2).records["training_loss"]
    solution = train(steps=40, record_every=2, stop=lambda record: record["training_loss"] < 0.6)
    assert solution.result is il.Result.stopped
    count = int(np.flatnonzero(losses < 0.6)[0]) + 1
    np.testing.assert_array_equal(solution.records["training_loss"], losses[:count])


def test_early_stopping_by_hand(tmp_path):
    found = [1.0, 0.8, 0.9, float("nan"), 0.7, 0.7, 0.71, 0.72]
    stop = il.EarlyStopping("loss", patience=3)
    for _ in range(2):  # a second run begins anew
        said = [stop({"step": step, "loss": loss}) for step, loss in enumerate(found)]
        assert said == [False] * 7 + [True]
    with pytest.raises(ValueError, match="EarlyStopping looks at 'other', and the records hold step, loss"):
        il.EarlyStopping("other")({"step": 0, "loss": 1.0})


def test_a_run_that_stopped_early_stays_so(tmp_path):
    stop = il.EarlyStopping("training_loss", patience=1)
    how = {"solver": il.WeightSpace(optax.sgd(3.0)), "record_every": 1, "steps": 60, "stop": stop}
    first = train(folder=tmp_path, **how)
    assert first.result is il.Result.stopped
    assert bits(train(folder=tmp_path, **how)) == bits(first)


TERMINATED = """
import sys, time
import jax, optax, relin as il
import jax.numpy as jnp

def progress(done, total):
    print(done, flush=True)
    time.sleep(0.05)

problem = il.Problem(lambda p, x: jnp.tanh(x @ p), il.SquaredError())
x = jnp.linspace(0, 1, 12).reshape(4, 3)
il.train(problem, il.WeightSpace(optax.adam(0.1)), 3, jnp.ones((3, 1)), (x, x[:, :1]), num_steps=10_000,
         record_every=1, key=jax.random.key(0), progress=progress, checkpoint=il.Checkpoint(sys.argv[1]))
"""


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_first(tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            if int(line) >= 3:
                program.send_signal(signal.SIGTERM)
                break
        program.stdout.read()
        assert program.wait(60) == 128 + signal.SIGTERM
    (settings,) = tmp_path.glob("*.json")
    assert json.loads(settings.read_text())["step"] >= 3
