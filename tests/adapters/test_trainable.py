"""A part of the parameters is trained, the rest closed over."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from relin import models

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)))
Y = jnp.asarray(RNG.normal(size=(6, 2)))
PARAMS = {
    "layers": [{"w": jnp.asarray(RNG.normal(size=(4, 5))), "b": jnp.zeros(5)}],
    "head": {"w": jnp.asarray(RNG.normal(size=(5, 2))), "b": jnp.zeros(2)},
}


def network(params, x):
    hidden = jnp.tanh(x @ params["layers"][0]["w"] + params["layers"][0]["b"][None])
    return hidden @ params["head"]["w"] + params["head"]["b"][None]


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("head.*", ["head.b", "head.w"]),
        (["layers.0.w", "head.b"], ["head.b", "layers.0.w"]),
        (lambda name, array: array.ndim > 1, ["head.w", "layers.0.w"]),
        ("*", ["head.b", "head.w", "layers.0.b", "layers.0.w"]),
    ],
)
def test_choosing(which, names):
    apply, params = il.trainable(network, PARAMS, which)
    assert sorted(params) == names
    np.testing.assert_array_equal(apply(params, X), network(PARAMS, X))
    full = apply.full(jax.tree.map(lambda p: p + 1, params))
    before = dict(jax.tree.leaves_with_path(PARAMS))
    for path, leaf in jax.tree.leaves_with_path(full):
        moved = jax.tree_util.keystr(path, simple=True, separator=".") in names
        np.testing.assert_array_equal(leaf, before[path] + moved)


def train(apply, params, optimiser):
    return il.train(
        il.Problem(apply, il.SquaredError()),
        il.WeightSpace(optimiser),
        il.Every(3),
        params,
        (X, Y),
        num_steps=7,
        key=jax.random.key(0),
    )


def test_it_is_training_with_the_other_updates_at_zero():
    """The oracle: the whole network, with Optax setting the other parameters' updates to zero."""
    apply, params = il.trainable(network, PARAMS, "head.*")
    part = train(apply, params, optax.adam(0.1))
    labels = {"layers": [{"w": "frozen", "b": "frozen"}], "head": {"w": "trained", "b": "trained"}}
    masked = optax.partition({"trained": optax.adam(0.1), "frozen": optax.set_to_zero()}, labels)
    whole = train(network, PARAMS, masked)
    for a, b in zip(jax.tree.leaves(apply.full(part.params)), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_equinox_module_comes_back():
    module = models.build("mlp", (4,), 2, key=jax.random.key(0))
    apply, params = il.from_equinox(module, trainable=lambda name, array: name.startswith("layers.2"))
    assert type(apply.combine(params)) is type(module)
    assert len(params) < len(jax.tree.leaves(module))
    again, _ = il.from_equinox(module, trainable=lambda name, array: name.startswith("layers.2"))
    assert apply == again
    assert hash(apply) == hash(again)
    assert apply != il.from_equinox(module, trainable="*")[0]


def test_names_that_are_not_one():
    with pytest.raises(ValueError, match=r"got two called 'a\.b'"):
        il.trainable(network, {"a": {"b": X}, "a.b": X}, "a.*")


REFUSALS = [
    ("tail.*", ValueError, r"got 'tail\.\*'; the names are head\.b, head\.w, layers\.0\.b"),
    (["head.*", "tail"], ValueError, "got 'tail'"),
    (lambda name, array: False, ValueError, "at least one parameter, got none of head.b"),
    ([], TypeError, "patterns of names or a predicate"),
    (3, TypeError, "patterns of names or a predicate, got 3"),
]


@pytest.mark.parametrize(("which", "error", "match"), REFUSALS)
def test_refusals(which, error, match):
    with pytest.raises(error, match=match):
        il.trainable(network, PARAMS, which)
