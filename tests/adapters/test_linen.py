"""Flax Linen modules as `(apply, params)`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import relin as il
from relin.adapters import from_linen

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 3, 6))
KEY = jax.random.key(0)


class Plain(nn.Module):
    width: int = 5
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        hidden = jnp.tanh(nn.Dense(self.width, dtype=self.dtype)(x))
        return nn.Dense(3, dtype=self.dtype)(hidden).astype(jnp.float32)

    def doubled(self, x):
        return 2 * self(x)


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train, noisy=None):
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(5)(x))
        hidden = nn.Dropout(0.5)(hidden, deterministic=not (train if noisy is None else noisy))
        return nn.Dense(3)(hidden), hidden


def variables(module, *inputs, **arguments):
    return module.init(KEY, *inputs, **arguments)


def train(apply, params, x=X, schedule=None, **options):
    return il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(0.1, momentum=0.9)),
        schedule or il.Every(2),
        params,
        (x, Y),
        **({"num_steps": 4} | options),
        key=KEY,
    )


def test_round_trip():
    module = Plain()
    made = variables(module, X)
    apply, params = from_linen(module, made)
    assert params is made["params"]
    np.testing.assert_allclose(apply(params, X), module.apply(made, X), rtol=1e-6)
    np.testing.assert_allclose(module.apply(apply.combine(params), X), module.apply(made, X), rtol=1e-6)
    doubled, _ = from_linen(module, made, method="doubled")
    np.testing.assert_allclose(doubled(params, X), 2 * module.apply(made, X), rtol=1e-6)


def test_equality_is_that_of_the_architecture():
    first, second = (from_linen(Plain(), Plain().init(jax.random.key(seed), X))[0] for seed in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != from_linen(Plain(6), variables(Plain(6), X))[0]
    module = Normalised()
    made = variables(module, X, train=False)
    frozen = from_linen(module, made, train=False, output=0)[0]
    assert frozen == from_linen(module, made, train=False, output=0)[0]
    assert frozen != from_linen(module, made, train=True, output=0)[0]
    moved = {**made, "batch_stats": jax.tree.map(lambda a: a + 1, made["batch_stats"])}
    assert frozen != from_linen(module, moved, train=False, output=0)[0]


def test_batch_norm_is_frozen():
    module = Normalised()
    made = variables(module, X, train=False)
    _, moved = module.apply(made, X, train=True, mutable=["batch_stats"], rngs={"dropout": KEY})
    made = {**made, **moved}
    apply, params = from_linen(module, made, train=False, output=0)
    np.testing.assert_allclose(apply(params, X), module.apply(made, X, train=False)[0], rtol=1e-5)
    np.testing.assert_allclose(apply(params, X[:2]), apply(params, X)[:2], rtol=1e-5)
    trained = apply.combine(train(apply, params).params)
    np.testing.assert_array_equal(
        trained["batch_stats"]["BatchNorm_0"]["mean"], made["batch_stats"]["BatchNorm_0"]["mean"]
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"train": True}, "leave its variables as they are, got Normalised.*use_running_average=True"),
        ({"train": False, "noisy": True}, "must be deterministic, got Normalised.*deterministic=True"),
    ],
)
def test_training_mode_is_refused(arguments, match):
    module = Normalised()
    apply, params = from_linen(module, variables(module, X, train=False), output=0, **arguments)
    with pytest.raises(ValueError, match=match):
        train(apply, params)


def test_bfloat16_inside_float32_parameters():
    """Mixed precision: K = 2 of a network that computes in bfloat16 stays near the one in float32."""
    made = variables(Plain(), X)
    solutions = [train(*from_linen(Plain(dtype=dtype), made), num_steps=8) for dtype in (jnp.bfloat16, jnp.float32)]
    low, full = (jnp.concatenate([p.ravel() for p in jax.tree.leaves(s.displacement)]) for s in solutions)
    assert low.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(low - full) < 0.02 * jnp.linalg.norm(full)


def test_trainable():
    made = variables(Plain(), X)
    apply, params = from_linen(Plain(), made, trainable="Dense_1.*")
    assert sorted(params) == ["Dense_1.bias", "Dense_1.kernel"]
    trained = apply.combine(train(apply, params).params)
    np.testing.assert_array_equal(trained["params"]["Dense_0"]["kernel"], made["params"]["Dense_0"]["kernel"])
    assert not np.array_equal(trained["params"]["Dense_1"]["kernel"], made["params"]["Dense_1"]["kernel"])


REFUSALS = [
    (lambda: from_linen(Plain, {}), TypeError, "must be a flax.linen.Module, got type"),
    (lambda: from_linen(Plain(), {"batch_stats": {}}), ValueError, 'collection "params", got batch_stats; pass'),
    (lambda: from_linen(Plain(), [1]), ValueError, 'collection "params", got list'),
    (lambda: from_linen(Plain(), {"params": {}}), ValueError, 'collection "params", got params'),
    (lambda: from_linen(Plain(), {"params": {"a": X}}, mask=X), TypeError, "must be hashable, got mask of type"),
    (lambda: from_linen(Plain(), {"params": {"a": X}}, mask=(X,)), TypeError, "must be hashable, got mask of type tup"),
    (lambda: from_linen(Plain(), {"params": {"a": Y}}), TypeError, r"got int\d+ at params\['a'\]"),
]


@pytest.mark.parametrize(("make", "error", "match"), REFUSALS)
def test_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()
