"""How far relin is from what neural-tangents computed in float64, where a folder of its values is at hand.

The folder holds `mlp.npz` and `cnn.npz`: two networks in NTK parametrisation with inputs and targets, their empirical
kernels, and the outputs of 100 steps of full-batch gradient descent on the linearised network.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il
from benchmarks._measure import heading, row, table

STEPS, RATE = 100, 0.1
"""Rate 1 of a loss that is the mean over 10 outputs is rate 0.1 of one that is their sum."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reference")
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="with mlp.npz and cnn.npz")
    folder = parser.parse_args().folder
    if folder is None:
        print("\nreference: left out; --folder says where neural-tangents' values are.")
        return
    jax.config.update("jax_enable_x64", True)
    heading("Largest difference from neural-tangents in float64, relative to the largest entry")
    table(("network", "what", "difference"))
    for name, apply in (("mlp", mlp), ("cnn", cnn)):
        with np.load(folder / f"{name}.npz") as archive:
            values = dict(archive)
        params = [tuple(jnp.asarray(values[f"param_{i}_{k}"], jnp.float64) for k in "wb") for i in range(3)]
        for what, difference in differences(apply, params, values):
            row(name, what, difference)


def differences(apply: Callable, params: Any, values: dict[str, np.ndarray]) -> Any:
    x, x_test, y = (jnp.asarray(values[key], jnp.float64) for key in ("x", "x_test", "y"))

    def far(found: Any, key: str) -> float:
        return float(np.max(np.abs(np.asarray(found) - values[key])) / np.max(np.abs(values[key])))

    yield "outputs", far(apply(params, x), "outputs")
    yield "kernel, full", far(il.kernel.ntk(apply, params, x[:32]), "ntk_full_first32")
    yield "kernel, mean", far(il.kernel.ntk(apply, params, x, outputs="mean"), "ntk_mean")
    problem, optimiser = il.Problem(apply, il.SquaredError()), optax.sgd(RATE)
    solvers = {
        "WeightSpace": il.WeightSpace(optimiser),
        "FunctionSpace": il.FunctionSpace(optimiser),
        "SpectralDescent": il.SpectralDescent(RATE),
    }
    for name, solver in solvers.items():
        options = {"num_steps": STEPS, "key": jax.random.key(0)}
        solution = il.train(problem, solver, il.Never(), params, (x, y), **options)
        outputs = il.Linearisation(apply, solution.anchor).value(solution.displacement, x)
        yield f"outputs after {STEPS} steps, {name}", far(outputs, "descent_100steps_train")
    if "flow_t100_test" in values:
        flow = il.SpectralDescent(RATE / 1000)
        solution = il.train(problem, flow, il.Never(), params, (x, y), num_steps=1000 * STEPS, key=jax.random.key(0))
        outputs = il.Linearisation(apply, solution.anchor).value(solution.displacement, x_test)
        yield "test outputs of gradient flow, by 100,000 steps", far(outputs, "flow_t100_test")


def mlp(params: Any, x: jax.Array) -> jax.Array:
    """784-512-512-10, ReLU."""
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w * np.sqrt(2 / w.shape[0]) + b)
    w, b = params[-1]
    return x @ w * np.sqrt(2 / w.shape[0]) + b


def cnn(params: Any, x: jax.Array) -> jax.Array:
    """Convolutions to 32 channels and, in strides of 2, to 64; ReLU; the mean over positions; dense."""
    for stride, (w, b) in zip((1, 2), params[:2], strict=True):
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=layout)
        x = jax.nn.relu(x * np.sqrt(2 / np.prod(w.shape[:3])) + b)
    w, b = params[2]
    return x.mean(axis=(1, 2)) @ w * np.sqrt(2 / w.shape[0]) + b
