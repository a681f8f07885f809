"""Random numbers drawn while a network is traced would be one draw for every step: they are found and refused."""

import random
from functools import partial

import jax
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._core.randomness import not_drawn

GLOBAL = np.random.default_rng(0)
DATA = np.random.default_rng(1).normal(size=(6, 4)), np.arange(6) % 3


def closing_over(generator):
    return lambda p, x: oracles.mlp(p, x) * generator.random()


def of_a_helper(p, x):
    return oracles.mlp(p, x) * helper()


def helper():
    return GLOBAL.normal()


class Callable:
    def __init__(self):
        self.layers = [{"generator": random.Random(0)}]

    def __call__(self, p, x):
        return oracles.mlp(p, x) * self.layers[0]["generator"].random()


def rarely(p, x):
    """Stochastic depth: two evaluations often agree."""
    return oracles.mlp(p, x) * (2.0 if random.random() < 1e-6 else 1.0)


DRAWING = {
    "Python's": (lambda p, x: oracles.mlp(p, x) * random.random(), "Python's `random`"),
    "rarely": (rarely, "Python's `random`"),
    "NumPy's": (lambda p, x: oracles.mlp(p, x) * np.random.normal(), "NumPy's global generator"),
    "closed over": (closing_over(np.random.default_rng(0)), "a Generator that it holds"),
    "legacy": (closing_over(np.random.RandomState(0)), "a RandomState that it holds"),
    "a helper's": (of_a_helper, "a Generator that it holds"),
    "an attribute": (Callable(), "a Random that it holds"),
    "an argument": (partial(lambda g, p, x: oracles.mlp(p, x) * g.random(), GLOBAL), "a Generator that it holds"),
    "a default": (lambda p, x, g=GLOBAL: oracles.mlp(p, x) * g.random(), "a Generator that it holds"),
    "a method": (lambda p, x, draw=GLOBAL.random: oracles.mlp(p, x) * draw(), "a Generator that it holds"),
}


def trained(apply):
    return il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(0.1)),
        il.Every(2),
        oracles.mlp_params(),
        DATA,
        num_steps=1,
        key=jax.random.key(0),
    )


@pytest.mark.parametrize(("apply", "source"), DRAWING.values(), ids=DRAWING)
def test_what_is_drawn_is_refused_every_time(apply, source):
    for _ in range(2):
        with pytest.raises(ValueError, match=f"got one that draws from {source}: one draw would") as refusal:
            trained(apply)
    assert "\n" not in str(refusal.value)


def test_check_and_the_kernel_find_what_two_evaluations_do_not_show():
    found = il.check(il.Problem(rarely, il.CrossEntropy()), oracles.mlp_params(), DATA)
    assert found.deterministic is False
    assert not found.ok
    with pytest.raises(ValueError, match="draws from Python's `random`"):
        il.kernel.ntk(rarely, oracles.mlp_params(), DATA[0])


def test_generators_that_are_held_and_not_drawn_from_are_no_matter():
    held = closing_over(np.random.default_rng(0))
    assert trained(lambda p, x: oracles.mlp(p, x) if held else None).result is il.Result.successful
    drawn = []
    with not_drawn(held, drawn.append):
        np.random.default_rng(1).normal()  # an initialiser's own
        jax.random.normal(jax.random.key(0))
    assert not drawn
