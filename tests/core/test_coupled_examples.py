"""Networks whose outputs for an example depend on the others of its batch: everything is right or refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

LOSS = il.SquaredError()
X, Y = oracles.data(LOSS)
X, Y = X[:6], Y[:6]
RATE = 0.05


def network(p, x):
    outputs = oracles.mlp(p, x)
    return outputs - outputs.mean(0, keepdims=True) + x[:, :1]


def another(p, x):
    """Coupled in a way that its program does not show for certain."""
    return oracles.mlp(p, x) / x.shape[0]


PROBLEM, PARAMS = il.Problem(network, LOSS), oracles.mlp_params()
MEETS = "depend on the others of the batch: reduce_sum"


def trained(solver, problem=PROBLEM, schedule=None, **options):
    options = {"num_steps": 4, "key": oracles.KEY} | options
    return il.train(problem, solver, schedule or il.Every(2), PARAMS, (X, Y), **options)


@pytest.mark.parametrize(
    "solver",
    [
        il.FunctionSpace(optax.sgd(RATE), kernel="dense"),
        il.FunctionSpace(optax.sgd(RATE), kernel="operator"),
        il.SpectralDescent(RATE, method="eigh"),
        il.SpectralDescent(RATE),
    ],
)
def test_the_full_batch_is_one(solver):
    stepwise, made = trained(il.WeightSpace(optax.sgd(RATE))).params, trained(solver).params
    np.testing.assert_allclose(oracles.flat(made), oracles.flat(stepwise), atol=1e-9)


@pytest.mark.parametrize("kernel", ["dense", "operator"])
def test_function_space_of_minibatches_refuses(kernel):
    with pytest.raises(
        ValueError, match=f"FunctionSpace with minibatches needs .*{MEETS}.*use WeightSpace, or the full"
    ):
        trained(il.FunctionSpace(optax.sgd(RATE), kernel=kernel), batch_size=3)


def test_predict_refuses():
    with pytest.raises(ValueError, match=rf"`predict` needs .*{MEETS}.*train with Never\(\)"):
        il.predict(PROBLEM, PARAMS, (X, Y), X[:2])


@pytest.mark.parametrize("drive", ["auto", "host"])
def test_the_kernels_drift(drive):
    drift = {"schedule": il.Every(1), "drive": drive, "record_every": 4}
    for problem, where in ((PROBLEM, "reduce_sum"), (il.Problem(another, LOSS), "div")):
        with pytest.raises(ValueError, match=f"depend on the others of the batch: {where}.*`coupled=True`"):
            trained(il.WeightSpace(optax.sgd(RATE)), problem, observers=[il.KernelDrift((X, Y))], **drift)
    solution = trained(il.WeightSpace(optax.sgd(RATE)), observers=[il.KernelDrift((X, Y), coupled=True)], **drift)
    dense = oracles.Dense(network, PARAMS)
    anchor = trained(il.WeightSpace(optax.sgd(RATE)), schedule=il.Every(1), num_steps=3).params
    first, last = (
        np.einsum("icp,jcp->ij", J, J)
        for J in (np.asarray(dense.jacobian(oracles.flat(params), X)) for params in (PARAMS, anchor))
    )
    change = np.linalg.norm(last - first) / np.linalg.norm(first)
    np.testing.assert_allclose(solution.records["kernel_change"][-1], change, rtol=1e-8)


def test_lanes_refuse():
    def lane(rate):
        return il.Run(PROBLEM, il.WeightSpace(optax.sgd(rate)), il.Every(2), PARAMS, oracles.KEY)

    with pytest.raises(ValueError, match=MEETS):
        il.train_lanes(lane, jnp.array([0.1, 0.2]), (X, Y), num_steps=2, observers=[il.KernelDrift((X, Y))])


def test_a_frozen_kernel_is_trained_as_never_trains():
    observer = il.FrozenKernelAccuracy((X, Y), (X, Y), optax.sgd(RATE), 3)
    found = trained(il.WeightSpace(optax.sgd(RATE)), observers=[observer], record_every=4)
    lazy = trained(il.WeightSpace(optax.sgd(RATE)), schedule=il.Never(), num_steps=3)
    moved = jax.tree.map(jnp.subtract, lazy.params, PARAMS)
    value, slope = jax.jvp(lambda p: network(p, X), (PARAMS,), (moved,))
    outputs = value + slope
    np.testing.assert_allclose(found.records["frozen_kernel_loss"][0], LOSS.mean(outputs, Y), rtol=1e-10)
