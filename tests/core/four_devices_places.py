"""Where arrays may come from: other meshes and orders of devices, one device of several, frameworks, other runs.
`test_four_devices.py` runs this file in a process of its own, which has four virtual devices."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import relin as il
from core.four_devices import (
    ADAM,
    DATA,
    DATA_ONLY,
    FSDP,
    KEY,
    PARAMS,
    PROBLEM,
    RANDOM,
    SPLIT,
    assert_same,
    mesh_of,
    network,
    trained,
)

DEVICES = jax.devices()
SQUARED = il.Problem(network, il.SquaredError())
TARGETS = RANDOM.normal(size=(16, 3))
EXPLICIT = mesh_of(True, fsdp=4)
OPTIONS = {"batch_size": 8, "record_every": 4}


def split(mesh):
    return {name: jax.device_put(leaf, NamedSharding(mesh, SPLIT[name])) for name, leaf in PARAMS.items()}


def by_examples(mesh, tree):
    return jax.device_put(tree, NamedSharding(mesh, P("fsdp")))


def assert_on(devices, solution):
    for leaf in jax.tree.leaves((solution.params, solution.displacement, solution.optimiser_state)):
        assert leaf.devices() <= devices


def test_devices_in_another_order():
    """What each device holds whole can be anywhere; what is split is not moved."""
    turned = Mesh(np.asarray([DEVICES[place] for place in (2, 0, 3, 1)]), ("fsdp",))
    params = jax.device_put(PARAMS, NamedSharding(FSDP, P()))
    assert_same(trained(ADAM, 4, turned, params, batch_size=8), trained(ADAM, 4, batch_size=8))
    with pytest.raises(ValueError, match=r"split over devices in one order, got one .*; pass a mesh"):
        trained(ADAM, 4, turned, split(FSDP), batch_size=8)


def test_a_mesh_of_one_device_is_that_device():
    last = Mesh(np.asarray(DEVICES[3:]), ("data",))
    found = trained(ADAM, 4, last, batch_size=8)
    assert_on({DEVICES[3]}, found)
    assert_same(found, trained(ADAM, 4, batch_size=8))
    kernel = il.kernel.ntk(network, PARAMS, DATA[0], outputs="mean", mesh=last)
    assert kernel.devices() == {DEVICES[3]}
    np.testing.assert_allclose(kernel, il.kernel.ntk(network, PARAMS, DATA[0], outputs="mean"), rtol=1e-12)


def test_a_run_goes_on_on_other_devices(tmp_path):
    whole = trained(ADAM, 4, **OPTIONS)
    some = Mesh(np.asarray(DEVICES[1:3]), ("fsdp",))
    here = jax.device_put((PARAMS, DATA), DEVICES[0])
    for number, (before, after, given) in enumerate([(FSDP, None, here), (FSDP, some, (PARAMS, DATA))]):
        half = trained(ADAM, 4, before, num_steps=4, **OPTIONS)
        devices = {DEVICES[0]} if after is None else set(after.devices.flat)
        folder = il.Checkpoint(tmp_path / str(number))
        trained(ADAM, 4, before, num_steps=4, checkpoint=folder, **OPTIONS)
        for options in ({"resume": half}, {"checkpoint": folder}):
            told = pytest.warns(UserWarning, match="last digits") if "checkpoint" in options else nullcontext()
            with told:
                found = trained(ADAM, 4, after, *given, **OPTIONS, **options)
            assert_on(devices, found)
            assert_same(found, whole)


def test_tensors_of_another_framework():
    torch = pytest.importorskip("torch")
    data = tuple(torch.tensor(part) for part in DATA)
    assert_same(trained(ADAM, 4, FSDP, data=data, batch_size=8), trained(ADAM, 4, batch_size=8))


def test_check():
    one, found = (il.check(PROBLEM, PARAMS, DATA, mesh=mesh) for mesh in (None, FSDP))
    assert found.step_memory < one.step_memory
    others = [
        il.check(PROBLEM, split(EXPLICIT), by_examples(EXPLICIT, DATA)),
        il.check(PROBLEM, jax.device_put(PARAMS, NamedSharding(EXPLICIT, P())), DATA),
    ]
    for each in (found, *others):
        assert each.ok
        assert each.independent
        assert each.largest_rate == pytest.approx(one.largest_rate, rel=1e-3)
    with pytest.raises(ValueError, match="got the axis 'model', which splits nothing"):
        il.check(PROBLEM, PARAMS, DATA, mesh=mesh_of(data=2, model=2))
    assert "Every leaf of `params` must be" in il.check(PROBLEM, {"w": 1.0}, DATA, mesh=FSDP).obstacle


def test_check_of_coupled_examples():
    def coupled(params, x):
        return network(params, x - x.mean(axis=0, keepdims=True))

    assert il.check(il.Problem(coupled, il.CrossEntropy()), PARAMS, DATA, mesh=DATA_ONLY).independent is False


def test_predict():
    def predicted(params=PARAMS, data=(DATA[0], TARGETS)):
        return il.predict(SQUARED, params, data, DATA[0][:5], time=2.0)

    one = predicted()
    np.testing.assert_allclose(predicted(split(EXPLICIT)), one, rtol=1e-9)
    np.testing.assert_allclose(predicted(data=by_examples(EXPLICIT, (DATA[0], TARGETS))), one, rtol=1e-9)
    with jax.set_mesh(EXPLICIT):
        np.testing.assert_allclose(predicted(), one, rtol=1e-9)


def test_operators():
    vector = jnp.asarray(TARGETS)
    one = il.kernel.NTKOperator(network, PARAMS, DATA[0]).mv(vector)
    for params, x in ((split(EXPLICIT), DATA[0]), (PARAMS, by_examples(EXPLICIT, DATA[0]))):
        np.testing.assert_allclose(il.kernel.NTKOperator(network, params, x).mv(vector), one, rtol=1e-9)
    largest = il.kernel.spectrum((network, split(EXPLICIT), DATA[0]), 2, key=KEY).eigenvalues
    np.testing.assert_allclose(
        largest, il.kernel.spectrum((network, PARAMS, DATA[0]), 2, key=KEY).eigenvalues, rtol=1e-9
    )


def test_a_kernel_in_a_file_where_a_mesh_is_set(tmp_path):
    with jax.set_mesh(EXPLICIT), pytest.raises(ValueError, match=r"no `mesh`, outside jax.set_mesh"):
        il.kernel.ntk(network, PARAMS, DATA[0], out=tmp_path / "kernel.npy")
