"""A run that goes on from a checkpoint ends with the same bits as one that was never stopped."""

import json

import equinox as eqx
import jax.numpy as jnp
import optax
import pytest

import relin as il
from core.checkpoint_runs import ADAM, KEY, MOMENTUM, PARAMS, STEPS, X, Y, agrees, apply, bits, of_batches, train


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


AVERAGED = il.WeightSpace(optax.adam(0.03), averaging=il.UniformAverage())
CAPPED = il.WeightSpace(optax.sgd(0.3), window_rate=il.CosineWindow(), rate_cap=il.RateCap(0.5, 0.3))


@pytest.mark.parametrize(
    ("solver", "schedule", "options", "drive"),
    [
        (ADAM, 3, {}, "compiled"),
        (MOMENTUM, 1, {}, "host"),
        (il.WeightSpace(optax.sgd(1e200)), 3, {}, "compiled"),
        (ADAM, il.WhenError(0.05, check_every=2), {"safeguard": il.LineSearch()}, "compiled"),
        slow(ADAM, 3, {}, "host"),
        slow(MOMENTUM, 1, {}, "compiled"),
        slow(ADAM, il.WhenError(0.05, check_every=2), {"safeguard": il.LineSearch()}, "host"),
        slow(MOMENTUM, 4, {"safeguard": il.GridSearch(batches=2)}, "compiled"),
        slow(MOMENTUM, 4, {"safeguard": il.GridSearch(batches=2)}, "host"),
        slow(AVERAGED, 5, {"record_every": None}, "compiled"),
        slow(AVERAGED, 5, {"record_every": None}, "host"),
        slow(CAPPED, 5, {}, "compiled"),
        slow(CAPPED, 5, {}, "host"),
        slow(ADAM, il.PerParameter({"w": il.Never(), "*": il.Every(3)}), {}, "compiled"),
    ],
)
def test_of_steps(tmp_path, solver, schedule, options, drive):
    agrees(
        tmp_path, solver=solver, schedule=schedule, drive=drive, observers=[il.KernelDrift((X[:6], Y[:6]))], **options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "schedule"),
    [
        (il.SpectralDescent(0.1), 4),
        (il.GaussNewton(0.1), 1),
        (il.FunctionSpace(optax.sgd(0.1, momentum=0.9)), il.Never()),
    ],
    ids=["spectral", "gauss-newton", "functions"],
)
def test_of_many_steps_at_once(tmp_path, solver, schedule):
    how = {"solver": solver, "schedule": schedule, "loss": il.SquaredError(), "batch_size": None, "record_every": 4}
    agrees(tmp_path, at=(4, 8), **how)


@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_of_lanes(tmp_path, drive):
    lanes = {"rate": jnp.array([0.1, 0.03]), "period": jnp.array([2, 5])}

    def make(lane):
        return il.Run(il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(lane["rate"])), il.Every(lane["period"]), PARAMS, KEY)  # noqa: E501  # fmt: skip

    def run(folder, progress=None):
        checkpoint = folder and il.Checkpoint(folder, every=2, keep=100)
        return il.train_lanes(make, lanes, (X, Y), num_steps=STEPS, batch_size=8, drive=drive, checkpoint=checkpoint, record_every=5, progress=progress)  # noqa: E501  # fmt: skip

    alone = [bits(solution) for solution in run(None)]
    assert [bits(solution) for solution in run(tmp_path / "run")] == alone
    for path in (tmp_path / "run").rglob("step-1*"):
        path.unlink()
    seen = []
    assert [bits(solution) for solution in run(tmp_path / "run", lambda done, total: seen.append(done))] == alone
    assert seen[0] == 8


def test_variables_of_a_network(tmp_path):
    class Network(eqx.Module):
        norm: eqx.nn.BatchNorm
        readout: eqx.nn.Linear

        def __init__(self, key):
            self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
            self.readout = eqx.nn.Linear(3, 2, key=key)

        def __call__(self, x, state):
            x, state = self.norm(x, state)
            return self.readout(x), state

    module, state = eqx.nn.make_with_state(Network)(KEY)
    network, params = il.from_equinox(module, state=state, statistics="batch")

    def run(folder):
        problem = il.Problem(network, il.CrossEntropy())
        checkpoint = folder and il.Checkpoint(folder, every=2, keep=100)
        return il.train(problem, ADAM, 3, params, (X, Y), num_steps=9, batch_size=8, key=KEY, checkpoint=checkpoint)

    alone = bits(run(None))
    assert bits(run(tmp_path)) == alone
    for path in tmp_path.glob("step-[6-9]*"):
        path.unlink()
    assert bits(run(tmp_path)) == alone


def test_a_run_that_has_ended_is_not_run_again(tmp_path):
    first = train(folder=tmp_path)
    seen = []
    again = train(folder=tmp_path, progress=lambda done, total: seen.append(done))
    assert (seen, bits(again)) == ([STEPS], bits(first))


@pytest.mark.parametrize("record_every", [None, 3, 5])
def test_a_larger_number_of_steps_goes_on(tmp_path, record_every):
    how = {"folder": tmp_path, "record_every": record_every}
    for steps in (10, 15, 20):
        again, alone = train(**how, steps=steps), train(record_every=record_every, steps=steps)
        assert bits(again) == bits(alone)
        assert again.final_loss is not None
    with pytest.raises(ValueError, match="is at step 20, got num_steps=12; pass at least as many"):
        train(**how, steps=12)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"solver": il.WeightSpace(optax.sgd(0.1), window_rate=il.CosineWindow())}, "learning rates within windows"),
        ({"safeguard": il.GridSearch(batches=2), "data": "batches"}, "a safeguard that reads batches ahead"),
    ],
)
def test_a_larger_number_of_steps_is_refused_where_what_was_done_depends_on_it(tmp_path, how, match):
    how = how | ({"data": of_batches()} if "data" in how else {})
    half = train(folder=tmp_path, steps=6, **how)
    for options in ({"folder": tmp_path}, {"resume": half}):
        with pytest.raises(ValueError, match=match):
            train(steps=8, **options, **how)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    alone = bits(train())
    train(folder=tmp_path)
    newest, before = tmp_path / "step-12.safetensors", tmp_path / "step-10.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9] + b"\0" * 9)
    assert bits(train(folder=tmp_path)) == alone
    assert bits(train(folder=tmp_path, progress=lambda done, total: None)) == alone
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(before.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"Every checkpoint in .* is damaged"):
        train(folder=tmp_path)


def test_keeps_so_many(tmp_path):
    problem = il.Problem(apply, il.CrossEntropy())
    il.train(problem, ADAM, 3, PARAMS, (X, Y), num_steps=8, key=KEY, checkpoint=il.Checkpoint(tmp_path, 2, keep=2))
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["step-6.json", "step-8.json"]


def test_by_default_about_once_a_minute(tmp_path):
    train(folder=tmp_path, every=None)
    assert [path.name for path in tmp_path.glob("*.json")] == ["step-12.json"]


def test_loggers_are_shown_all_records_again(tmp_path):
    def progress(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), il.JSONLines(tmp_path / "log.jsonl") as log:
        train(folder=tmp_path / "run", progress=progress, loggers=[log])
    with il.JSONLines(tmp_path / "log.jsonl") as log:
        solution = train(folder=tmp_path / "run", loggers=[log])
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == solution.records["step"].tolist() == [0, 5, 10, 12]


def test_goes_on_in_memory(tmp_path):
    half = train(steps=5)
    assert bits(train(steps=STEPS, resume=half)) == bits(train())
    with pytest.raises(ValueError, match="`resume` is at step 5, got num_steps=4"):
        train(steps=4, resume=half)
    with pytest.raises(ValueError, match="`data` is an iterator"):
        train(data=iter(of_batches()), resume=train(steps=4, data=of_batches()))
    with pytest.raises(ValueError, match="Both `checkpoint` and `resume` say where"):
        train(resume=half, folder=tmp_path)
    with pytest.raises(ValueError, match="has a state of another form"):
        train(resume=half, solver=MOMENTUM)


def test_a_loaded_solution_cannot_go_on(tmp_path):
    train().save(tmp_path)
    with pytest.raises(ValueError, match="was read from a file"):
        train(resume=il.load(tmp_path, PARAMS))
