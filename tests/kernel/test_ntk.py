"""`ntk`: shapes, blocks, transformations, compilation, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ntk_oracle import assert_close, dense, normal, select

from relin.kernel._ntk import ntk

KINDS = ("full", "mean", "diagonal", 2)


def mixed(p, x):
    """Dense layers, a scale, a convolution: every route in one small network; x = (batch, 6)."""
    h = jnp.tanh(x @ p["w"] * 0.7 + p["b"][None]) * p["scale"][None]
    h = jax.lax.conv_general_dilated(h[:, None], p["kernel"], (1,), "SAME")
    return jnp.sin(h).reshape(x.shape[0], -1) @ p["v"] @ p["square"] @ p["square"]


SHAPES = {"w": (6, 8), "b": (8,), "scale": (8,), "kernel": (2, 1, 3), "v": (16, 3), "square": (3, 3)}
PARAMS = {name: normal(seed, *shape) for seed, (name, shape) in enumerate(SHAPES.items())}
X1, X2 = normal(10, 7, 6), normal(11, 4, 6)
SQUARE, RECTANGLE = dense(mixed, PARAMS, X1), dense(mixed, PARAMS, X1, X2)


@pytest.mark.parametrize(("outputs", "batch_size"), [*((kind, 3) for kind in KINDS), ("full", 1), ("mean", 50)])
def test_blocks_do_not_change_values(outputs, batch_size):
    assert_close(ntk(mixed, PARAMS, X1, outputs=outputs, batch_size=batch_size), select(SQUARE, outputs))
    assert_close(ntk(mixed, PARAMS, X1, X2, outputs=outputs, batch_size=batch_size), select(RECTANGLE, outputs))


@pytest.mark.parametrize("working_set", [1, 9000])
def test_any_working_set(working_set):
    """One example at a time, features made again for every pair; and in between."""
    assert_close(ntk(mixed, PARAMS, X1, working_set=working_set), SQUARE)
    assert_close(ntk(mixed, PARAMS, X1, X2, working_set=working_set), RECTANGLE)


@pytest.mark.parametrize("outputs", ["mean", "diagonal"])
@pytest.mark.parametrize("working_set", [1, 5000, 20000])
def test_some_outputs_at_a_time(outputs, working_set):
    """Five outputs by ones, twos and threes, so that the last of them overlap; all examples held, or some."""
    params = PARAMS | {"w": normal(20, 6, 5), "b": normal(21, 5), "scale": normal(22, 5), "v": normal(23, 10, 3)}
    params["square"] = normal(24, 3, 3)
    widened = lambda p, x: jnp.concatenate([mixed(p, x), jnp.sin(mixed(p, x)[:, :2])], axis=1)  # noqa: E731
    for x2, expected in ((None, dense(widened, params, X1)), (X2, dense(widened, params, X1, X2))):
        made = ntk(widened, params, X1, x2, outputs=outputs, working_set=working_set)
        assert_close(made, select(expected, outputs))
        parts = ntk(widened, params, X1, x2, outputs=outputs, working_set=working_set, per_layer=True)
        assert_close(sum(parts.values()), select(expected, outputs))


@pytest.mark.parametrize("outputs", KINDS)
def test_parts_sum_to_the_whole(outputs):
    parts = ntk(mixed, PARAMS, X1, X2, outputs=outputs, per_layer=True)
    assert set(parts) == {f"['{name}']" for name in PARAMS}
    assert_close(sum(parts.values()), select(RECTANGLE, outputs))


def test_more_examples_than_a_block_has_rows():
    """So that the loop over blocks runs, the last one overlaps, and both halves are written."""
    x = normal(12, 150, 6)
    expected = dense(mixed, PARAMS, x)
    for outputs in ("full", "mean"):
        assert_close(ntk(mixed, PARAMS, x, outputs=outputs), select(expected, outputs))


def test_under_jit_and_grad():
    made = jax.jit(lambda p, x: ntk(mixed, p, x, batch_size=3))(PARAMS, X1)
    assert_close(made, SQUARE)
    trace = lambda p: jnp.trace(ntk(mixed, p, X2, outputs="mean"))  # noqa: E731
    slope = jax.grad(trace)(PARAMS)["scale"][0]
    moved = [trace(PARAMS | {"scale": PARAMS["scale"].at[0].add(step)}) for step in (1e-5, -1e-5)]
    assert_close(slope, (moved[0] - moved[1]) / 2e-5, 1e-7)


def test_under_vmap_over_parameters():
    stacked = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), PARAMS)
    made = jax.vmap(lambda p: ntk(mixed, p, X2))(stacked)
    for i in range(2):
        assert_close(made[i], dense(mixed, jax.tree.map(lambda a, i=i: a[i], stacked), X2))


def test_a_closure_over_traced_values():
    made = jax.jit(lambda factor: ntk(lambda p, x: factor * mixed(p, x), PARAMS, X2))(2.0)
    assert_close(made, 4 * dense(mixed, PARAMS, X2))


class WithArrays(eqx.Module):
    """A callable that holds an array of NumPy's, one of JAX's and a number."""

    weight: np.ndarray
    scale: jax.Array
    power: int

    def __call__(self, p, x):
        return self.scale * (mixed(p, x) @ self.weight) ** self.power


def test_a_callable_that_holds_arrays():
    apply = WithArrays(np.asarray(normal(30, 3, 2)), jnp.asarray(0.5), 2)
    for outputs in ("full", "mean"):
        made = ntk(apply, PARAMS, X1, outputs=outputs, working_set=3000)
        assert_close(made, select(dense(apply, PARAMS, X1), outputs))


def test_inputs_are_any_pytree_and_numpy():
    def apply(p, x):
        return x["a"] @ p["w"][:, :3] + x["b"][:, None] * p["b"][None, :3]

    x = {"a": np.asarray(X1), "b": np.arange(7)}
    assert_close(ntk(apply, jax.tree.map(np.asarray, PARAMS), x, batch_size=2), dense(apply, PARAMS, x))


def test_single_precision_stays_single():
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, X1))
    made = ntk(mixed, params | {"not_used": jnp.ones(2, jnp.float32)}, x)
    assert made.dtype == jnp.float32
    assert_close(made, SQUARE, 1e-4)


def test_traced_seldom():
    """A second kernel of other parameters traces nothing; one of other numbers of examples, what tells whether these
    are independent."""
    count = 0

    def apply(p, x):
        nonlocal count
        count += 1
        return mixed(p, x)

    ntk(apply, PARAMS, X1)
    assert count == 3
    ntk(apply, jax.tree.map(lambda a: 2 * a, PARAMS), X1 + 1)
    ntk(apply, PARAMS, X1, outputs="full", batch_size=3)
    assert count == 3
    ntk(apply, PARAMS, X2)
    assert count == 5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"outputs": "trace"},
            ValueError,
            "`outputs` must be 'full', 'mean', 'diagonal' or the number of one output, got",
        ),
        (
            {"outputs": True},
            ValueError,
            "`outputs` must be 'full', 'mean', 'diagonal' or the number of one output, got",
        ),
        ({"outputs": 3}, ValueError, "`outputs` must be from 0 to 2 for a network of 3 outputs, got 3;"),
        ({"outputs": -1}, ValueError, "`outputs` must be from 0 to 2 for a network of 3 outputs, got -1;"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1, got 0;"),
        ({"batch_size": 2.0}, TypeError, "`batch_size` must be an integer, got 2.0;"),
        ({"working_set": 0}, ValueError, "`working_set` must be at least 1, got 0;"),
        ({"x2": normal(0, 3, 5)}, ValueError, "`x1` and `x2` must hold examples of one shape and type, got"),
        ({"x2": {"a": X2}}, ValueError, "`x1` and `x2` must hold examples of one shape and type, got"),
        ({"x1": X1[:0]}, ValueError, "All arrays of `x1` must have the same positive number of examples, got"),
        ({"x1": 1.0}, TypeError, "`x1` must hold arrays with a leading axis of examples, got"),
        ({"x1": (X1, X2)}, ValueError, "All arrays of `x1` must have the same positive number of examples, got"),
        ({"params": {}}, ValueError, "`params` holds no array;"),
        ({"params": PARAMS | {"n": 3}}, TypeError, "Every leaf of `params` must be a floating-point array, got int at"),
        (
            {"params": {"n": jnp.arange(3)}},
            TypeError,
            "Every leaf of `params` must be a floating-point array, got int64",
        ),
        (
            {"apply": lambda p, x: mixed(p, x).T},
            ValueError,
            r"`apply` must return outputs of shape \(batch, C\), or \(batch, …\), got",
        ),
        ({"apply": lambda p, x: (mixed(p, x),)}, TypeError, "`apply` must return one floating-point array of shape"),
        ({"apply": lambda p, x: mixed(p, x) > 0}, TypeError, "`apply` must return one floating-point array of shape"),
    ],
)
def test_refusals(change, error, message):
    arguments = {"apply": mixed, "params": PARAMS, "x1": X1} | change
    with pytest.raises(error, match=message):
        ntk(
            arguments.pop("apply"), arguments.pop("params"), arguments.pop("x1"), arguments.pop("x2", None), **arguments
        )
