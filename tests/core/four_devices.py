"""One run on four devices gives what it gives on one. `test_four_devices.py` runs this file in a process of its own,
which has four virtual devices."""

import contextlib
import functools
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import relin as il
from relin._loop import program, recorded
from relin._loop.compiled import _call
from relin._loop.placement import placement_of
from relin._loop.preparation import prepared

RANDOM = np.random.default_rng(0)
PARAMS = {
    "w": RANDOM.normal(0, 0.5, (6, 16)),
    "b": RANDOM.normal(0, 0.1, 16),
    "v": RANDOM.normal(0, 0.5, (16, 3)),
    "c": RANDOM.normal(0, 0.1, 3),
}
"""Four devices share all of them but `c`, whose length they do not divide."""
DATA = RANDOM.normal(size=(16, 6)), RANDOM.integers(0, 3, 16)
KEY = jax.random.key(3)
SPLIT = {"w": P(None, "fsdp"), "b": P("fsdp"), "v": P("fsdp"), "c": P()}
TESTS = Path(__file__).parents[1]
CACHE = "JAX_COMPILATION_CACHE_DIR"
MOMENTUM, ADAM = optax.sgd(0.2, momentum=0.9), optax.adam(0.05)


def network(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"] + params["c"][None]


PROBLEM = il.Problem(network, il.CrossEntropy())


def mesh_of(explicit=False, **sizes):
    kind = jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(kind,) * len(sizes))


FSDP, DATA_ONLY, BOTH = mesh_of(fsdp=4), mesh_of(data=4), mesh_of(data=2, fsdp=2)


def trained(solver, schedule, mesh=None, params=PARAMS, data=DATA, **options):
    solver = il.WeightSpace(solver) if isinstance(solver, optax.GradientTransformation) else solver
    options = {"num_steps": 9, "key": KEY, **options}
    return il.train(PROBLEM, solver, schedule, params, data, mesh=mesh, **options)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))])


def assert_same(one, other):
    for name in ("params", "displacement", "optimiser_state", "variables"):
        if getattr(one, name) is not None:
            a, b = (flat(getattr(s, name)) for s in (one, other))
            np.testing.assert_allclose(a, b, atol=1e-11, rtol=1e-11, err_msg=name)
    assert one.feature_updates == other.feature_updates
    assert one.result is other.result
    for name, column in one.records.items():
        np.testing.assert_allclose(column, other.records[name], atol=1e-11, err_msg=name)


def specs(tree):
    """How each array is split, without the axes at the end that are not."""
    return jax.tree.map(lambda leaf: P(*_without_last(tuple(leaf.sharding.spec))), tree)


def _without_last(parts):
    return _without_last(parts[:-1]) if parts and parts[-1] is None else parts


def assert_split(solution, expected=SPLIT):
    for name in ("params", "anchor", "displacement"):
        assert specs(getattr(solution, name)) == expected, name
    for moment in jax.tree.leaves(solution.optimiser_state, is_leaf=lambda part: isinstance(part, dict)):
        if isinstance(moment, dict):
            assert specs(moment) == expected


def probe():
    return [il.LinearisationError(DATA[0]), il.Movement()]


@pytest.mark.parametrize(
    ("schedule", "optimiser", "mesh", "options"),
    [
        (1, ADAM, FSDP, {"batch_size": 8}),
        (4, MOMENTUM, FSDP, {"batch_size": 8, "observers": probe(), "record_every": 5}),
        (4, ADAM, FSDP, {}),
        (il.Never(), MOMENTUM, DATA_ONLY, {"batch_size": 8}),
        (1, MOMENTUM, BOTH, {"batch_size": 6, "drive": "host", "observers": probe(), "record_every": 5}),
        (4, ADAM, BOTH, {"batch_size": 8, "drive": "host"}),
        (il.WhenError(0.05), MOMENTUM, BOTH, {"batch_size": 8, "safeguard": il.LineSearch()}),
    ],
    ids=["every step", "every 4", "full batch", "never", "every step, host", "every 4, host", "adaptive"],
)
def test_equals_one_device(schedule, optimiser, mesh, options):
    """Shuffled by the same key the batches are the same; six examples are not shared evenly by four devices."""
    found = trained(optimiser, schedule, mesh, **options)
    assert_same(found, trained(optimiser, schedule, **options))
    assert_split(found, dict.fromkeys(PARAMS, P()) if mesh is DATA_ONLY else SPLIT)


@pytest.mark.parametrize("explicit", [False, True], ids=["automatic axes", "explicit axes"])
def test_arrays_that_come_split_stay_as_they_are(explicit):
    mesh = mesh_of(explicit, rows=2, model=2)
    split = {"w": P("rows", "model"), "b": P("model"), "v": P("model"), "c": P()}
    params = {name: jax.device_put(leaf, NamedSharding(mesh, split[name])) for name, leaf in PARAMS.items()}
    data = jax.device_put(DATA, NamedSharding(mesh, P("rows")))
    one = trained(ADAM, 4, batch_size=8)
    for given in (None, mesh):
        found = trained(ADAM, 4, given, params, data, batch_size=8)
        assert_same(found, one)
        assert_split(found, split)


def test_the_mesh_that_was_set_is_taken():
    one = trained(ADAM, 4, batch_size=8)
    with jax.set_mesh(mesh_of(True, fsdp=4)):
        found = trained(ADAM, 4, None, jax.tree.map(jnp.asarray, PARAMS), DATA, batch_size=8)
        assert jax.sharding.get_mesh().axis_types == (jax.sharding.AxisType.Explicit,)
    assert_same(found, one)
    assert_split(found)


@pytest.mark.parametrize("schedule", [1, 4])
def test_batches_from_python(schedule):
    """Numbers on the host, then ones on the mesh; the last of each epoch is too small to be shared evenly."""
    batches = [(DATA[0][:8], DATA[1][:8]), (DATA[0][8:14], DATA[1][8:14].tolist())]
    one = trained(MOMENTUM, schedule, data=batches)
    found = trained(MOMENTUM, schedule, FSDP, data=batches)
    assert_same(found, one)
    assert_split(found)
    placed = [tuple(jax.device_put(np.asarray(a)[:4], NamedSharding(FSDP, P("fsdp"))) for a in b) for b in batches]
    host = [tuple(np.asarray(a) for a in b) for b in placed]
    assert_same(trained(MOMENTUM, schedule, FSDP, data=placed), trained(MOMENTUM, schedule, data=host))


@pytest.mark.parametrize(
    ("solver", "schedule"), [(il.GaussNewton(0.1), 1), (il.FunctionSpace(MOMENTUM), 3), (il.SpectralDescent(0.2), 3)]
)
def test_other_solvers(solver, schedule):
    data = DATA[0], RANDOM.normal(size=(16, 3))
    problem = il.Problem(network, il.SquaredError())
    options = {"num_steps": 6, "key": KEY}
    one, found = (il.train(problem, solver, schedule, PARAMS, data, mesh=mesh, **options) for mesh in (None, FSDP))
    np.testing.assert_allclose(flat(found.params), flat(one.params), atol=1e-7)


def test_window_rates():
    """λ_max and its vector, at each anchor."""
    solver = il.WeightSpace(MOMENTUM, rate_cap=il.RateCap(0.5, 0.2, momentum=0.9), averaging=il.UniformAverage())
    assert_same(trained(solver, 4, FSDP, batch_size=8), trained(solver, 4, batch_size=8))


def test_resumed_equals_uninterrupted_to_the_last_bit(tmp_path):
    whole = trained(ADAM, 4, FSDP, batch_size=8, record_every=5)
    for number, found in enumerate([None, trained(ADAM, 4, FSDP, batch_size=8, record_every=5, num_steps=5)]):
        folder = il.Checkpoint(tmp_path / str(number), every=3)
        if found is None:
            trained(ADAM, 4, FSDP, batch_size=8, record_every=5, num_steps=5, checkpoint=folder)
            found = trained(ADAM, 4, FSDP, batch_size=8, record_every=5, checkpoint=folder)
        else:
            found = trained(ADAM, 4, FSDP, batch_size=8, record_every=5, resume=found)
        for name in ("params", "anchor", "displacement", "optimiser_state"):
            assert (flat(getattr(found, name)) == flat(getattr(whole, name))).all(), name
        assert_split(found)


def test_a_split_solution_is_saved_whole(tmp_path):
    found = trained(ADAM, 4, FSDP, batch_size=8)
    found.save(tmp_path)
    assert (flat(il.load(tmp_path, PARAMS, found.optimiser_state).params) == flat(found.params)).all()


def test_why_a_run_diverged_is_found():
    x = DATA[0].copy()
    x[9, 2] = np.nan
    with pytest.raises(il.TrainingError, match="example 9"):
        trained(ADAM, 4, FSDP, data=(x, DATA[1]))


def test_refusals():
    with pytest.raises(TypeError, match=r"`mesh` must be a jax.sharding.Mesh, got str; pass"):
        trained(ADAM, 4, "data")
    with pytest.raises(ValueError, match="got the axis 'model', which splits nothing"):
        trained(ADAM, 4, mesh_of(data=2, model=2))
    half = Mesh(jax.devices()[:2], ("fsdp",))
    params = jax.device_put(PARAMS, NamedSharding(half, P()))
    with pytest.raises(ValueError, match="one on 2 devices and a mesh of 4"):
        trained(ADAM, 4, FSDP, params)


def test_gpt():
    module = il.models.build("gpt", (6,), 12, key=KEY, width=8, depth=1, num_heads=2)
    apply, params = il.from_equinox(module)
    problem = il.Problem(apply, il.CrossEntropy())
    tokens = RANDOM.integers(0, 12, (8, 7))
    options = {"num_steps": 4, "key": KEY, "batch_size": 4}
    solver, data = il.WeightSpace(MOMENTUM), (tokens[:, :-1], tokens[:, 1:])
    one, found = (il.train(problem, solver, 2, params, data, mesh=mesh, **options) for mesh in (None, FSDP))
    np.testing.assert_allclose(flat(found.params), flat(one.params), atol=1e-5)
    for name in ("params", "anchor", "displacement"):
        leaves = jax.tree.leaves(getattr(found, name))
        assert all(leaf.addressable_shards[0].data.size * 4 == leaf.size for leaf in leaves), (
            "each has a divisible axis"
        )


def test_batch_statistics_are_of_the_whole_batch():
    module, state = eqx.nn.make_with_state(Normalised)(KEY)
    apply, params = il.from_equinox(module, state=state, statistics="batch")
    problem = il.Problem(apply, il.CrossEntropy())
    options = {"num_steps": 5, "key": KEY, "batch_size": 8}
    one, found = (
        il.train(problem, il.WeightSpace(MOMENTUM), 2, params, DATA, mesh=mesh, **options) for mesh in (None, BOTH)
    )
    assert one.mode == "batch statistics"
    assert_same(found, one)


class Normalised(eqx.Module):
    """A network with running statistics."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    last: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(6, 8, key=one), eqx.nn.Linear(8, 3, key=two)
        self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")

    def __call__(self, x, state):
        x, state = self.norm(self.first(x), state)
        return self.last(jnp.tanh(x)), state


@pytest.mark.parametrize("drive", ["map", "vmap"])
def test_three_lanes_are_spread_over_four_devices(drive):
    def make(k):
        params = jax.tree.map(jnp.asarray, PARAMS)
        return il.Run(PROBLEM, il.WeightSpace(MOMENTUM), il.Every(k), params, KEY)

    options = {"num_steps": 6, "batch_size": 8, "record_every": 4}
    alone = [trained(MOMENTUM, k, **options) for k in (1, 2, 5)]
    mesh = mesh_of(True, rows=4)
    for data in (DATA, jax.device_put(DATA, NamedSharding(mesh, P("rows")))):
        with jax.set_mesh(mesh):
            found = il.train_lanes(make, np.asarray([1, 2, 5]), data, drive=drive, **options)
        for lane, one in zip(found, alone, strict=True):
            assert_same(lane, one)
    some = jax.device_put(DATA, NamedSharding(Mesh(jax.devices()[:2], ("rows",)), P()))
    with pytest.raises(ValueError, match="one on 2 devices and a mesh of 4"):
        il.train_lanes(make, np.asarray([1, 2, 5]), some, drive=drive, **options)


@functools.cache
def compiled_steps(schedule, mesh, size=64, count=6):
    """The program of six steps on a network of two square matrices, as users' programs are compiled."""
    params = [RANDOM.normal(0, 0.1, (size, size)).astype(np.float32) for _ in range(2)]
    data = RANDOM.normal(size=(16, size)).astype(np.float32), RANDOM.normal(size=(16, size)).astype(np.float32)
    problem = il.Problem(lambda p, x: jnp.tanh(x @ p[0]) @ p[1], il.SquaredError())
    placement = placement_of(mesh, params, data)
    with placement.entered() if placement else contextlib.nullcontext():
        run = il.Run(problem, il.WeightSpace(optax.adam(0.01)), il.Every(schedule), params, KEY)
        given = run, data, count, None, 8, None, None, (), ()
        plan = prepared(*given, "compiled", ("compiled",), placement)
        programs = plan.programs(lambda run: run, plan.run)
        state, _ = programs.call(recorded.start_on, (), plan.data)
        lowered = _call.lower(*programs.call.args, program.steps, (state,), plan.data, count, count=count)
        quickly = jax.config.read("jax_disable_most_optimizations")
        jax.config.update("jax_disable_most_optimizations", False)
        try:
            return lowered.compile()
        finally:
            jax.config.update("jax_disable_most_optimizations", quickly)


def collectives(compiled):
    """Of each loop, and of what is outside: kind and shapes of single-precision arrays that devices exchange."""
    found, place = {}, None
    for line in compiled.as_text().splitlines():
        if line and not line.startswith((" ", "}")):
            place = line.split(" (")[0]
        if match := re.search(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\(", line):
            found.setdefault(place, []).extend((match[2], shape) for shape in re.findall(r"f32\[([\d,]*)\]", match[1]))
    return {place: sorted(each) for place, each in found.items() if not place.startswith("ENTRY")}


def test_what_each_device_holds_is_a_quarter():
    """Anchor, displacement, moments and data, by the compiler's count; all but a few numbers."""
    for schedule in (1, 4):
        one, four = (compiled_steps(schedule, mesh).memory_analysis() for mesh in (None, FSDP))
        for name in ("argument_size_in_bytes", "output_size_in_bytes"):
            assert getattr(four, name) == pytest.approx(getattr(one, name) / 4, rel=0.02), (schedule, name)


def test_what_devices_exchange_at_a_step():
    weights, batch = "64,64", "8,64"
    ordinary, linearised = (list(collectives(compiled_steps(k, DATA_ONLY)).values()) for k in (1, 4))
    expected = sorted([("all-reduce", shape) for shape in ("", batch, batch, weights, weights)])
    assert expected in ordinary, "the loss, inputs and targets of the batch, both gradients"
    assert expected in linearised
    gathered = [
        sorted(each.count(("all-gather", weights)) for each in collectives(compiled_steps(k, FSDP)).values())
        for k in (1, 4)
    ]
    assert gathered == [[2], [2, 2]], "θ_t at each step; δ_t at each step and θ_s once in each window"


def test_two_processes_of_two_devices():
    batches = [(DATA[0][:8], DATA[1][:8]), (DATA[0][8:], DATA[1][8:])]
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", CACHE)}
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(TESTS)])
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    script = str(TESTS / "core" / "two_processes.py")
    texts = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen([sys.executable, script, port, rank], **texts) for rank in ("0", "1")]
    ends = [
        trained(ADAM, 1, batch_size=8, num_steps=6),
        trained(ADAM, 4, batch_size=8, num_steps=6, record_every=3),
        trained(ADAM, 4, num_steps=6),
        trained(ADAM, 4, data=batches, num_steps=6),
    ]
    for process in started:
        printed, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:]
        lines = [line.split() for line in printed.splitlines() if line.startswith(("end", "diverged"))]
        assert lines.pop() == ["diverged", "1"]
        for line, one in zip(lines, ends, strict=True):
            expected = [*flat((one.params, one.displacement)), *one.records["training_loss"][1:], one.feature_updates]
            np.testing.assert_allclose(np.asarray(line[1:], float), expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("outputs", "rows"), [("full", 8), ("mean", 7), ("diagonal", 7)])
def test_kernel_over_devices(outputs, rows):
    x, other = DATA[0][:rows], DATA[0][8:13]
    mesh = mesh_of(True, rows=2, columns=2)
    for second in (None, other):
        one = il.kernel.ntk(network, PARAMS, x, second, outputs=outputs)
        found = il.kernel.ntk(network, PARAMS, x, second, outputs=outputs, mesh=mesh)
        np.testing.assert_allclose(found, one, atol=1e-12, rtol=1e-12)
        with jax.set_mesh(mesh):
            np.testing.assert_allclose(
                il.kernel.ntk(network, PARAMS, x, second, outputs=outputs), one, atol=1e-12, rtol=1e-12
            )
    if rows == 8:
        assert found.addressable_shards[0].data.shape[0] == 2


def test_refusals_of_kernels(tmp_path):
    with pytest.raises(TypeError, match=r"`mesh` must be a jax.sharding.Mesh, got int; pass"):
        il.kernel.ntk(network, PARAMS, DATA[0], mesh=4)
    with pytest.raises(ValueError, match="Over several devices a kernel is made in memory"):
        il.kernel.ntk(network, PARAMS, DATA[0], outputs="mean", mesh=FSDP, out=tmp_path / "kernel.npy")
    with pytest.raises(ValueError, match="got tracers; call ntk with it outside"):
        jax.jit(lambda x: il.kernel.ntk(network, PARAMS, x, mesh=FSDP))(DATA[0])
    x = DATA[0].copy()
    x[5, 1] = np.nan
    with pytest.raises(ValueError, match="example 5"):
        il.kernel.ntk(network, PARAMS, x, mesh=FSDP)
