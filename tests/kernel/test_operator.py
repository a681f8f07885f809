"""The kernel and the features as lineax operators, against explicit Jacobians."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from ntk_oracle import rows

from relin import models
from relin.adapters import from_equinox
from relin.kernel._operator import NTKOperator, features

N, C = 7, 3
NETWORKS = {"mlp": ((4, 2), {"width": 9, "depth": 2}), "cnn": ((6, 5, 2), {"width": 2})}
BATCH_SIZES = [("mlp", size) for size in (None, 1, 3, 5, 50)] + [("cnn", None), ("cnn", 4)]

# Programs here run for microseconds: what takes time is their compilation.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


@functools.cache
def network(name):
    shape, options = NETWORKS[name]
    apply, params = from_equinox(models.build(name, shape, C, key=jax.random.key(1), **options))
    params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
    return apply, params, jnp.asarray(np.random.default_rng(2).normal(size=(N, *shape)))


@functools.cache
def jacobian(name):
    """J, NC × P, its columns in the order of the parameters' leaves."""
    apply, params, x = network(name)
    return rows(lambda p: apply(p, x), params)


def vector(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(N, C)))


def flat(tree):
    return np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(("name", "batch_size"), BATCH_SIZES)
def test_products_equal_the_dense_kernel(name, batch_size):
    operator = NTKOperator(*network(name), batch_size=batch_size)
    J = jacobian(name)
    expected = (J @ (J.T @ flat(vector()))).reshape(N, C)
    product = quick_jit(lambda v: operator.mv(v))(vector())
    np.testing.assert_allclose(product, expected, rtol=0, atol=1e-11 * abs(expected).max())


@pytest.mark.parametrize("batch_size", [None, 3])
def test_features_and_their_transpose(batch_size):
    apply, params, x = network("mlp")
    operator, J = features(apply, params, x, batch_size=batch_size), jacobian("mlp")
    tangent = jax.tree.map(lambda a: jnp.asarray(np.random.default_rng(a.size).normal(size=a.shape)), params)

    @quick_jit
    def forms(tangent, v):
        dense = operator.as_matrix(), operator.T.as_matrix(), lx.diagonal(operator @ operator.T)
        return operator.mv(tangent), operator.T.mv(v), dense

    pushed, pulled, dense = forms(tangent, vector())
    assert jax.tree.structure(pulled) == jax.tree.structure(params)
    np.testing.assert_allclose(pushed.reshape(-1), J @ flat(tangent), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(flat(pulled), J.T @ flat(vector()), rtol=1e-9, atol=1e-11)
    for form, expected in zip(dense, (J, J.T, np.sum(J**2, axis=1)), strict=True):
        np.testing.assert_allclose(form, expected, rtol=1e-9, atol=1e-11)
    assert (operator.in_size(), operator.out_size()) == J.shape[::-1]
    assert not lx.is_symmetric(operator)


@pytest.mark.parametrize(("name", "batch_size"), [("cnn", None), ("mlp", 4)])
def test_dense_forms(name, batch_size):
    operator = NTKOperator(*network(name), batch_size=batch_size)
    kernel = jacobian(name) @ jacobian(name).T

    @quick_jit
    def forms(v):
        return operator.as_matrix(), lx.diagonal(operator), lx.linearise(operator).mv(v), lx.materialise(operator).mv(v)

    expected = kernel, np.diag(kernel), kernel @ flat(vector()), kernel @ flat(vector())
    for form, dense in zip(forms(vector()), expected, strict=True):
        np.testing.assert_allclose(form.reshape(dense.shape), dense, rtol=0, atol=1e-11 * abs(kernel).max())


def test_algebra_and_tags():
    operator = NTKOperator(*network("mlp"), batch_size=2)
    assert operator.T is operator
    assert lx.conj(operator) is operator
    damped = operator + lx.IdentityLinearOperator(operator.in_structure())
    for each in (operator, damped):
        assert lx.is_symmetric(each)
        assert lx.is_positive_semidefinite(each)
        assert not lx.is_negative_semidefinite(each)
        assert not lx.is_diagonal(each)
    np.testing.assert_allclose(damped.mv(vector()), operator.mv(vector()) + vector(), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 3])
def test_conjugate_gradients_solve_with_it(batch_size):
    """Θ + λI, inside jit, with parameters that are traced."""
    apply, params, x = network("mlp")

    @quick_jit
    def solve(params, y):
        kernel = NTKOperator(apply, params, x, batch_size=batch_size)
        damped = kernel + lx.IdentityLinearOperator(kernel.in_structure())
        return lx.linear_solve(damped, y, lx.CG(rtol=1e-12, atol=1e-12)).value

    J = jacobian("mlp")
    expected = np.linalg.solve(J @ J.T + np.eye(N * C), flat(vector()))
    np.testing.assert_allclose(solve(params, vector()).reshape(-1), expected, rtol=1e-8, atol=1e-11)


def test_conjugate_gradients_on_the_kernel_itself():
    operator = NTKOperator(*network("mlp"))
    J = jacobian("mlp")
    solution = lx.linear_solve(operator, vector(), lx.CG(rtol=1e-12, atol=1e-12))
    np.testing.assert_allclose(solution.value.reshape(-1), np.linalg.solve(J @ J.T, flat(vector())), rtol=1e-7)


def embedded(params, x):
    hidden = jnp.mean(params["table"][x["tokens"]], axis=1) * x["scale"][:, None]
    return jnp.tanh(hidden @ params["out"]) @ params["table"].T


def test_inputs_may_be_trees_of_integers():
    """Tokens, a tensor used twice, and examples in batches that do not divide."""
    random = np.random.default_rng(4)
    params = {"table": jnp.asarray(random.normal(size=(5, 4))), "out": jnp.asarray(random.normal(size=(4, 4)))}
    x = {"tokens": jnp.asarray(random.integers(0, 5, (N, 3))), "scale": jnp.asarray(random.normal(size=N))}
    J = rows(lambda p: embedded(p, x), params)
    operator = NTKOperator(embedded, params, x, batch_size=3)
    v = jnp.asarray(random.normal(size=(N, 5)))
    damped = operator + lx.IdentityLinearOperator(operator.in_structure())
    np.testing.assert_allclose(quick_jit(lambda: operator.as_matrix())(), J @ J.T, rtol=1e-10, atol=1e-12)
    solution = quick_jit(lambda v: lx.linear_solve(damped, v, lx.CG(rtol=1e-12, atol=1e-12)).value)(v)
    expected = np.linalg.solve(J @ J.T + np.eye(N * 5), flat(v))
    np.testing.assert_allclose(solution.reshape(-1), expected, rtol=1e-8, atol=1e-10)


def test_memory_is_that_of_a_batch():
    """The largest temporary of a compiled product shrinks with the batch size."""

    def apply(params, x):
        return jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]) @ params["c"]

    shapes = {"a": (8, 256), "b": (256, 256), "c": (256, 2)}
    params = {name: jnp.ones(shape) / 16 for name, shape in shapes.items()}
    x, v = jnp.ones((4096, 8)), jnp.ones((4096, 2))

    def temporary(batch_size):
        product = jax.jit(lambda p, x, v: NTKOperator(apply, p, x, batch_size=batch_size).mv(v))
        return product.lower(params, x, v).compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) < temporary(None) / 8


LINEAR = {"w": jnp.ones((2, 3))}
X = jnp.ones((4, 2))


def linear(params, x):
    return x @ params["w"]


REFUSALS = [
    (lambda: NTKOperator(linear, LINEAR, X, batch_size=0), ValueError, r"`batch_size` must be at least 1, got 0"),
    (lambda: NTKOperator(linear, LINEAR, X, batch_size=1.5), TypeError, r"`batch_size` must be an integer"),
    (lambda: NTKOperator(linear, {"w": jnp.ones((2, 3), int)}, X), TypeError, r"floating-point array, got int64"),
    (
        lambda: features(lambda p, x: linear(p, x).T, LINEAR, X),
        ValueError,
        r"of shape \(batch, C\).* got \(3, 4\) for a batch of 4",
    ),
    (lambda: features(lambda p, x: linear(p, x)[:2], LINEAR, X), ValueError, r"got \(2, 3\) for a batch of 4"),
    (
        lambda: features(lambda p, x: (linear(p, x),), LINEAR, X),
        TypeError,
        r"one floating-point array of shape \(batch, C\)",
    ),
    (lambda: features(linear, LINEAR, (X, X[:2])), ValueError, r"same positive number of examples, got \[2, 4\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
