"""Optimisers made anew find their compiled program, and different ones never take each other's."""

import jax
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._loop.same import identity

DATA = np.random.default_rng(1).normal(size=(6, 4)), np.arange(6) % 3
PROBLEM = il.Problem(oracles.mlp, il.CrossEntropy())

EQUAL = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(1e-3),
    "adamw": lambda: optax.adamw(1e-3, weight_decay=1e-2, mask=None),
    "a schedule": lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
    "a chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
    "warmup": lambda: optax.adam(optax.warmup_cosine_decay_schedule(0.0, 1.0, 5, 10)),
}


def known(optimiser):
    return tuple(map(identity, optimiser))


@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_made_anew_with_the_same_numbers_they_are_equal(make):
    assert known(make()) == known(make())
    assert hash(known(make())) == hash(known(make()))


def rate(value):
    return lambda step: value * step


DIFFERENT = {
    "rates": (optax.sgd(0.1), optax.sgd(0.2)),
    "momentum": (optax.sgd(0.1, momentum=0.9), optax.sgd(0.1, momentum=0.8)),
    "Nesterov": (optax.sgd(0.1, 0.9), optax.sgd(0.1, 0.9, nesterov=True)),
    "kinds": (optax.adam(0.1), optax.adamw(0.1)),
    "epsilon": (optax.adam(0.1, eps=1e-8), optax.adam(0.1, eps=1e-7)),
    "types": (optax.scale(1), optax.scale(1.0)),
    "signs of zero": (optax.scale(0.0), optax.scale(-0.0)),
    "arrays": (optax.scale(np.array([1.0, 2.0])), optax.scale(np.array([1.0, 3.0]))),
    "arrays of JAX": (optax.scale(jax.numpy.ones(2)), optax.scale(jax.numpy.ones(2))),
    "schedules": (optax.sgd(optax.linear_schedule(1.0, 0.0, 5)), optax.sgd(optax.linear_schedule(1.0, 0.0, 6))),
    "one's own functions": (optax.sgd(rate(0.1)), optax.sgd(rate(0.1))),
    "masks": (optax.masked(optax.sgd(1.0), lambda p: True), optax.masked(optax.sgd(1.0), lambda p: True)),
}


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_or_is_not_understood_is_not_equal(one, other):
    assert known(one) != known(other)
    assert known(one) == known(one)


def test_ones_own_functions_are_compared_by_identity():
    assert identity(rate(0.1)) != identity(rate(0.1))
    assert identity(3) == 3
    array = np.ones(3)
    before = known(optax.scale(array))
    array[0] = 2.0
    assert known(optax.scale(array)) != before


def test_training_with_an_optimiser_made_anew_compiles_nothing():
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def train(optimiser):
        before = len(compiled)
        solution = il.train(
            PROBLEM,
            il.WeightSpace(optimiser),
            il.Every(2),
            oracles.mlp_params(),
            DATA,
            num_steps=3,
            key=jax.random.key(0),
        )
        return len(compiled) - before, np.asarray(solution.params["w"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    first, trained = train(optax.adam(1e-3))
    again, same = train(optax.adam(1e-3))
    other, different = train(optax.adam(1e-2))
    assert first > 0 < other
    assert again == 0
    np.testing.assert_array_equal(trained, same)
    assert not np.allclose(trained, different)
