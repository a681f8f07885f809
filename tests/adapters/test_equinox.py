"""Equinox modules as `(apply, params)`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from relin import models
from relin.adapters import from_equinox

KEY = jax.random.key(0)


class Counting(eqx.Module):
    """A module with an integer array, a boolean array and a plain number beside its weights."""

    weight: jax.Array
    permutation: jax.Array
    mask: jax.Array
    power: float

    def __init__(self, key, permutation=(2, 0, 1), power=2.0):
        self.weight = jax.random.normal(key, (3,))
        self.permutation = jnp.asarray(permutation)
        self.mask = jnp.asarray([True, False, True])
        self.power = power

    def __call__(self, x):
        return jnp.where(self.mask, self.weight * x[self.permutation] ** self.power, 0.0)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def build(key, **options):
    return models.build("cnn", (8, 1), 3, key=key, **({"width": 2} | options))


def test_round_trip_and_batch_axis():
    module = build(KEY)
    apply, params = from_equinox(module)
    x = normal(5, 8, 1)
    np.testing.assert_allclose(jax.jit(apply)(params, x), jnp.stack(list(map(jax.jit(module.__call__), x))), rtol=1e-12)
    assert bool(eqx.tree_equal(apply.combine(params), module))
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(params))
    doubled = apply.combine(jax.tree.map(lambda p: 2 * p, params))
    np.testing.assert_array_equal(doubled.readout.weight, 2 * module.readout.weight)


def test_foreign_module_with_functions_among_its_leaves():
    module = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=KEY)
    apply, params = from_equinox(module)
    x = normal(5, 3)
    np.testing.assert_allclose(jax.jit(apply)(params, x), jax.vmap(module)(x), rtol=1e-13)
    again, _ = from_equinox(eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(1)))
    other, _ = from_equinox(eqx.nn.MLP(3, 2, 4, 1, activation=jnp.sin, key=KEY))
    assert apply == again
    assert hash(apply) == hash(again)
    assert apply != other


def test_equality_is_that_of_the_architecture():
    apply, _ = from_equinox(build(KEY))
    same, _ = from_equinox(build(jax.random.key(1)))
    assert apply == same
    assert hash(apply) == hash(same)
    for options in ({"width": 3}, {"activation": "tanh"}, {"parametrisation": "ntk"}, {"convolution": "lax"}):
        other, params = from_equinox(build(KEY, **options))
        if "width" in options:  # sizes belong to the parameters: the same function serves every width
            assert apply == other
        else:
            assert apply != other
        assert apply != params
    assert apply != from_equinox(models.build("mlp", (8, 1), 3, key=KEY))[0]


def test_one_compilation_serves_all_builds():
    """As a static argument of jax.jit, as an argument of eqx.filter_jit and as a plain PyTree argument."""
    traces = []

    def run(apply, params, x):
        traces.append(None)
        return apply(params, x)

    x = jnp.ones((2, 8, 1))
    for jitted in (jax.jit(run, static_argnums=0), eqx.filter_jit(run), jax.jit(run)):
        before = len(traces)
        outputs = [jitted(*from_equinox(build(jax.random.key(seed))), x) for seed in range(3)]
        assert len(traces) == before + 1
        assert not np.array_equal(outputs[0], outputs[1])


def test_traced_initialisation_makes_one_network_for_each_seed():
    keys = jax.random.split(KEY, 3)
    x = normal(4, 8, 1)

    def outputs(key):
        apply, params = from_equinox(build(key))
        return apply(params, x), params

    serial = jax.jit(outputs)
    lanes, stacked = jax.jit(jax.vmap(outputs))(keys)
    apply, _ = eqx.filter_eval_shape(lambda key: from_equinox(build(key)), KEY)
    assert apply == from_equinox(build(KEY))[0]
    for i, key in enumerate(keys):
        single_outputs, _ = serial(key)
        _, params = from_equinox(build(key))
        np.testing.assert_allclose(lanes[i], single_outputs, rtol=1e-12)
        for lane, single in zip(jax.tree.leaves(stacked), jax.tree.leaves(params), strict=True):
            np.testing.assert_allclose(lane[i], single, rtol=1e-13)


def test_integer_and_boolean_arrays_are_closed_over():
    apply, params = from_equinox(Counting(KEY))
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(3,)]
    assert sorted(str(leaf.dtype) for leaf in jax.tree.leaves(apply)) == ["bool", "int64"]
    x = jnp.asarray([[2.0, 3.0, 5.0]])
    weight = params.weight
    np.testing.assert_allclose(apply(params, x)[0], weight * jnp.asarray([25.0, 0.0, 9.0]), rtol=1e-13)
    gradient = jax.grad(lambda p: apply(p, x).sum())(params)
    np.testing.assert_allclose(gradient.weight, [25.0, 0.0, 9.0], rtol=1e-13)
    same, _ = from_equinox(Counting(jax.random.key(1)))
    assert apply == same
    assert hash(apply) == hash(same)
    assert apply != from_equinox(Counting(KEY, permutation=(0, 1, 2)))[0]
    assert apply != from_equinox(Counting(KEY, permutation=(0, 1)))[0]
    assert apply != from_equinox(Counting(KEY, power=3.0))[0]
    jitted = jax.jit(lambda f, p, x: f(p, x), static_argnums=0)
    np.testing.assert_allclose(jitted(apply, params, x), apply(params, x), rtol=1e-13)


class Inner(eqx.Module):
    layers: list

    def __call__(self, x):
        return x


class WithKey(eqx.Module):
    weight: jax.Array

    def __call__(self, x, key, *, scale):
        return x * self.weight * scale


class WithoutInput(eqx.Module):
    weight: jax.Array

    def __call__(self):
        return self.weight


def batch_norm():
    return eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="batch")[0]


REFUSALS = [
    (lambda: jnp.tanh, TypeError, r"`module` must be a callable equinox\.Module, got .*; pass functions"),
    (lambda: eqx.nn.State(Inner([])), TypeError, r"`module` must be a callable equinox\.Module, got State"),
    (lambda: Inner([jnp.arange(3)]), ValueError, r"at least one floating-point array to train, got Inner with none"),
    (batch_norm, ValueError, r"without a state, got BatchNorm with BatchNorm, which has one; pass the `state`"),
    (lambda: Inner([batch_norm()]), ValueError, r"without a state, got Inner with BatchNorm, which has one"),
    (lambda: eqx.nn.Sequential([batch_norm()]), ValueError, r"without a state, got Sequential with BatchNorm"),
    (
        lambda: eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Dropout(0.5)]),
        ValueError,
        r"must be deterministic, got Sequential with Dropout in training mode.*pass equinox\.nn\.inference_mode",
    ),
    (
        lambda: WithKey(jnp.ones(3)),
        ValueError,
        r"called as module\(x\), got WithKey, which needs `key`, `scale` as well",
    ),
    (lambda: WithoutInput(jnp.ones(3)), ValueError, r"got WithoutInput, which takes no input; wrap it"),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSALS)
def test_refusals_say_what_to_do(make, kind, message):
    with pytest.raises(kind, match=message) as refusal:
        from_equinox(make())
    assert "\n" not in str(refusal.value)


def test_modules_in_inference_mode_and_stateless_sequences_are_taken():
    dropouts = [eqx.nn.Dropout(0.5, inference=True), eqx.nn.Dropout(0.0, inference=False)]
    module = eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=KEY), *dropouts])
    apply, params = from_equinox(module)
    x = normal(2, 3)
    np.testing.assert_allclose(apply(params, x), jax.vmap(module.layers[0])(x), rtol=1e-13)


class Several(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x, scale):
        return {"logits": self.linear(x) * scale, "hidden": x}


def test_several_inputs_and_a_chosen_output():
    module = Several(eqx.nn.Linear(3, 2, key=KEY))
    x, scale = normal(5, 3), normal(5, 1)
    expected = jax.vmap(module)(x, scale)["logits"]
    apply, params = from_equinox(module, output="logits")
    np.testing.assert_allclose(apply(params, (x, scale)), expected, rtol=1e-13)
    np.testing.assert_allclose(apply(params, {"scale": scale, "x": x}), expected, rtol=1e-13)
    problem = il.Problem(apply, il.CrossEntropy())
    data = ((x, scale), jnp.asarray([0, 1, 0, 1, 1]))
    options = {"num_steps": 4, "batch_size": 2, "key": KEY}
    solution = il.train(problem, il.WeightSpace(optax.sgd(0.1)), il.Every(2), params, data, **options)
    assert not np.allclose(apply(solution.params, (x, scale)), expected)
    with pytest.raises(ValueError, match=r"Several must take the inputs of an example as its arguments: missing a"):
        apply(params, x)
    with pytest.raises(ValueError, match=r"`output` must name one of the network's outputs, got 'scores'"):
        from_equinox(module, output="scores")[0](params, (x, scale))


class Lookup(eqx.Module):
    """Integer inputs, and a read-out that is the embedding."""

    embedding: jax.Array

    def __call__(self, tokens):
        return (jnp.tanh(self.embedding[tokens]) @ self.embedding.T).mean(0)


def test_integer_inputs_and_tied_weights():
    apply, params = from_equinox(Lookup(normal(7, 4)))
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (3, 5)))
    assert len(jax.tree.leaves(params)) == 1
    tangent = jax.jvp(lambda p: apply(p, tokens), (params,), (params,))[1]
    difference = (apply(jax.tree.map(lambda p: p * (1 + 1e-6), params), tokens) - apply(params, tokens)) / 1e-6
    np.testing.assert_allclose(tangent, difference, rtol=1e-4)


class Mixed(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return (x.astype(jnp.bfloat16) @ self.weight.astype(jnp.bfloat16)).astype(jnp.float32)


def test_bfloat16_inside_single_precision():
    apply, params = from_equinox(Mixed(normal(3, 2).astype(jnp.float32)))
    data = normal(6, 3).astype(jnp.float32), jnp.asarray([0, 1, 0, 1, 1, 0])
    problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.5))
    solution = il.train(problem, solver, il.Every(3), params, data, num_steps=10, key=KEY)
    assert solution.params.weight.dtype == jnp.float32
    assert solution.records["training_loss"][-1] < np.log(2)


class Decaying(eqx.Module):
    """Moves its state in every mode."""

    linear: eqx.nn.Linear
    scale: eqx.nn.StateIndex

    def __init__(self, key):
        self.linear, self.scale = eqx.nn.Linear(4, 3, key=key), eqx.nn.StateIndex(jnp.ones(()))

    def __call__(self, x, state):
        scale = state.get(self.scale)
        return scale * self.linear(x), state.set(self.scale, 0.5 * scale)


def test_a_state_that_moves_is_carried_or_refused():
    module, state = eqx.nn.make_with_state(Decaying)(jax.random.key(0))
    apply, params = il.from_equinox(module, state=state, statistics="frozen")
    with pytest.raises(ValueError, match="must stay as it is, got Decaying, whose forward pass moves its own"):
        jax.eval_shape(apply, params, jnp.ones((2, 4)))
    apply, params = il.from_equinox(module, state=state, statistics="batch")
    _, after = apply.forward(params, jnp.ones((2, 4)))
    assert apply.with_variables(after).state.get(module.scale) == 0.5
