"""A run that goes on from a checkpoint ends with the same bits as one that was never stopped."""

import json
import shutil
import signal
import subprocess
import sys

import equinox as eqx
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(1)
X = jnp.asarray(RANDOM.normal(size=(24, 3)))
Y = jnp.asarray(RANDOM.integers(0, 2, size=24))
PARAMS = {"w": jnp.asarray(RANDOM.normal(size=(3, 4))), "v": jnp.asarray(RANDOM.normal(size=(4, 2)))}
ONE_HOT = jnp.eye(2)[Y]
ADAM = il.WeightSpace(optax.adam(0.03))
MOMENTUM = il.WeightSpace(optax.sgd(optax.linear_schedule(0.3, 0.0, 12), momentum=0.9))
AVERAGED = il.WeightSpace(optax.adam(0.03), averaging=il.UniformAverage())
STEPS = 12


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def of_batches(count=4):
    return [(X[6 * n : 6 * n + 6], Y[6 * n : 6 * n + 6]) for n in range(count)]


class Loader:
    """Shuffles anew whenever it is begun, unless it is told where it was, as PyTorch's StatefulDataLoader."""

    def __init__(self):
        self.epoch = self.place = 0

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place, "other": [np.arange(3), (b"bytes", None)]}

    def load_state_dict(self, state):
        assert state["other"][1] == (b"bytes", None)
        np.testing.assert_array_equal(state["other"][0], np.arange(3))
        self.epoch, self.place = state["epoch"], state["place"]

    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(4)
        while self.place < 4:
            self.place += 1
            yield of_batches()[order[self.place - 1]]
        self.epoch, self.place = self.epoch + 1, 0


class Source:
    """Examples as Grain takes them, which knows a source again by its `repr`."""

    def __len__(self):
        return len(X)

    def __getitem__(self, index):
        return np.asarray(X[index]), np.asarray(Y[index])

    def __repr__(self):
        return "examples of the test"


def of_grain_loader():
    sampler = grain.samplers.IndexSampler(len(X), shuffle=True, seed=3, num_epochs=None)
    return grain.DataLoader(data_source=Source(), sampler=sampler, operations=[grain.transforms.Batch(8)])


def of_grain_dataset():
    return grain.MapDataset.source(Source()).shuffle(seed=3).repeat().batch(8).to_iter_dataset()


def train(solver=ADAM, schedule=3, folder=None, steps=STEPS, loss=None, data=None, every=2, **options):
    loss = il.CrossEntropy() if loss is None else loss
    data = (X, Y if isinstance(loss, il.CrossEntropy) else ONE_HOT) if data is None else data
    if isinstance(data, tuple) and "batches" not in options:
        options = {"batch_size": 8} | options
    checkpoint = None if folder is None else il.Checkpoint(folder, every=every, keep=100)
    options = {"record_every": 5, "throw": False, "key": KEY} | options
    problem = il.Problem(options.pop("apply", apply), loss)
    return il.train(problem, solver, schedule, PARAMS, data, num_steps=steps, checkpoint=checkpoint, **options)


def bits(solution):
    trees = (solution.params, solution.anchor, solution.displacement, solution.optimiser_state, solution.variables)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trees)]
    ends = (solution.result, solution.final_loss, solution.feature_updates, solution.diverged_at)
    return [array.tobytes() for array in (*leaves, *solution.records.values())], ends


def stopped_at(whole, step, folder):
    """A folder as a kill leaves it soon after this step."""
    shutil.copytree(whole, folder)
    for path in folder.iterdir():
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    return folder


def agrees(tmp_path, at=(2, 5, 8), **how):
    data = how.pop("data", lambda: None)
    alone = bits(train(data=data(), **how))
    assert bits(train(folder=tmp_path / "whole", data=data(), **how)) == alone
    kept = sorted(int(path.stem.removeprefix("step-")) for path in (tmp_path / "whole").glob("*.json"))
    for step in at:
        folder = stopped_at(tmp_path / "whole", step, tmp_path / f"at-{step}")
        before = max(n for n in kept if n <= step)
        seen = []
        again = train(folder=folder, data=data(), progress=lambda done, total, seen=seen: seen.append(done), **how)
        assert seen[0] == before
        assert bits(again) == alone


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [of_batches, lambda: iter(of_batches() * 3), Loader, of_grain_loader, of_grain_dataset],
    ids=["list", "generator", "state_dict", "grain loader", "grain dataset"],
)
@pytest.mark.parametrize("schedule", [1, 3])
def test_of_an_iterable(tmp_path, data, schedule):
    agrees(tmp_path, data=data, schedule=schedule, at=(2, 6), drive="auto")


def test_a_generator_that_ends_too_soon_is_refused(tmp_path):
    train(folder=tmp_path, data=iter(of_batches() * 3))
    (tmp_path / "step-12.json").unlink()
    with pytest.raises(ValueError, match="ended after 4 batches, and the run was at step 10"):
        train(folder=tmp_path, data=iter(of_batches()))


def test_other_batches_from_python_are_refused(tmp_path):
    train(folder=tmp_path, data=of_batches())
    for path in tmp_path.glob("step-12.*"):
        path.unlink()
    with pytest.raises(ValueError, match="another batch for step 9 than it gave when the run was begun"):
        train(folder=tmp_path, data=[(x, 1 - y) for x, y in of_batches()])


@pytest.mark.parametrize("schedule", [1, 3])
@pytest.mark.parametrize("data", [of_batches, Loader])
def test_an_error_of_the_batches_keeps_every_step_before_it(tmp_path, schedule, data):
    def failing(seen=()):
        for n, batch in enumerate(of_batches() * 3):
            if n == 7:
                raise OSError("the disk is gone")
            yield batch

    class Failing(Loader):
        def __iter__(self):
            for batch in super().__iter__():
                if (self.epoch, self.place) == (1, 4):
                    raise OSError("the disk is gone")
                yield batch

    broken = Failing() if data is Loader else failing()
    with pytest.raises(OSError, match="gone") as caught:
        train(folder=tmp_path, data=broken, schedule=schedule, every=1000, record_every=None)
    assert "after 6 steps" in str(caught.value.__notes__) or "after 7 steps" in str(caught.value.__notes__)
    seen = []
    how = {"schedule": schedule, "every": 1000, "record_every": None}
    again = train(folder=tmp_path, data=data(), progress=lambda done, total: seen.append(done), **how)
    assert seen[0] >= (0 if data is Loader else 6)  # a loader's position is asked for where a piece ends
    assert bits(again) == bits(train(data=data(), schedule=schedule, record_every=None))


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


def test_what_ends_a_run_counts_for_the_records_it_has():
    alone = train(record_every=1, steps=8)
    level = alone.records["training_loss"][3]
    stop = lambda record: record["training_loss"] == level  # noqa: E731
    solution = train(record_every=1, resume=alone, stop=stop)
    assert (solution.result, solution.records["step"][-1]) == (il.Result.stopped, 8)


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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("solver", {"solver": il.WeightSpace(optax.adam(0.02))}),
        ("schedule", {"schedule": 4}),
        ("data", {"data": (X + 1e-9, Y)}),
        ("batches", {"batch_size": 6}),
        ("key", {"key": jax.random.key(4)}),
        ("problem", {"loss": il.SquaredError(), "data": (X, Y)}),
        ("problem", {"apply": lambda p, x: apply(p, x) + 0}),
        ("observers", {"observers": [il.Movement()]}),
        ("drive", {"drive": "host"}),
        ("record_every", {"record_every": 4}),
        ("safeguard", {"safeguard": il.LineSearch()}),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, name, change):
    train(folder=tmp_path, drive="compiled")
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds a run that differs in .*{name}.*; restore what it was trained with"):
        train(**({"folder": tmp_path, "drive": "compiled"} | change))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held


SCALE = 1.0


def scaled(params, x):
    return SCALE * apply(params, x)


def test_a_global_that_a_network_names_is_part_of_it(tmp_path, monkeypatch):
    train(folder=tmp_path, apply=scaled)
    train(folder=tmp_path, apply=scaled)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(ValueError, match="differs in problem"):
        train(folder=tmp_path, apply=scaled)


class Scaled(eqx.Module):
    def __call__(self, params, x):
        return SCALE * apply(params, x)


def test_so_is_one_that_a_method_of_its_class_names(tmp_path, monkeypatch):
    train(folder=tmp_path, apply=Scaled())
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(ValueError, match="differs in problem"):
        train(folder=tmp_path, apply=Scaled())


def test_another_version_or_device_is_told(tmp_path, monkeypatch):
    alone = bits(train(folder=tmp_path))
    monkeypatch.setattr("relin._loop.checkpoint.environment", lambda: "another machine")
    with pytest.warns(UserWarning, match="was written by relin .*, and the run goes on with another machine"):
        assert bits(train(folder=tmp_path)) == alone


def test_a_position_that_cannot_be_kept_is_refused_at_once(tmp_path):
    class Opaque(Loader):
        def state_dict(self):
            return {"lock": object()}

    with pytest.raises(TypeError, match="holds object, which a checkpoint cannot keep"):
        train(folder=tmp_path, data=Opaque())
    assert not list(tmp_path.iterdir())


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


def test_an_interrupted_run_goes_on_in_memory():
    def progress(done, total):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(progress=progress)
    assert bits(train(resume=caught.value.solution)) == bits(train())


def test_a_loaded_solution_cannot_go_on(tmp_path):
    train().save(tmp_path)
    with pytest.raises(ValueError, match="was read from a file"):
        train(resume=il.load(tmp_path, PARAMS))


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
