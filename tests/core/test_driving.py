"""Convolutions on CPU stay out of compiled loops, and the host's loop gives the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._core import primitives as _primitives
from relin._loop import program as _program

X = jnp.ones((2, 4, 4, 1))
KERNEL = jnp.ones((3, 3, 1, 2))


def conv(kernel, x):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_jvp
def with_a_rule(kernel, x):
    return conv(kernel, x)


with_a_rule.defjvp(lambda primals, tangents: (conv(*primals), conv(tangents[0], primals[1])))


def in_scan(kernel, x):
    return jax.lax.scan(lambda total, _: (total + conv(kernel, x), None), jnp.zeros((2, 4, 4, 2)), None, length=2)[0]


NESTED = {
    "plain": conv,
    "jit": jax.jit(conv),
    "scan": in_scan,
    "cond": lambda k, x: jax.lax.cond(k[0, 0, 0, 0] > 0, conv, lambda k, x: jnp.zeros((2, 4, 4, 2)), k, x),
    "remat": jax.checkpoint(conv),
    "custom_jvp": with_a_rule,
    "jit in scan in remat": jax.checkpoint(lambda k, x: in_scan(k, jax.jit(lambda x: 2 * x)(x))),
    "max pooling": lambda k, x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
}


@pytest.mark.parametrize("name", NESTED)
def test_slow_primitives_are_found_wherever_they_are_nested(name):
    assert _primitives.slow_in_loops(NESTED[name], KERNEL, X)


@pytest.mark.parametrize(
    "function",
    [
        lambda k, x: jnp.tanh(x.reshape(2, -1) @ jnp.ones((16, 3))) * k.sum(),
        lambda k, x: jax.lax.scan(lambda total, row: (total + row.sum(), None), k.sum(), x)[0],
    ],
)
def test_other_networks_are_not(function):
    assert not _primitives.slow_in_loops(function, KERNEL, X)


def test_names_of_the_primitives():
    found = _primitives.primitives(jax.jit(lambda x: jnp.sin(x) * 2), jnp.ones(3))
    assert {"sin", "mul"} <= found
    assert "cos" not in found


OPTIONS = {"num_steps": 5, "batch_size": oracles.BATCH, "key": oracles.KEY, "record_every": 2}


def convolutions_in_loops(monkeypatch, apply, params, schedule, **options):
    """Trains, and collects whether each trace of a step happened inside a compiled loop over steps."""
    compiled, steps = [], []
    in_loops, advance = _program.steps, _program.advance
    ordinary = _program.ordinary_advance
    monkeypatch.setattr(_program, "steps", lambda *a, **k: compiled.append(1) or in_loops(*a, **k))
    monkeypatch.setattr(_program, "advance", lambda *a, **k: steps.append(1) or advance(*a, **k))
    monkeypatch.setattr(_program, "ordinary_advance", lambda *a, **k: steps.append(1) or ordinary(*a, **k))
    loss = il.SquaredError()
    images = apply is not oracles.mlp
    problem, solver = il.Problem(apply, loss), il.WeightSpace(optax.sgd(0.05, momentum=0.9))
    solution = il.train(problem, solver, schedule, params, oracles.data(loss, images=images), **(OPTIONS | options))
    assert steps
    return bool(compiled), solution


@pytest.mark.parametrize("schedule", [il.Every(1), il.Every(3), il.WhenError(0.0, 2)], ids=repr)
def test_convolutions_are_driven_from_the_host_with_the_same_numbers(monkeypatch, schedule):
    params = oracles.cnn_params()

    def apply(params, x):  # a function of this test's own, so that no program compiled elsewhere is found
        return oracles.cnn(params, x)

    looped, automatic = convolutions_in_loops(monkeypatch, apply, params, schedule)
    assert not looped
    looped, compiled = convolutions_in_loops(monkeypatch, apply, params, schedule, drive="compiled")
    assert looped
    np.testing.assert_allclose(oracles.flat(automatic.params), oracles.flat(compiled.params), atol=1e-12)
    assert automatic.feature_updates == compiled.feature_updates
    for name, column in automatic.records.items():
        np.testing.assert_allclose(column, compiled.records[name], atol=1e-12, err_msg=name)


def test_other_networks_are_compiled_into_one_loop(monkeypatch):
    def apply(params, x):
        return oracles.mlp(params, x.reshape(x.shape[0], -1)[:, :4])

    looped, _ = convolutions_in_loops(monkeypatch, apply, oracles.mlp_params(), il.Every(3))
    assert looped


def test_lanes_of_convolutional_networks_are_driven_from_the_host(monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError("a convolution was put into a compiled loop")

    monkeypatch.setattr(_program, "steps", forbidden)
    loss = il.SquaredError()
    problem, solver = il.Problem(oracles.cnn, loss), il.WeightSpace(optax.sgd(0.05))
    lanes = il.train_lanes(
        lambda k: il.Run(problem, solver, il.Every(k), oracles.cnn_params(), oracles.KEY),
        jnp.asarray([2, 5]),
        oracles.data(loss, images=True),
        num_steps=4,
    )
    assert [lane.feature_updates for lane in lanes] == [1, 0]


def test_progress_is_told_every_step_by_the_host_and_ends_at_the_last():
    told = []
    problem, solver = il.Problem(lambda params, x: x @ params, il.SquaredError()), il.WeightSpace(optax.sgd(0.1))
    options = {"num_steps": 4, "key": oracles.KEY, "drive": "host", "progress": lambda *a: told.append(a)}
    il.train(problem, solver, il.Every(2), jnp.ones((2, 2)), (jnp.eye(2), jnp.eye(2)), **options)
    assert sorted(set(told)) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told == sorted(told)
