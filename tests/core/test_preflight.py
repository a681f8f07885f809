"""What is said of a network before it is trained."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import relin as il
from core import oracles
from core.quadratic import ENTROPY, Model

DATA = oracles.data(ENTROPY)


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, cotangent: (jnp.clip(cotangent, -1, 1),))


def checked(apply=oracles.mlp, params=None, data=DATA):
    return il.check(il.Problem(apply, ENTROPY), oracles.mlp_params() if params is None else params, data)


def test_a_network_that_can_be_trained():
    found = checked()
    assert found.ok
    assert (found.obstacle, found.deterministic, found.independent) == (None, True, True)
    x, y = DATA
    model = Model(ENTROPY, oracles.flat(oracles.mlp_params()), x, y)
    assert found.largest_rate == pytest.approx(2 / np.linalg.eigvalsh(model.gauss_newton)[-1], rel=1e-3)
    assert (found.num_examples, found.num_params, found.num_outputs) == (len(x), len(model.gradient), 3)
    assert found.kernel_memory == (len(x) * 3) ** 2 * 8
    assert found.step_memory > 3 * 8 * found.num_params  # the anchor, the displacement, the gradient
    assert 1 < found.relative_cost < 1.75
    text = str(found).splitlines()
    assert len(text) == len(found.rows()) == 9
    assert text[0].split() == ["can", "be", "linearised", "yes"]
    assert f"{found.largest_rate:.3g}" in text[7]


def test_the_network_is_traced_few_times():
    traced = []
    checked(lambda p, x: (traced.append(len(x)), oracles.mlp(p, x))[1])
    assert sorted(traced) == [1, 12, 12, 12]  # one example; the programs' trace, and two to compare


@pytest.mark.parametrize(
    ("apply", "params", "words"),
    [
        (lambda p, x: clipped(oracles.mlp(p, x)), None, r"got clipped at .*\.py:\d+, whose rule JAX cannot"),
        (
            lambda p, x: jax.lax.scan(lambda c, _: (clipped(c), None), oracles.mlp(p, x), None, 2)[0],
            None,
            "got clipped at .*whose rule JAX cannot.*replace that",
        ),
        (
            lambda p, x: jax.lax.while_loop(lambda c: jnp.sum(c) < 0, jnp.abs, oracles.mlp(p, x)),
            None,
            "Reverse-mode differentiation does not work for lax.while_loop",
        ),
        (
            lambda p, x: jax.pure_callback(lambda z: z, jax.ShapeDtypeStruct((12, 3), float), oracles.mlp(p, x)),
            None,
            "Pure callbacks do not support JVP",
        ),
        (oracles.mlp, {**oracles.mlp_params(), "n": jnp.ones((), int)}, r"got int64 at params\['n'\]; keep what"),
        (lambda p, x: x @ p["b"], None, "dot_general"),
        (lambda p, x: jnp.argmax(oracles.mlp(p, x), 1), None, "must return one floating-point array"),
    ],
)
def test_what_is_in_the_way_is_named(apply, params, words):
    found = checked(apply, params)
    assert not found.ok
    assert re.search(words, found.obstacle)
    assert "\n" not in found.obstacle
    assert found.largest_rate is None
    assert str(found).startswith("can be linearised  no")


def test_randomness_and_batch_statistics_are_told():
    random = np.random.default_rng(0)
    found = checked(lambda p, x: oracles.mlp(p, x) + random.normal())
    assert (found.ok, found.deterministic, found.independent) == (False, False, None)
    found = checked(lambda p, x: oracles.mlp(p, x) - oracles.mlp(p, x).mean(0, keepdims=True))
    assert (found.ok, found.deterministic, found.independent) == (True, True, False)
    assert "freeze statistics" in str(found)
    x, y = DATA
    assert checked(data=(x[:1], y[:1])).independent is None


def graph(p, x):
    """All nodes of one graph are the batch: a ring's normalised adjacency."""
    ring = jnp.eye(12) + jnp.roll(jnp.eye(12), 1, axis=0) + jnp.roll(jnp.eye(12), -1, axis=0)
    return oracles.mlp(p, ring @ x / 3)


@pytest.mark.parametrize(
    "apply",
    [
        graph,
        lambda p, x: jnp.cumsum(oracles.mlp(p, x), axis=0),
        lambda p, x: jnp.cumsum(oracles.mlp(p, x)[::-1], axis=0)[::-1],
        lambda p, x: oracles.mlp(p, x) + oracles.mlp(p, x).reshape(6, 2, 3)[:, ::-1].reshape(12, 3),
        lambda p, x: jnp.sort(oracles.mlp(p, x), axis=0),
        lambda p, x: (
            oracles.mlp(p, x) + (mean := oracles.mlp(p, x).mean(0, keepdims=True)) - jax.lax.stop_gradient(mean)
        ),
    ],
    ids=["graph", "sum so far", "sum from here", "pairs", "sorted", "derivative alone"],
)
def test_examples_that_depend_on_each_other(apply):
    found = checked(apply)
    assert (found.ok, found.independent) == (True, False)
    assert np.isfinite(found.largest_rate)


def rooted(p, x):
    return oracles.mlp(p, x) * jnp.sqrt(jnp.sum(jnp.square(x @ p["w"]), axis=1, keepdims=True))


def with_number(value, *place):
    x, y = DATA
    return x.at[place].set(value), y


@pytest.mark.parametrize(
    ("apply", "change", "data", "words"),
    [
        (oracles.mlp, {}, with_number(jnp.nan, 3, 2), r"the inputs of example 3 hold nan at \[2\]: leave"),
        (
            lambda p, x: oracles.mlp(p, x["a"]),
            {},
            ({"a": with_number(jnp.inf, 5, 1)[0]}, DATA[1]),
            r"inf in x\['a'\] at",
        ),
        (
            oracles.mlp,
            {"w": oracles.mlp_params()["w"].at[1, 2].set(jnp.nan)},
            DATA,
            r"params\['w'\] holds nan at \[1, 2",
        ),
        (
            lambda p, x: oracles.mlp(p, x / x[:, :1]),
            {},
            with_number(0.0, 4, 0),
            "the outputs for example 4 are not finite",
        ),
        (
            rooted,
            {},
            with_number(0.0, 7),
            r"derivative of the outputs for example 7 .* params\['w'\] is not finite, though",
        ),
    ],
    ids=["input", "inputs by name", "parameter", "outputs", "derivative"],
)
def test_what_is_not_finite_is_named(apply, change, data, words):
    found = checked(apply, oracles.mlp_params() | change, data)
    assert re.search(words, found.not_finite)
    assert not found.ok
    assert (found.independent, found.largest_rate, found.deterministic) == (None, None, True)
    text = str(found)
    assert found.not_finite in text
    assert "batch statistics" not in text
    assert "inf  2/λ_max" not in text


def test_targets_that_are_not_finite_are_named():
    x, _ = DATA
    y = jnp.zeros((12, 3)).at[2, 1].set(jnp.nan)
    found = il.check(il.Problem(oracles.mlp, il.SquaredError()), oracles.mlp_params(), (x, y))
    assert found.not_finite.startswith("the targets of example 2 hold nan at [1]")


def test_what_is_no_problem_and_no_batch():
    with pytest.raises(TypeError, match="`problem` must be a relin problem, got 3; pass"):
        il.check(3, oracles.mlp_params(), DATA)
    with pytest.raises(TypeError, match="`batch` must be a pair"):
        checked(data=list(DATA))
    with pytest.raises(ValueError, match="same number of examples"):
        checked(data=(DATA[0], DATA[1][:3]))
