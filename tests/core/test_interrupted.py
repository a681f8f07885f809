"""An error on the way keeps its type and carries the solution so far."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core.stopped import StopError
from relin._loop import compiled as _compiled, course as _course, program as _program, sources as _sources

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (12, 3))
Y = jnp.sin(X @ jnp.ones((3, 2)))
PARAMS = {"w": jnp.full((3, 2), 0.1)}
PROBLEM = il.Problem(lambda p, x: jnp.tanh(x @ p["w"]), il.SquaredError())
EVERY_3 = il.Every(3)
SOLVER = il.WeightSpace(optax.sgd(0.1, momentum=0.9))


def train(schedule=EVERY_3, solver=SOLVER, data=(X, Y), num_steps=8, **options):
    if isinstance(data, tuple):
        options = {"batch_size": None if isinstance(solver, il.SpectralDescent) else 4} | options
    return il.train(PROBLEM, solver, schedule, PARAMS, data, num_steps=num_steps, key=KEY, **options)


def raising(at, error=StopError):
    """`progress` that raises after this step."""

    def progress(done, total):
        if done >= at:
            raise error

    return progress


def same(found, expected, steps):
    """The parameters are those of a run of so many steps."""
    assert found.result is il.Result.interrupted
    np.testing.assert_allclose(found.params["w"], expected.params["w"], rtol=1e-12)
    both = jax.tree.map(jnp.add, found.anchor, found.displacement)
    np.testing.assert_allclose(both["w"], found.params["w"], rtol=1e-12)
    assert expected.records["step"][-1] == steps


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("options", "stop", "records"),
    [
        ({"drive": "compiled"}, 4, [0, 4]),
        ({"drive": "host"}, 6, [0, 4]),
        ({"drive": "host", "schedule": il.Every(1)}, 6, [0, 4]),
        ({"solver": il.SpectralDescent(0.1)}, 6, [0, 4]),
    ],
    ids=["compiled", "host", "ordinary", "multi-step"],
)
def test_the_solution_is_that_of_the_steps_taken(options, stop, records, error):
    with pytest.raises(error) as caught:
        train(progress=raising(stop, error), record_every=4, **options)
    assert type(caught.value) is error
    found = caught.value.solution
    same(found, train(num_steps=stop, **options), stop)
    assert found.records["step"].tolist() == records
    assert caught.value.__notes__ == [f"The solution after {stop} steps is this error's `solution`."]
    with pytest.raises(il.TrainingError, match="interrupted"):
        found.throw()


@pytest.mark.parametrize(("schedule", "steps"), [(il.Every(3), 5), (il.Every(1), 4)], ids=["every 3", "ordinary"])
def test_an_iterable_that_raises(schedule, steps):
    """Ordinary training reads one batch ahead."""
    batches = [(X[i : i + 4], Y[i : i + 4]) for i in range(8)]

    def failing():
        yield from batches[:5]
        raise StopError

    with pytest.raises(StopError) as caught:
        train(schedule, data=failing())
    same(caught.value.solution, train(schedule, data=batches, num_steps=steps), steps)


class Failing(il.AbstractObserver):
    """Fails at a step."""

    step: int

    def compute(self, context, state):
        if not context.traced and context.step == self.step:
            raise StopError
        return {"norm": jnp.sum(context.anchor["w"])}, state


class FailingLogger(il.AbstractLogger):
    def log(self, step, values, lane=None):
        if step == 4:
            raise KeyboardInterrupt


def test_an_observer_that_raises():
    with pytest.raises(StopError) as caught:
        train(observers=[Failing(4)], record_every=4, drive="host")
    same(caught.value.solution, train(num_steps=4, drive="host"), 4)
    assert caught.value.solution.records["step"].tolist() == [0]
    with pytest.raises(StopError) as caught:
        train(observers=[Failing(0)], drive="host")
    assert caught.value.solution.records == {}
    np.testing.assert_array_equal(caught.value.solution.params["w"], PARAMS["w"])
    assert "interrupted" in repr(caught.value.solution)


def test_a_logger_that_is_interrupted():
    with pytest.raises(KeyboardInterrupt) as caught:
        train(loggers=[FailingLogger()], record_every=4)
    assert caught.value.solution.records["step"].tolist() == [0, 4]


def test_between_two_records_what_the_device_had_computed_is_kept(monkeypatch):
    monkeypatch.setattr(_sources, "PLANNED_STEPS", 2)
    call, calls = _compiled._call, []

    def interrupted(static, lane, shared, function, *arguments, **options):
        if function is _program.steps:
            calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(static, lane, shared, function, *arguments, **options)

    monkeypatch.setattr(_compiled, "_call", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train()
    monkeypatch.setattr(_compiled, "_call", call)
    same(caught.value.solution, train(num_steps=4), 4)


def test_where_the_device_fails_the_last_record_is_the_solution(monkeypatch):
    """What was to be computed cannot be read, and says so only when it is."""
    ready = jax.block_until_ready

    def block_until_ready(state):
        if int(state.step) == 8:
            raise RuntimeError("the device is gone")
        return ready(state)

    monkeypatch.setattr(_course.jax, "block_until_ready", block_until_ready)
    with pytest.raises(StopError) as caught:
        train(drive="host", progress=raising(8), record_every=4)
    monkeypatch.undo()
    same(caught.value.solution, train(num_steps=4, drive="host"), 4)


def test_before_step_0_there_is_none(monkeypatch):
    def fail(*_, **__):
        raise StopError

    monkeypatch.setattr(_compiled, "_call", fail)
    with pytest.raises(StopError) as caught:
        train()
    assert caught.value.solution is None


def make(lane):
    return il.Run(PROBLEM, il.WeightSpace(optax.sgd(lane)), il.Every(3), PARAMS, KEY)


@pytest.mark.parametrize(("drive", "stop", "steps"), [("map", 4, [[0, 4], [0, 4]]), ("host", 14, [[0, 4, 8], [0, 4]])])
def test_lanes_so_far(drive, stop, steps):
    rates = jnp.array([0.1, 0.2])
    with pytest.raises(StopError) as caught:
        il.train_lanes(
            make, rates, (X, Y), num_steps=8, batch_size=4, record_every=4, drive=drive, progress=raising(stop)
        )
    found = caught.value.solution
    assert isinstance(found, il.LaneSolutions)
    assert [solution.records["step"].tolist() for solution in found] == steps
    last = il.train_lanes(make, rates[1:], (X, Y), num_steps=stop % 8, batch_size=4, drive=drive)[0]
    same(found[1], last, stop % 8)
    # Driven from the host, the first lane had ended before the second was interrupted.
    assert (found[0].result is il.Result.interrupted) == (drive != "host")
