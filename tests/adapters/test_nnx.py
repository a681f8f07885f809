"""Flax NNX modules as `(apply, params)`."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import relin as il
from relin.adapters import from_nnx

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)))
Y = jnp.asarray(RNG.integers(0, 3, 6))
KEY = jax.random.key(0)


class Plain(nnx.Module):
    def __init__(self, seed=0, width=5):
        rngs = nnx.Rngs(seed)
        self.hidden = nnx.Linear(4, width, rngs=rngs, param_dtype=jnp.float64)
        self.readout = nnx.Linear(width, 3, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.readout(jnp.tanh(self.hidden(x)))


class Normalised(nnx.Module):
    """BatchNorm and dropout between two layers, and a list of layers."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(jnp.tanh(self.norm(self.layers[0](x)))))


class Tied(nnx.Module):
    """An embedding that is the readout as well; integer inputs."""

    def __init__(self):
        self.embed = nnx.Embed(7, 4, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)
        self.again = self.embed

    def __call__(self, tokens):
        return self.again.attend(jnp.tanh(self.embed(tokens))).mean(1)


class Several(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64)

    def __call__(self, x, scale):
        return {"logits": self.linear(x) * scale, "hidden": x}


def dense_jacobian(apply, params, x):
    """Finite differences of every parameter, central, in float64."""
    leaves, structure = jax.tree.flatten(params)
    columns = []
    for number, leaf in enumerate(leaves):
        for index in np.ndindex(leaf.shape):
            moved = [[*leaves[:number], leaf.at[index].add(h), *leaves[number + 1 :]] for h in (1e-5, -1e-5)]
            up, down = (apply(jax.tree.unflatten(structure, m), x) for m in moved)
            columns.append((up - down).ravel() / 2e-5)
    return jnp.stack(columns, axis=1)


def test_round_trip():
    module = Plain()
    apply, params = from_nnx(module)
    assert sorted(params) == ["hidden", "readout"]
    np.testing.assert_allclose(apply(params, X), module(X), rtol=1e-13)
    doubled = jax.tree.map(lambda p: 2 * p, params)
    other = apply.combine(doubled)
    assert isinstance(other, Plain)
    nnx.update(module, doubled)
    np.testing.assert_array_equal(other(X), module(X))
    np.testing.assert_allclose(apply(doubled, X), module(X), rtol=1e-13)


def test_what_is_linearised_is_the_module():
    apply, params = from_nnx(Plain())
    delta = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), params)
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(delta)])
    tangent = il.Linearisation(apply, params).jvp(delta, X)
    np.testing.assert_allclose(tangent.ravel(), dense_jacobian(apply, params, X) @ flat, rtol=1e-7)


def test_equality_is_that_of_the_architecture():
    first, second, wider = (from_nnx(Plain(*of))[0] for of in ((0,), (1,), (0, 6)))
    assert first == second
    assert hash(first) == hash(second)
    assert first != wider
    assert first != from_nnx(Tied())[0]
    assert from_nnx(Normalised())[0] == from_nnx(Normalised())[0]


def test_batch_norm_is_frozen_in_evaluation_mode():
    module = Normalised()
    module(X.astype(jnp.float32))  # moves the running statistics
    module.eval()
    apply, params = from_nnx(module)
    x = X.astype(jnp.float32)
    np.testing.assert_allclose(jax.jit(apply)(params, x), module(x), rtol=1e-5)
    np.testing.assert_allclose(apply(params, x[:2]), apply(params, x)[:2], rtol=1e-5)  # examples are independent
    assert sorted(params) == ["layers", "norm"]
    assert params["norm"].keys() == {"scale", "bias"}
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(0.1)),
        il.Every(2),
        params,
        (x, Y),
        num_steps=4,
        key=KEY,
    )
    trained = apply.combine(solution.params)
    np.testing.assert_array_equal(trained.norm.mean.get_value(), module.norm.mean.get_value())


@pytest.mark.parametrize(
    ("mode", "name"), [({"use_running_average": False}, "norm"), ({"deterministic": False}, "drop")]
)
def test_training_mode_is_refused(mode, name):
    module = Normalised()
    module.eval()
    for part in (module.norm, module.dropout):
        for attribute, value in mode.items():
            if hasattr(part, attribute):
                setattr(part, attribute, value)
    apply, params = from_nnx(module)
    problem, x = il.Problem(apply, il.CrossEntropy()), X.astype(jnp.float32)
    with pytest.raises(ValueError, match=rf"changes {name}.*module\.eval\(\)"):
        il.train(problem, il.WeightSpace(optax.sgd(0.1)), il.Every(2), params, (x, Y), num_steps=2, key=KEY)
    assert "module.eval()" in (il.check(problem, params, (x, Y)).obstacle or "")


def test_tied_weights_are_one_parameter():
    module = Tied()
    apply, params = from_nnx(module)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(7, 4)]
    tokens = jnp.asarray(RNG.integers(0, 7, (3, 2)))
    J = dense_jacobian(apply, params, tokens)
    gradient = jax.grad(lambda p: apply(p, tokens).sum())(params)
    np.testing.assert_allclose(jax.tree.leaves(gradient)[0].ravel(), J.sum(0), rtol=1e-7)


def test_several_inputs_and_outputs():
    module = Several()
    scale = jnp.asarray(RNG.normal(size=(6, 1)))
    wanted = module(X, scale)["logits"]
    for output in ("logits", lambda outputs: outputs["logits"]):
        apply, params = from_nnx(module, output=output)
        np.testing.assert_allclose(apply(params, (X, scale)), wanted, rtol=1e-13)
        np.testing.assert_allclose(apply(params, {"x": X, "scale": scale}), wanted, rtol=1e-13)
    apply, params = from_nnx(module, output="missing")
    with pytest.raises(ValueError, match="got 'missing' of outputs named logits, hidden; pass a key"):
        apply(params, (X, scale))
    solution = il.train(
        il.Problem(from_nnx(module, output="logits")[0], il.CrossEntropy()),
        il.WeightSpace(optax.sgd(0.1)),
        il.Every(3),
        params,
        ((X, scale), Y),
        num_steps=5,
        batch_size=2,
        key=KEY,
    )
    assert solution.feature_updates == 1


def test_trainable():
    module = Plain()
    apply, params = from_nnx(module, trainable="readout.*")
    assert sorted(params) == ["readout.bias", "readout.kernel"]
    np.testing.assert_allclose(apply(params, X), module(X), rtol=1e-13)
    assert isinstance(apply.combine(params), Plain)


class Deep(nnx.Module):
    """More layers than digits, whose names sort otherwise as text; a call adds a variable."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs, param_dtype=jnp.float64) for _ in range(12)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        self.seen = nnx.Intermediate(x)
        return x


def test_many_layers_and_a_variable_made_by_the_call():
    module = Deep()
    apply, params = from_nnx(module)
    np.testing.assert_allclose(jax.jit(apply)(params, X), module(X), rtol=1e-12)


def test_kernel():
    module = Plain()
    apply, params = from_nnx(module)
    J = dense_jacobian(apply, params, X)
    kernel = il.kernel.ntk(apply, params, X)
    np.testing.assert_allclose(kernel.transpose(0, 2, 1, 3).reshape(18, 18), J @ J.T, rtol=1e-6)


def test_evaluation_mode_as_a_view():
    module = Normalised()
    view = nnx.view(module, deterministic=True, use_running_average=True)
    apply, params = from_nnx(view)
    module.eval()
    x = X.astype(jnp.float32)
    np.testing.assert_allclose(apply(params, x), module(x), rtol=1e-5)


@pytest.mark.slow
def test_flax_is_imported_where_it_is_needed(monkeypatch):
    code = "import sys, relin; relin.from_nnx, relin.from_linen; assert not any('flax' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "flax", None)
    with pytest.raises(ImportError, match=r"relin\.from_nnx needs flax.*pip install 'relin\[flax\]'"):
        from_nnx(None)


class WithoutParameters(nnx.Module):
    def __call__(self, x):
        return x


class Integer(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jnp.arange(3))

    def __call__(self, x):
        return x


class NotCallable(nnx.Module):
    def __init__(self):
        self.table = nnx.Param(jnp.arange(3.0))


REFUSALS = [
    (lambda: from_nnx(lambda x: x), TypeError, "must be a callable flax.nnx.Module, got function"),
    (lambda: from_nnx(NotCallable()), TypeError, "must be a callable flax.nnx.Module, got NotCallable"),
    (lambda: from_nnx(WithoutParameters()), ValueError, "`params` holds no array"),
    (lambda: from_nnx(Integer()), TypeError, r"got int64 at params\['table'\]; keep what is not trained inside"),
    (lambda: from_nnx(Plain(), output=1.5), TypeError, "must choose one of the network's outputs, got 1.5"),
]


@pytest.mark.parametrize(("make", "error", "match"), REFUSALS)
def test_refusals(make, error, match):
    with pytest.raises(error, match=match):
        make()


class Counting(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.count, self.width = nnx.Linear(4, 3, rngs=rngs), 0, 0

    def __call__(self, x):
        self.count, self.width = self.count + 1, x.shape[1]
        return self.linear(x) * self.count


class Shrinking(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        self.linear.kernel[...] = 0.9 * self.linear.kernel[...]
        return self.linear(x)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (Counting, "got one whose forward pass changes count, which a compiled"),
        (Shrinking, r"got Shrinking, whose forward pass changes linear\.kernel"),
    ],
)
def test_what_a_program_would_lose_is_refused(kind, match):
    apply, params = il.from_nnx(kind(nnx.Rngs(0)))
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(apply, params, jnp.ones((2, 4)))
