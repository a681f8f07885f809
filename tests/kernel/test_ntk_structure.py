"""Odd functions, and that the structure of the usual ones is really used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from ntk_oracle import assert_close, dense_parts, normal, select

from relin import models
from relin._core import programs
from relin.adapters import from_equinox
from relin.kernel._arguments import one_example
from relin.kernel._features import planned_routes
from relin.kernel._ntk import ntk
from relin.kernel._structure import trace


def routes(apply, params, x, outputs="full"):
    """{path: route}."""
    network, one = one_example(apply, outputs), jax.tree.map(lambda a: a[0], x)
    named = jax.tree_util.tree_leaves_with_path(params)
    (num_outputs,) = jax.eval_shape(network, params, one).shape
    planned = planned_routes(trace(network, params, one), len(named), num_outputs, outputs)
    return {jax.tree_util.keystr(path): tensor.route for (path, _), tensor in zip(named, planned, strict=True)}


@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


@softplus.defjvp
def _(primals, tangents):
    return softplus(primals[0]), tangents[0] * jax.nn.sigmoid(primals[0]) * 1.5  # not the derivative: rules are kept


@jax.custom_jvp
def doubled(w, x):
    return x @ w


@doubled.defjvp
def _(primals, tangents):
    return doubled(*primals), 2 * (tangents[1] @ primals[0] + primals[1] @ tangents[0])


@jax.custom_vjp
def tripled(w, x):
    return x @ w


tripled.defvjp(lambda w, x: (x @ w, (w, x)), lambda saved, g: (3 * saved[1].T @ g, g @ saved[0].T))


def scanned(p, x):
    return lax.scan(lambda h, _: (jnp.tanh(h @ p["w"]), None), x[:, :4], None, length=3)[0] @ p["v"]


def looped(p, x):
    h = lax.fori_loop(0, 2, lambda _, h: jnp.tanh(h @ p["w"]), x[:, :4])
    return lax.cond(jnp.sum(p["w"]) > 1e9, lambda h: h, lambda h: jnp.sin(h), h) @ p["v"]


def while_outside(p, x):
    """A loop of data-dependent length in which no parameter is, between two layers that have a place."""
    count = jax.vmap(lambda a: lax.while_loop(lambda n: n < jnp.sum(jnp.abs(a)), lambda n: n + 1.0, 0.0))(x)
    return jnp.tanh((x[:, :4] + lax.stop_gradient(count)[:, None]) @ p["w"]) @ p["v"]


def branched(p, x):
    return lax.cond(jnp.sum(p["b"]) > 0, lambda h: h @ p["w"], lambda h: jnp.cos(h @ p["w"].T), x[:, :4]) @ p["v"]


def heads(p, x):
    """Attention over three positions with two heads of two."""
    tokens = x[:, :12].reshape(-1, 3, 4)
    q, k = (jnp.einsum("btd,dhe->bhte", tokens, p[name].reshape(4, 2, 2)) for name in ("w", "u"))
    weights = jax.nn.softmax(jnp.einsum("bhte,bhse->bhts", q, k))
    mixed = jnp.einsum("bhts,bsd->btd", weights, tokens)
    return jnp.einsum("btd,dc->bc", mixed, p["v"]) + p["b"][None, :3]


PRODUCTS, GRADIENTS, JACOBIAN = "products", "gradients", "jacobian"

# name: (function of params and x (batch, 12), the routes of w and v)
ODD = {
    "plain": (lambda p, x: jnp.tanh(x[:, :4] @ p["w"] + p["b"][None]) @ p["v"], PRODUCTS, PRODUCTS),
    "used_twice": (lambda p, x: jnp.tanh(x[:, :4] @ p["w"]) @ p["w"] @ p["v"], JACOBIAN, PRODUCTS),
    "used_as_its_own_input": (lambda p, x: x[:, :4] @ (p["w"] @ p["w"]) @ p["v"], JACOBIAN, PRODUCTS),
    "transposed": (lambda p, x: jnp.tanh(x[:, :4] @ p["w"].T) @ p["v"], PRODUCTS, PRODUCTS),
    "left_operand": (lambda p, x: (p["v"].T @ jnp.tanh(p["w"] @ x[:, :4].T)).T, PRODUCTS, PRODUCTS),
    "scaled": (
        lambda p, x: jnp.tanh(x[:, :4] @ (p["w"] * 0.3) / 1.7 + p["b"][None]) @ (-p["v"]) * 2,
        PRODUCTS,
        PRODUCTS,
    ),
    "scaled_by_input": (
        lambda p, x: jnp.tanh(jax.vmap(lambda a: a[:4] @ (p["w"] * a[0]))(x)) @ p["v"],
        JACOBIAN,
        PRODUCTS,
    ),
    "scaled_by_parameter": (lambda p, x: x[:, :4] @ (p["w"] * p["b"][0]) @ p["v"], JACOBIAN, PRODUCTS),
    "sliced": (lambda p, x: jnp.tanh(x[:, :3] @ p["w"][1:, ::2]) @ p["v"][2:], PRODUCTS, PRODUCTS),
    "two_slices": (
        lambda p, x: jnp.tanh(x[:, :4] @ p["w"][:, :2] + x[:, :4] @ p["w"][:, 2:]) @ p["v"][:2],
        JACOBIAN,
        PRODUCTS,
    ),
    "reversed": (lambda p, x: jnp.tanh(x[:, :4] @ p["w"][::-1]) @ p["v"], PRODUCTS, PRODUCTS),
    "squared": (lambda p, x: x[:, :4] @ jnp.square(p["w"]) @ p["v"], JACOBIAN, PRODUCTS),
    "scan": (scanned, JACOBIAN, PRODUCTS),
    "fori_and_cond": (looped, JACOBIAN, PRODUCTS),
    "while_outside": (while_outside, PRODUCTS, PRODUCTS),
    "cond": (branched, JACOBIAN, PRODUCTS),
    "jit": (jax.jit(lambda p, x: jax.jit(jnp.tanh)(jax.jit(jnp.dot)(x[:, :4], p["w"])) @ p["v"]), PRODUCTS, PRODUCTS),
    "remat": (lambda p, x: jax.checkpoint(lambda w, h: jnp.tanh(h @ w))(p["w"], x[:, :4]) @ p["v"], PRODUCTS, PRODUCTS),
    "custom_jvp": (lambda p, x: softplus(x[:, :4] @ p["w"]) @ p["v"], PRODUCTS, PRODUCTS),
    "custom_jvp_of_weight": (lambda p, x: doubled(p["w"], x[:, :4]) @ p["v"], JACOBIAN, PRODUCTS),
    "custom_vjp_of_weight": (lambda p, x: tripled(p["w"], x[:, :4]) @ p["v"], JACOBIAN, PRODUCTS),
    "heads": (heads, GRADIENTS, PRODUCTS),
    "residual": (lambda p, x: jnp.tanh(x[:, :4] + x[:, :4] @ p["w"] - x[:, 4:8] @ p["u"]) @ p["v"], PRODUCTS, PRODUCTS),
    "bias_over_positions": (
        lambda p, x: (jnp.tanh(x.reshape(-1, 3, 4) @ p["w"] + p["b"][None, None]) @ p["v"]).sum(1),
        GRADIENTS,
        GRADIENTS,
    ),
    "positions_last": (
        lambda p, x: jnp.tanh(jnp.einsum("io,bpi->bop", p["w"], x.reshape(-1, 3, 4))).mean(2) @ p["v"],
        GRADIENTS,
        PRODUCTS,
    ),
    "positions_are_outputs": (
        lambda p, x: (x[:, :8].reshape(-1, 2, 4) @ p["v"]).reshape(x.shape[0], -1),
        "unused",
        None,
    ),
    "vmapped": (lambda p, x: jax.vmap(lambda x: jnp.tanh(x[:4] @ p["w"] + p["b"]) @ p["v"])(x), PRODUCTS, PRODUCTS),
    "batched_weights": (
        lambda p, x: jnp.einsum("bhi,hij->bj", x.reshape(-1, 3, 4), jnp.stack([p["w"], p["u"], p["w"]])) @ p["v"],
        JACOBIAN,
        PRODUCTS,
    ),
    "two_outputs_of_one": (
        lambda p, x: jnp.split(jnp.tanh(x[:, :4] @ p["w"]), 2, 1)[1] @ p["v"][:2],
        PRODUCTS,
        PRODUCTS,
    ),
    "result_read_again": (
        lambda p, x: (lambda y: y + jnp.sin(y))(jnp.tanh(x[:, :4] @ p["w"]) @ p["v"]),
        PRODUCTS,
        PRODUCTS,
    ),
    "constant_result": (lambda p, x: jnp.ones((x.shape[0], 2)), "unused", "unused"),
    "parameter_is_result": (lambda p, x: x[:, :4] * 0 + p["b"][None], "unused", "unused"),
    "indexed_by_input": (
        lambda p, x: p["w"][jnp.int32(jnp.abs(x[:, :2]))].sum(1) @ p["v"],
        GRADIENTS,
        PRODUCTS,
    ),
    "lax_convolution": (
        lambda p, x: (
            jnp.tanh(
                lax.conv_general_dilated(
                    x.reshape(-1, 1, 12),
                    p["w"][:, None],
                    (2,),
                    [(3, 1)],
                    lhs_dilation=(2,),
                    rhs_dilation=(3,),
                )
            ).sum(2)
            @ p["v"]
        ),
        GRADIENTS,
        PRODUCTS,
    ),
    "unused_result": (lambda p, x: (x[:, :4] @ p["u"], jnp.tanh(x[:, :4] @ p["w"]) @ p["v"])[1], PRODUCTS, PRODUCTS),
}


def parameters():
    return {"w": normal(0, 4, 4), "u": normal(1, 4, 4), "v": normal(2, 4, 3), "b": normal(3, 4)}


KINDS = ("full", "mean", "diagonal", 1)


@pytest.mark.parametrize("name", ODD)
def test_odd_functions(name):
    apply, w, v = ODD[name]
    params, x1, x2 = parameters(), normal(4, 5, 12), normal(5, 3, 12)
    outputs = KINDS[list(ODD).index(name) % 4]
    chosen = routes(apply, params, x1)
    assert chosen["['w']"] == w
    assert v is None or chosen["['v']"] == v
    parts, made = dense_parts(apply, params, x1, x2), ntk(apply, params, x1, x2, outputs=outputs, per_layer=True)
    assert made.keys() == parts.keys()
    for path, part in parts.items():
        assert_close(made[path], select(part, outputs))


def sequence(p, x):
    """Two positions, wide enough that pairs of positions are cheaper than gradients; x of tokens `(batch, 2)`."""
    embedded = jnp.take(p["table"], x, axis=0) + p["position"][None]
    return jnp.tanh(embedded @ p["w"] + jnp.broadcast_to(p["b"], (x.shape[0], 2, 10))).sum(1) @ p["v"]


SEQUENCE = {"table": (30, 12), "position": (2, 12), "w": (12, 10), "b": (10,), "v": (10, 3)}


@pytest.mark.parametrize("outputs", KINDS)
def test_pairs_of_positions(outputs):
    params = {name: normal(i, *shape) for i, (name, shape) in enumerate(SEQUENCE.items())}
    rng = np.random.default_rng(0)
    x1, x2 = (jnp.asarray(rng.integers(-3, 33, (n, 2))) for n in (5, 3))
    x1, x2 = jnp.where(x1 > 29, 29, x1), jnp.where(x2 > 29, 1, x2)
    chosen = routes(sequence, params, x1, outputs)
    assert [chosen[f"['{name}']"] for name in SEQUENCE] == [PRODUCTS, JACOBIAN, PRODUCTS, JACOBIAN, PRODUCTS]
    parts, made = dense_parts(sequence, params, x1, x2), ntk(sequence, params, x1, x2, outputs=outputs, per_layer=True)
    for path, part in parts.items():
        assert_close(made[path], select(part, outputs))


@pytest.mark.parametrize("mode", ["fill", "clip", "promise_in_bounds"])
def test_rows_outside_the_table(mode):
    """`fill` has no gradient there, `clip` that of the last row, and the third never takes one."""
    x = jnp.asarray([[1, 31], [2, 5], [31, 29]]) % (30 if mode == "promise_in_bounds" else 99)
    params = {"table": normal(0, 30, 4), "v": normal(1, 4, 3)}

    def apply(p, x):
        return jnp.nan_to_num(p["table"].at[x].get(mode=mode)).sum(1) @ p["v"]

    expected = dense_parts(apply, params, x)["['table']"]
    assert np.all(np.isfinite(expected))
    assert_close(ntk(apply, params, x, per_layer=True)["['table']"], expected)


def test_structure_of_the_usual_networks():
    """A convolution, whatever its form, is never differentiated directly, and biases of dense layers come for free."""
    for form in ("lax", "patches"):
        network = models.build("cnn", (8, 8, 1), 3, width=4, convolution=form, key=jax.random.key(0))
        apply, params = from_equinox(network)
        chosen = routes(apply, params, normal(0, 2, 8, 8, 1))
        weights = [route for path, route in chosen.items() if "weight" in path]
        assert JACOBIAN not in weights
        assert len(weights) == 4
    apply, params = from_equinox(models.build("mlp", (5,), 3, width=7, parametrisation="ntk", key=jax.random.key(0)))
    assert set(routes(apply, params, normal(0, 2, 5)).values()) == {PRODUCTS}


def test_convolutions_take_the_cheaper_route():
    """Many positions of few channels: gradients; few positions of many channels: pairs of positions."""
    for side, channels, route in ((12, 2, GRADIENTS), (2, 24, PRODUCTS)):
        params = [normal(0, 3, 3, channels, channels), normal(1, channels, 4)]

        def apply(p, x):
            layout = ("NHWC", "HWIO", "NHWC")
            return (
                jnp.tanh(lax.conv_general_dilated(x, p[0], (1, 1), "SAME", dimension_numbers=layout)).mean((1, 2))
                @ p[1]
            )

        x = normal(2, 3, side, side, channels)
        assert routes(apply, params, x)["[0]"] == route
        assert_close(ntk(apply, params, x), sum(dense_parts(apply, params, x).values()))


def test_without_the_means_to_read_programs(monkeypatch):
    """The same values, every tensor by its Jacobian."""
    monkeypatch.setattr(programs, "core", None)
    apply, params, x = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"], parameters(), normal(4, 3, 4)
    assert set(routes(apply, params, x).values()) == {JACOBIAN}
    for path, part in ntk(apply, params, x, per_layer=True).items():
        assert_close(part, dense_parts(apply, params, x)[path])
