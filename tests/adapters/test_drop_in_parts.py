"""What a linearised model of each framework is made of, and what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, serialization
from flax.training.train_state import TrainState

import relin as il
import relin.equinox
import relin.linen
import relin.nnx

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)))


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def equinox_module():
    return eqx.nn.MLP(4, 3, 8, 1, activation=jnp.tanh, key=jax.random.key(0))


def moved(tree):
    return jax.tree.map(lambda leaf: leaf + 0.1 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), tree)


def test_equinox_calls_relinearises_and_merges():
    module = equinox_module()
    apply, anchor = il.from_equinox(module)
    model = relin.equinox.Linearised(module)
    params = eqx.filter(model, eqx.is_inexact_array)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [leaf.shape for leaf in jax.tree.leaves(anchor)]
    model = eqx.apply_updates(model, jax.tree.map(jnp.subtract, moved(params), params))
    delta = jax.tree.map(jnp.subtract, moved(anchor), anchor)
    close(jax.vmap(model)(X), il.Linearisation(apply, anchor).value(delta, X))
    close(jax.vmap(model.merged())(X), apply(moved(anchor), X))
    close(jax.vmap(model.relinearise())(X), apply(moved(anchor), X))


class Scaled(eqx.Module):
    linear: eqx.nn.Linear
    scale: jax.Array

    def __call__(self, x):
        return self.scale * jnp.tanh(self.linear(x))


def test_equinox_anchors_are_cast_with_the_parameters():
    """A scalar too, whose bits of another size would be broadcast."""
    module = Scaled(eqx.nn.Linear(4, 3, key=jax.random.key(0)), jnp.asarray(0.5))

    def cast(model):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, model)

    model = relin.equinox.Linearised(module, il.Every(2))
    model = eqx.apply_updates(model, jax.tree.map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array)))
    exact, found = (jax.vmap(m)(X.astype(m.network.scale.dtype)) for m in (model, cast(model)))
    assert (found.dtype, found.shape) == (jnp.bfloat16, exact.shape)
    np.testing.assert_allclose(found.astype(float), exact, atol=0.05)
    (kept, at), (moved_, now) = ((m, m._anchor_of([m.network.scale] * 3)[-1]) for m in _steps(cast(model)))
    assert (at, now) == (0.5, 1.5)
    close(jax.vmap(moved_)(X.astype(now.dtype)), jax.vmap(moved_.network)(X.astype(now.dtype)))
    assert [bits.dtype for bits in kept._anchor] == [jnp.bfloat16] * 3


def _steps(model):
    return model.step(), model.step().step()


def test_equinox_models_are_stored_and_compile_once(tmp_path):
    model = relin.equinox.Linearised(equinox_module(), il.Every(3)).step()
    model = eqx.apply_updates(model, jax.tree.map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array)))
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", model)
    again = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", relin.equinox.Linearised(equinox_module(), il.Every(3)))
    close(jax.vmap(again)(X), jax.vmap(model)(X))
    traced = []

    @eqx.filter_jit
    def run(model):
        traced.append(1)
        return jax.vmap(model)(X)

    run(model), run(again), run(again.step())
    assert len(traced) == 1


class Half(nnx.Module):
    def __init__(self):
        self.linear, self.steps = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64), 3

    def __call__(self, x, scale=1.0):
        return {"logits": jnp.square(self.linear(x)) * scale, "index": jnp.arange(3)}


def test_nnx_shares_the_module_and_keeps_outputs_form():
    module = Half()
    model = relin.nnx.Linearised(module)
    start = jax.tree.leaves(nnx.state(module, nnx.Param))
    state = nnx.state(model, nnx.Param)
    assert len(jax.tree.leaves(state)) == 2  # θ alone
    nnx.update(model, moved(state))
    assert model.merged() is module
    delta = [new - old for new, old in zip(jax.tree.leaves(nnx.state(module, nnx.Param)), start, strict=True)]
    bias, kernel = start
    before = X @ kernel + bias[None]
    found = model(X, scale=2.0)
    close(found["logits"], 2 * (before**2 + 2 * before * (X @ delta[1] + delta[0][None])))
    np.testing.assert_array_equal(found["index"], np.arange(3))
    model.relinearise()
    close(model(X)["logits"], module(X)["logits"])


def linen_state(**options):
    module = linen.Dense(3, param_dtype=jnp.float64)
    params = module.init(jax.random.key(0), X)["params"]
    return TrainState.create(apply_fn=module.apply, params=params, tx=optax.sgd(0.1), **options)


def test_linen_states_are_stored_merged_and_compile_once():
    state = relin.linen.linearised(linen_state(), il.Every(4))
    traced = []

    @jax.jit
    def step(state):
        traced.append(1)
        return state.apply_gradients(
            grads=jax.grad(lambda p: jnp.sum(jnp.square(state.apply_fn({"params": p}, X))))(state.params)
        )

    after = step(step(state))
    assert len(traced) == 1
    assert isinstance(after, TrainState)
    assert int(after.step) == 2
    again = serialization.from_bytes(state, serialization.to_bytes(after))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    ordinary = after.merged()
    assert type(ordinary) is TrainState
    np.testing.assert_array_equal(ordinary.params["kernel"], after.params["kernel"])
    np.testing.assert_array_equal(after.anchor["kernel"], state.params["kernel"])
    np.testing.assert_array_equal(after.relinearise().anchor["kernel"], after.params["kernel"])
    close(after.apply_fn({"params": after.params}, X), ordinary.apply_fn({"params": ordinary.params}, X))  # linear


def test_a_custom_vjp_rule_is_transposed():
    @jax.custom_vjp
    def negated(x):
        return x

    negated.defvjp(lambda x: (x, None), lambda _, c: (-c,))
    module = eqx.nn.Lambda(negated)
    model = relin.equinox.Linearised(eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=jax.random.key(0)), module]))
    params = eqx.filter(model, eqx.is_inexact_array)
    there = eqx.apply_updates(model, jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), params))
    here = jax.vmap(model)(X)
    close(jax.jit(jax.vmap(lambda x: there(x)))(X) - here, -0.1 * (1 + X.sum(1, keepdims=True)) * jnp.ones((1, 3)))


def test_a_rule_that_adds_to_the_cotangent_is_refused_where_numbers_are_known():
    def adding(noise):
        @jax.custom_vjp
        def noisy(x):
            return x

        noisy.defvjp(lambda x: (x, None), lambda _, c: (c + noise,))
        return noisy

    class Network(nnx.Module):
        def __init__(self, noise):
            self.linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
            self.noise = noise

        def __call__(self, x):
            return adding(self.noise)(self.linear(x))

    relin.nnx.Linearised(Network(0))(X)
    with pytest.raises(ValueError, match="must be linear in the cotangent"):
        relin.nnx.Linearised(Network(1))(X)


def _deaf(use):
    return use(relin.nnx.Linearised(Half()))


@jax.jit
def _kept(params):
    return relin.linen.linearised(linen_state()).apply_fn({"params": params}, X)


def _of_itself(_, params):
    _kept(params)  # from the second call on JAX runs what it has kept
    return _kept(params)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: relin.equinox.Linearised(jnp.tanh),
            TypeError,
            "must be a callable equinox.Module .*; pass the module",
        ),
        (
            lambda: relin.equinox.Linearised(relin.equinox.Linearised(equinox_module())),
            TypeError,
            "not linearised yet, got Linearised; pass",
        ),
        (lambda: relin.equinox.Linearised(eqx.nn.Lambda(abs)), TypeError, "floating-point arrays to train, got Lambda"),
        (lambda: relin.nnx.Linearised(equinox_module()), TypeError, "callable flax.nnx.Module .* got MLP; pass"),
        (lambda: relin.nnx.Linearised(nnx.Dropout(0.1, rngs=nnx.Rngs(0))), ValueError, "`params` holds no array; pass"),
        (
            lambda: relin.linen.linearised(linen.Dense(3)),
            TypeError,
            "flax.training.train_state.TrainState .*got Dense;",
        ),
        (
            lambda: relin.linen.linearised(relin.linen.linearised(linen_state())),
            TypeError,
            "not linearised yet, got LinearisedTrainState; pass",
        ),
        (lambda: relin.nnx.Linearised(Half(), 64), TypeError, "must be a relin schedule or None, got 64; pass"),
        (
            lambda: relin.nnx.Linearised(Half(), il.After(il.WhenError(0.1, probe=X), 3)),
            ValueError,
            "must have no probe, got WhenError with one; leave it out, and call the network on it",
        ),
        (
            lambda: relin.equinox.Linearised(equinox_module(), il.WhenLossGap(0.1)),
            ValueError,
            "no more than the network's outputs, got WhenLossGap; use WhenError or WhenFunctionMoves",
        ),
        (
            lambda: relin.nnx.Linearised(Half(), il.WhenError(0.1, check_every=1)).step(),
            ValueError,
            "WhenError measures the network, got no function that calls it; pass one",
        ),
        (
            lambda: _deaf(lambda model: model.linearisation_error(lambda _: model.network(X)["logits"])),
            ValueError,
            "must call the network that it is given, .* got outputs whose derivative does not depend on",
        ),
        (
            lambda: _deaf(lambda model: model.linearisation_error(lambda _: model(X)["logits"])),
            ValueError,
            "call the network that it is given, got a call of a linearised one; write",
        ),
        (
            lambda: relin.linen.linearised(linen_state()).linearisation_error(
                lambda apply, p: jax.lax.stop_gradient(apply({"params": p}, X))
            ),
            ValueError,
            "call the network that it is given, and not stop its gradients, got outputs whose derivative",
        ),
        (
            lambda: relin.linen.linearised(linen_state()).linearisation_error(
                lambda apply, p: jax.jit(lambda p: apply({"params": linen_state().params}, X))(p)
            ),
            ValueError,
            "call the network that it is given, and not stop its gradients, got outputs whose derivative",
        ),
        (
            lambda: relin.linen.linearised(linen_state()).linearisation_error(_of_itself),
            ValueError,
            "call the network that it is given, got a call of a linearised one; write",
        ),
        (
            lambda: relin.nnx.Linearised(Half()).linearisation_error(lambda module: module(X)["logits"].mean()),
            ValueError,
            "no floating-point array of them but losses; return the outputs",
        ),
        (
            lambda: relin.linen.linearised(linen_state(), il.PerParameter({"*": il.Every(2)})),
            ValueError,
            "no more than the network's outputs, got PerParameter; .* pass None and call",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()
