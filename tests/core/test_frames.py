"""How many functions of ours lie between a call of `train` and the solver's step."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import relin as il

OURS = str(Path(il.__file__).parent)
MOST = 7
X, Y = jnp.ones((8, 4, 4, 1)), jnp.ones((8, 2))
EVERY_1, EVERY_3 = il.Every(1), il.Every(3)


def dense(params, x):
    return x.reshape(len(x), -1)[:, :2] @ params["w"][0, 0]


def convolution(params, x):
    filtered = jax.lax.conv_general_dilated(x, params["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return filtered.mean((1, 2))


def frames():
    """The functions of ours that are running, outermost first, beginning with `train`."""
    found, frame = [], sys._getframe(1)
    while frame:
        if frame.f_code.co_filename.startswith(OURS):
            found.append(frame.f_code.co_qualname)
        frame = frame.f_back
    found.reverse()
    return found[found.index("train") :]


def watched(monkeypatch, solver, names):
    """The frames at the first calls of the solver's steps."""
    seen = {}
    for name in names:
        step = getattr(type(solver), name)

        def watching(*arguments, name=name, step=step):
            seen.setdefault(name, frames())
            return step(*arguments)

        monkeypatch.setattr(type(solver), name, watching)
    return seen


WEIGHTS = il.WeightSpace(optax.sgd(0.1))
LAST = {"advance", "advance_on", "ordinary_advance", "ordinary_finish", "MultiStepDriver._advanced"}
STEPS = ("step_and_variables", "step_on", "ordinary_step", "ordinary_step_in_full")


@pytest.mark.parametrize(
    ("solver", "apply", "schedule", "data", "options", "expected"),
    [
        (WEIGHTS, dense, EVERY_3, (X, Y), {"batch_size": 4}, {"step_and_variables"}),
        (WEIGHTS, dense, EVERY_3, (X, Y), {}, {"step_on"}),
        (WEIGHTS, dense, EVERY_1, (X, Y), {"batch_size": 4}, {"ordinary_step", "ordinary_step_in_full"}),
        (WEIGHTS, dense, EVERY_3, [(X, Y)], {}, {"step_and_variables"}),
        (WEIGHTS, dense, EVERY_1, [(X, Y)], {}, {"ordinary_step", "ordinary_step_in_full"}),
        (WEIGHTS, convolution, EVERY_3, (X, Y), {"batch_size": 4}, {"step_and_variables"}),
        (WEIGHTS, convolution, EVERY_3, (X, Y), {}, {"step_on"}),
        (il.FunctionSpace(optax.sgd(0.1)), dense, EVERY_3, (X, Y), {"batch_size": 4}, {"multi_step"}),
        (il.SpectralDescent(0.1), dense, EVERY_3, (X, Y), {}, {"multi_step"}),
    ],
    ids=[
        "device",
        "device, linearised once an anchor",
        "device, ordinary",
        "batches from Python",
        "batches from Python, ordinary",
        "convolution",
        "convolution, linearised once an anchor",
        "function space",
        "spectral",
    ],
)
def test_few_frames_lie_between_train_and_the_solvers_step(
    monkeypatch, solver, apply, schedule, data, options, expected
):
    names = STEPS if solver is WEIGHTS else ("multi_step",)
    seen = watched(monkeypatch, solver, names)
    own = lambda params, x: apply(params, x)  # noqa: E731  so that no program compiled elsewhere is found
    params = {"w": jnp.ones((3, 3, 1, 2)) if apply is convolution else jnp.ones((1, 1, 2, 2))}
    problem = il.Problem(own, il.SquaredError())
    il.train(problem, solver, schedule, params, data, num_steps=4, key=jax.random.key(0), **options)
    assert set(seen) == expected
    for name, found in seen.items():
        assert found[-1] in LAST, "the count sees what lies between"
        assert len(found) <= MOST, f"{name}: {' → '.join(found)}"
