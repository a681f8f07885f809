"""Examples that depend on each other are found, and no others."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax import lax
from ntk_oracle import assert_close, batch_kernel, dense, normal, select

from relin.kernel import NTKOperator, ntk
from relin.kernel._independence import doubt

N, T, D, C = 6, 5, 4, 3
PARAMS = {"w": normal(0, D, 8), "v": normal(1, 8, C), "b": normal(2, 8), "q": normal(3, 8, 8)}
X, XT = normal(4, N, D), normal(5, N, T, D)
TOKENS = jnp.asarray(np.random.default_rng(6).integers(0, 8, (N, T)))
POSITIONS = {"x": XT, "n": jnp.arange(N) % T}
NOISE = np.random.default_rng(7).normal(size=(N, 8))


def hidden(p, x):
    return jnp.tanh(x @ p["w"] + p["b"].reshape((1,) * (x.ndim - 1) + (-1,)))


def attention(p, x, mask=None):
    z = hidden(p, x)
    scores = z @ jnp.swapaxes(z, -1, -2)
    return jax.nn.softmax(scores if mask is None else jnp.where(mask, scores, -jnp.inf), -1) @ z


def recurrent(p, x):
    def step(carry, a):
        carry = jnp.tanh(a @ p["w"] + carry @ p["q"])
        return carry, carry

    return lax.scan(step, jnp.zeros((x.shape[0], 8)), jnp.swapaxes(x, 0, 1))[0]


def packed(p, x):
    """All sequences in one, kept apart by a mask."""
    number = jnp.repeat(jnp.arange(x.shape[0]), T)
    out = attention(p, x.reshape(1, -1, D), (number[:, None] == number[None])[None])
    return out.reshape(x.shape[0], T, 8).mean(1)


def halved(p, x):
    """Each example halved until it is small, as a solver with steps of its own would."""

    def one(a):
        done = lax.while_loop(
            lambda c: (jnp.abs(c[0]).sum() > 0.1) & (c[1] < 20), lambda c: (c[0] / 2, c[1] + 1), (a, 0)
        )
        return done[0]

    return hidden(p, jax.vmap(one)(x))


@jax.custom_jvp
def sine(x):
    return jnp.sin(x)


sine.defjvp(lambda x, t: (sine(x[0]), jnp.cos(x[0]) * t[0]))


@jax.custom_jvp
def centred_slope(x):
    return jnp.sin(x)


centred_slope.defjvp(lambda x, t: (jnp.sin(x[0]), t[0] - t[0].mean(0, keepdims=True)))


@jax.custom_vjp
def straight_through(x):
    return jnp.sign(x)


straight_through.defvjp(lambda x: (jnp.sign(x), None), lambda _, g: (g,))


@jax.custom_vjp
def mean_gradient(x):
    return x


mean_gradient.defvjp(lambda x: (x, None), lambda _, g: (g / g.shape[0],))


def per_example(function):
    """A function of one example under `vmap`."""
    return jax.vmap(function, (None, 0))


def last(p, x):
    return hidden(p, x["x"])[jnp.arange(x["x"].shape[0]), x["n"]]


# What comes before the read-out v, and its inputs.
INDEPENDENT = {
    "dense": (hidden, X),
    "left": (lambda p, x: jnp.tanh(p["w"].T @ x.T).T, X),
    "layer norm": (lambda p, x: jax.nn.standardize(hidden(p, x)), X),
    "attention": (lambda p, x: attention(p, x).mean(1), XT),
    "batch·positions": (lambda p, x: hidden(p, x.reshape(-1, D)).reshape(x.shape[0], T, 8).mean(1), XT),
    "positions·batch": (
        lambda p, x: hidden(p, jnp.swapaxes(x, 0, 1).reshape(-1, D)).reshape(T, x.shape[0], 8).sum(0),
        XT,
    ),
    "sort in vmap": (per_example(lambda p, a: jnp.sort(jnp.cumsum(hidden(p, a[None])[0]))), X),
    "attention in vmap": (per_example(lambda p, a: attention(p, a).mean(0)), XT),
    "scan over time": (recurrent, XT),
    "scan in vmap": (per_example(lambda p, a: recurrent(p, a[None])[0]), XT),
    "map over examples": (lambda p, x: lax.map(lambda a: hidden(p, a), x), X),
    "map over two": (lambda p, x: lax.map(lambda a: hidden(p, a[0]) * a[1], (x["x"].sum(1), x["n"])), POSITIONS),
    "last position": (last, POSITIONS),
    "take along": (lambda p, x: jnp.take_along_axis(hidden(p, x["x"]), x["n"][:, None, None], 1)[:, 0], POSITIONS),
    "index in vmap": (per_example(lambda p, x: hidden(p, x["x"])[x["n"]]), POSITIONS),
    "slice in vmap": (
        per_example(lambda p, x: lax.dynamic_slice_in_dim(hidden(p, x["x"]), x["n"], 2).sum(0)),
        POSITIONS,
    ),
    "set in vmap": (per_example(lambda p, x: hidden(p, x["x"]).at[x["n"]].set(0.0).sum(0)), POSITIONS),
    "set": (lambda p, x: hidden(p, x["x"]).at[jnp.arange(x["n"].shape[0]), x["n"]].set(0.0).sum(1), POSITIONS),
    "padding": (
        lambda p, x: jnp.where(jnp.arange(T)[None, :, None] <= x["n"][:, None, None], hidden(p, x["x"]), 0.0).sum(1),
        POSITIONS,
    ),
    "embedding": (lambda p, x: p["q"][x].mean(1), TOKENS),
    "one-hot": (lambda p, x: jax.nn.one_hot(x, 8).mean(1) @ p["q"], TOKENS),
    "activations": (lambda p, x: jax.nn.gelu(jax.nn.relu(x @ p["w"])), X),
    "own rule": (lambda p, x: sine(hidden(p, x)), X),
    "checkpoint": (lambda p, x: jax.checkpoint(hidden)(p, x), X),
    "convolution": (
        lambda p, x: jnp.pad(
            lax.conv_general_dilated(x[:, None], p["w"][:2, None, :3], (1,), "SAME").reshape(x.shape[0], -1)[:, 1:],
            ((0, 0), (0, 1)),
        ),
        X,
    ),
    "pooling": (
        lambda p, x: lax.reduce_window(hidden(p, x), -jnp.inf, lax.max, (1, 2, 1), (1, 2, 1), "VALID").sum(1),
        XT,
    ),
    "two views": (lambda p, x: jnp.prod(hidden(p, jnp.concatenate([x, -x])).reshape(2, -1, 8), 0), X),
    "einsum": (lambda p, x: jnp.einsum("btd,bsd,de->be", x, x, p["w"]), XT),
    "cholesky": (lambda p, x: jnp.linalg.cholesky(jnp.eye(8)[None] + hidden(p, x)[:, :, None] ** 2)[:, 0], X),
    "roll of features": (lambda p, x: jnp.roll(hidden(p, x), 2, 1)[:, ::-1], X),
    "keys among the inputs": (
        per_example(lambda p, x: hidden(p, x["x"])[0] * jax.random.bernoulli(jax.random.key(x["n"]), 0.5, (8,))),
        POSITIONS,
    ),
    "stack": (lambda p, x: jnp.stack([hidden(p, x), x[:, :1] * hidden(p, x)], 1).sum(1), X),
    "branch in vmap": (per_example(lambda p, a: lax.cond(a[0] > 0, jnp.cos, jnp.sin, hidden(p, a[None])[0])), X),
    "branch by a parameter": (lambda p, x: lax.cond(p["b"][0] > 0, jnp.cos, jnp.sin, hidden(p, x)), X),
    "largest": (lambda p, x: jnp.pad(lax.top_k(hidden(p, x), 3)[0], ((0, 0), (0, 5))), X),
    "fourier": (lambda p, x: jnp.abs(jnp.fft.fft(hidden(p, x))), X),
}
# Independent too, which the program does not show.
KEPT_APART = {
    "packed": (packed, XT),
    "loop in vmap": (halved, X),
    "no forward mode": (lambda p, x: straight_through(hidden(p, x)) * hidden(p, x), X),
    "another program for one": (
        lambda p, x: hidden(p, x) if x.shape[0] > 1 else jnp.tanh(p["b"][None] + x @ p["w"]),
        X,
    ),
    "map over pairs": (lambda p, x: lax.map(lambda a: hidden(p, a), x, batch_size=2), X),
    "order of products by size": (lambda p, x: jnp.einsum("btd,bsd,de,ef->bf", x, x, p["w"], p["q"]), XT),
}
# name: (function, inputs, what is named)
COUPLED = {
    "centred": (lambda p, x: (z := hidden(p, x)) - z.mean(0, keepdims=True), X, "reduce_sum"),
    "batch statistics": (lambda p, x: jax.nn.standardize(hidden(p, x), 0), X, "reduce_sum"),
    "detached mean": (
        lambda p, x: hidden(p, x) * lax.stop_gradient(hidden(p, x).mean(0, keepdims=True)),
        X,
        "reduce_sum",
    ),
    "cumulative": (lambda p, x: jnp.cumsum(hidden(p, x), 0), X, "cumsum"),
    "attention over the batch": (attention, X, "dot_general"),
    "sorted": (lambda p, x: jnp.sort(hidden(p, x), 0), X, "sort"),
    "median": (lambda p, x: hidden(p, x) - jnp.median(hidden(p, x), 0, keepdims=True), X, "reduce_or"),
    "contrastive": (
        lambda p, x: hidden(p, x) - jax.nn.logsumexp(hidden(p, x) @ hidden(p, x).T, 1, keepdims=True),
        X,
        "dot_general",
    ),
    "norm of the batch": (lambda p, x: hidden(p, x) / jnp.linalg.norm(hidden(p, x)), X, "reduce_sum"),
    "rolled": (lambda p, x: jnp.roll(hidden(p, x), 1, 0), X, "not in the order"),
    "reversed": (lambda p, x: hidden(p, x)[::-1], X, "not in the order"),
    "first added": (lambda p, x: hidden(p, x) + hidden(p, x)[:1], X, "add"),
    "best only": (
        lambda p, x: hidden(p, x) * (jnp.arange(x.shape[0]) == jnp.argmax(hidden(p, x)[:, 0]))[:, None],
        X,
        "",
    ),
    "permuted by inputs": (lambda p, x: hidden(p, x["x"][:, 0])[x["n"]], POSITIONS, ""),
    "scan over the batch": (
        lambda p, x: lax.scan(lambda c, a: (c + a, c + a), jnp.zeros(8), hidden(p, x))[1],
        X,
        "scan",
    ),
    "loop over the batch": (
        lambda p, x: hidden(p, x * lax.while_loop(lambda c: c < jnp.abs(x).sum(), lambda c: c + 1.0, 0.0)),
        X,
        "reduce_sum",
    ),
    "branch by the batch": (lambda p, x: lax.cond(x.sum() > 0, jnp.cos, jnp.sin, hidden(p, x)), X, "reduce_sum"),
    "groups": (
        lambda p, x: jnp.cumsum(hidden(p, x).reshape(min(2, x.shape[0]), -1, 8), 0).reshape(-1, 8),
        X,
        "cumsum",
    ),
    "convolved along the batch": (
        lambda p, x: lax.conv_general_dilated(hidden(p, x).T[None], jnp.stack([p["q"]] * 3, 2), (1,), "SAME")[0].T,
        X,
        "conv_general_dilated",
    ),
    "only the derivative": (lambda p, x: centred_slope(hidden(p, x)), X, "reduce_sum"),
    "only the gradient": (lambda p, x: mean_gradient(hidden(p, x)), X, "add_any"),
    "divided by the batch's size": (lambda p, x: hidden(p, x) / x.shape[0], X, "div"),
    "noise by position": (
        lambda p, x: hidden(p, x) + jax.random.normal(jax.random.key(0), (x.shape[0], 8)),
        X,
        "random_bits",
    ),
    "mask by position": (lambda p, x: hidden(p, x) * NOISE[: x.shape[0]], X, "mul"),
    "position": (lambda p, x: hidden(p, x + jnp.arange(x.shape[0])[:, None]), X, "iota"),
    "segments": (
        lambda p, x: jax.ops.segment_sum(hidden(p, x["x"][:, 0]), x["n"] // 2, x["n"].shape[0]),
        POSITIONS,
        "scatter",
    ),
}


def read_out(function):
    return lambda p, x: function(p, x) @ p["v"]


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_program_shows_independence(name):
    function, x = INDEPENDENT[name]
    assert doubt(read_out(function), PARAMS, x) is None


@pytest.mark.parametrize("name", KEPT_APART)
def test_no_false_alarm_where_values_must_tell(name):
    function, x = KEPT_APART[name]
    apply = read_out(function)
    assert doubt(apply, PARAMS, x) is not None
    assert_close(ntk(apply, PARAMS, x), dense(apply, PARAMS, x))


@pytest.mark.parametrize("name", COUPLED)
def test_coupled_examples_are_refused_by_name(name):
    function, x, what = COUPLED[name]
    with pytest.raises(ValueError, match=f"depend on the others of the batch: .*{what}.*`coupled=True`"):
        ntk(read_out(function), PARAMS, x)


@pytest.mark.parametrize("outputs", ["full", "mean", "diagonal", 1])
@pytest.mark.parametrize("name", ["centred", "cumulative", "rolled", "divided by the batch's size"])
def test_the_batchs_own_kernel(name, outputs):
    apply = read_out(COUPLED[name][0])
    expected = select(batch_kernel(apply, PARAMS, X), outputs)
    assert_close(ntk(apply, PARAMS, X, outputs=outputs, coupled=True, batch_size=2, working_set=1), expected)
    parts = ntk(apply, PARAMS, X, outputs=outputs, coupled=True, per_layer=True)
    assert_close(sum(parts.values()), expected)


def test_two_batches_each_as_a_whole():
    apply, x2 = read_out(COUPLED["centred"][0]), normal(8, 4, D)
    assert_close(ntk(apply, PARAMS, X, x2, coupled=True), batch_kernel(apply, PARAMS, X, x2))
    with pytest.raises(ValueError, match="depend on the others"):
        ntk(apply, PARAMS, X[:1], x2)
    assert_close(ntk(apply, PARAMS, X[:1]), dense(apply, PARAMS, X[:1]))  # of one example there are no others


def test_copies_of_an_example():
    apply, x = read_out(COUPLED["cumulative"][0]), jnp.broadcast_to(X[:1], X.shape)
    with pytest.raises(ValueError, match="cumsum"):
        ntk(apply, PARAMS, x)
    assert_close(ntk(read_out(hidden), PARAMS, x), dense(read_out(hidden), PARAMS, x))


def test_allowed_coupling_costs_independent_examples_nothing():
    apply = read_out(hidden)
    assert_close(ntk(apply, PARAMS, X, coupled=True), dense(apply, PARAMS, X))


def test_single_precision_rounds_differently_by_batch():
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, XT))
    assert_close(ntk(read_out(packed), params, x), dense(read_out(packed), PARAMS, XT), 1e-4)


def test_a_network_for_one_size_of_batch():
    def fixed(p, x):
        if x.shape[0] != N:
            raise TypeError(f"made for {N}")
        return hidden(p, x) @ p["v"]

    with pytest.raises(ValueError, match=r"must take one example too.*\(made for 6\); write it for any batch size"):
        ntk(fixed, PARAMS, X)
    assert_close(ntk(fixed, PARAMS, X, coupled=True), batch_kernel(fixed, PARAMS, X))
    with pytest.raises(TypeError, match="made for 6"):
        ntk(fixed, PARAMS, X[:2])


def test_under_jit():
    centred, divided = (read_out(COUPLED[name][0]) for name in ("centred", "divided by the batch's size"))
    with pytest.raises(ValueError, match="reduce_sum"):  # while it is traced
        jax.jit(lambda p: ntk(centred, p, X))(PARAMS)
    with pytest.raises(Exception, match="depend on the others of the batch: div"):  # when it runs
        jax.block_until_ready(jax.jit(lambda p: ntk(divided, p, X))(PARAMS))
    made = jax.jit(lambda p: ntk(read_out(halved), p, X))(PARAMS)
    assert_close(made, dense(read_out(halved), PARAMS, X))


def test_operators_of_a_coupled_batch():
    apply = read_out(COUPLED["centred"][0])
    kernel = batch_kernel(apply, PARAMS, X).transpose(0, 2, 1, 3).reshape(N * C, N * C)
    operator, vector = NTKOperator(apply, PARAMS, X), normal(9, N, C)
    assert_close(operator.mv(vector).reshape(-1), kernel @ np.asarray(vector).reshape(-1))
    assert_close(operator.as_matrix(), kernel)
    assert_close(lx.diagonal(operator), np.diag(kernel))
    with pytest.raises(ValueError, match=r"An operator with `batch_size` needs .* reduce_sum .*leave `batch_size` out"):
        NTKOperator(apply, PARAMS, X, batch_size=4)
    assert_close(NTKOperator(apply, PARAMS, X, batch_size=N).as_matrix(), kernel)
