"""Linearised steps of networks with custom_vjp rules: J v by their transpose, or by forward mode of Equinox' loops."""

from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import relin as il
from benchmarks._measure import compiled, flops, heading, row, seconds, table

BATCH, WIDTH, LENGTH, HEADS, BLOCKS = 32, 128, 64, 4, 4


def attention(q, k, v):
    """Softmax attention of one example and head, (length, d), as JAX differentiates it."""
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1])) @ v


def with_rule(saved):
    """The same with a custom_vjp rule: the probabilities `saved` for the backward pass, or computed again there, as
    fused attention does."""
    function = jax.custom_vjp(attention)

    def probabilities(q, k):
        return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]))

    def forward(q, k, v):
        p = probabilities(q, k)
        return p @ v, (q, k, v, p if saved else None)

    def backward(residuals, c):
        q, k, v, p = residuals
        p = probabilities(q, k) if p is None else p
        dp = c @ v.T
        ds = p * (dp - jnp.sum(dp * p, axis=-1, keepdims=True)) / jnp.sqrt(q.shape[-1])
        return ds @ k, ds.T @ q, p.T @ c

    function.defvjp(forward, backward)
    return function


def network(attend):
    def apply(params, x):
        def block(h, block):
            parts = (h @ block["qkv"]).reshape(*h.shape[:2], 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
            mixed = jax.vmap(jax.vmap(attend))(*parts).transpose(0, 2, 1, 3).reshape(h.shape)
            h = h + mixed @ block["out"]
            return h + jax.nn.gelu(h @ block["up"]) @ block["down"]

        h = x @ params["in"]
        for each in params["blocks"]:
            h = block(h, each)
        return h.mean(1) @ params["head"]

    return apply


def parameters():
    keys = iter(jax.random.split(jax.random.key(0), 4 * BLOCKS + 2))

    def weights(inputs, outputs):
        return jax.random.normal(next(keys), (inputs, outputs)) / jnp.sqrt(inputs)

    sizes = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH), "up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
    blocks = [{name: weights(*size) / 2 for name, size in sizes.items()} for _ in range(BLOCKS)]
    return {"in": weights(16, WIDTH), "blocks": blocks, "head": weights(WIDTH, 10)}


def main() -> None:
    heading("A custom_vjp rule, transposed")
    table(("attention", "linearised step ms", "over forward mode", "FLOPs over forward mode", "over its ordinary step"))
    params, optimiser = parameters(), optax.adam(1e-3)
    x = jax.random.normal(jax.random.key(1), (BATCH, LENGTH, 16))
    y = jax.random.randint(jax.random.key(2), (BATCH,), 0, 10)
    delta, state = jax.tree.map(lambda p: 1e-3 * p, params), optimiser.init(params)
    names = ("JAX's derivatives", "rule, probabilities kept", "rule, computed again")
    linearised, ordinary = [], []
    for attend in (attention, with_rule(True), with_rule(False)):
        problem = il.Problem(network(attend), il.CrossEntropy())

        def step(params, delta, state, problem=problem):
            _, gradient = problem.linearised_value_and_grad(params, delta, x, y)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(delta, updates), state

        def plain(params, state, problem=problem):
            _, gradient = problem.value_and_grad(params, x, y)
            updates, state = optimiser.update(gradient, state)
            return optax.apply_updates(params, updates), state

        linearised.append(compiled(step, params, delta, state))
        ordinary.append(compiled(plain, params, state))
    calls = [lambda run=run: run(params, delta, state) for run in linearised]
    calls += [lambda run=run: run(params, state) for run in ordinary]
    times = seconds(calls, repeats=20)
    for name, run, time, plain_time in zip(names, linearised, times[:3], times[3:], strict=True):
        row(name, time * 1e3, time / times[0], flops(run) / flops(linearised[0]), time / plain_time)
    _loops()


def _loops() -> None:
    """A neural differential equation by Diffrax, whose default adjoint is a loop of unknown length."""
    heading("A loop of unknown length in a rule")
    table(("adjoint", "linearised step ms", "over DirectAdjoint's", "over its ordinary step"))
    x = jax.random.normal(jax.random.key(0), (BATCH, 16))
    linearised, ordinary = [], []
    adjoints = (diffrax.DirectAdjoint(), diffrax.RecursiveCheckpointAdjoint())
    for adjoint in adjoints:
        field = eqx.nn.MLP(16, 16, WIDTH, 2, key=jax.random.key(1))
        apply, params = il.from_equinox(_Flow(field, adjoint))
        problem = il.Problem(apply, il.SquaredError())
        delta = jax.tree.map(lambda p: 1e-3 * p, params)
        linearised.append(compiled(problem.linearised_value_and_grad, params, delta, x, jnp.sin(x)))
        ordinary.append(compiled(problem.value_and_grad, params, x, jnp.sin(x)))
        linearised[-1] = partial(linearised[-1], params, delta, x, jnp.sin(x))
        ordinary[-1] = partial(ordinary[-1], params, x, jnp.sin(x))
    times = seconds([*linearised, *ordinary], repeats=20)
    for adjoint, time, plain_time in zip(adjoints, times[:2], times[2:], strict=True):
        row(type(adjoint).__name__, time * 1e3, time / times[0], time / plain_time)


class _Flow(eqx.Module):
    field: eqx.nn.MLP
    adjoint: diffrax.AbstractAdjoint = eqx.field(static=True)

    def __call__(self, x):
        term = diffrax.ODETerm(lambda t, y, field: field(y))
        options = {"stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-5), "max_steps": 64}
        solved = diffrax.diffeqsolve(
            term, diffrax.Tsit5(), 0.0, 1.0, 0.1, x, self.field, adjoint=self.adjoint, **options
        )
        assert solved.ys is not None
        return solved.ys[-1]
