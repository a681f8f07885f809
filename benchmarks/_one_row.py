"""Gauss–Newton for cross-entropy with one row an example, the curvature of its class against the rest, or all of H."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

import relin as il
from benchmarks._measure import heading, row, table

DAMPINGS = (3.0, 1.0, 0.3, 0.1)
ITERATIONS = 50


class OneRow(il.CrossEntropy):
    """ℓ = log(1 + exp(−m)) with the margin m = f_y − log Σ_{j ≠ y} exp f_j, whose own curvature is left out of H.

    What is left is p_y (1 − p_y) g gᵀ with g = ∂m/∂f (arXiv:2605.06081). The gradient is the whole one.
    """

    def hessian_product(self, outputs, targets, vector):
        own = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        p = jnp.sum(own * jax.nn.softmax(outputs), axis=-1, keepdims=True)
        g = own - jax.nn.softmax(jnp.where(own > 0, -jnp.inf, outputs))
        return p * (1 - p) * g * jnp.sum(g * vector, axis=-1, keepdims=True)


class Subject(NamedTuple):
    title: str
    data: str
    model: str
    options: dict
    examples: int
    steps: int
    batch_size: int | None
    dampings: tuple[float, ...]
    adapt: str


MLP = {"width": 64}
SUBJECTS = (
    Subject("digits MLP, all, adapted", "digits", "mlp", MLP, 1000, 20, None, (1e-2,), "levenberg-marquardt"),
    Subject("digits MLP, batches of 128", "digits", "mlp", MLP, 1000, 100, 128, DAMPINGS, "none"),
    Subject("mnist1d CNN, all, adapted", "mnist1d", "cnn", {}, 500, 20, None, (1e-2,), "levenberg-marquardt"),
    Subject("mnist1d CNN, batches of 128", "mnist1d", "cnn", {}, 2000, 100, 128, DAMPINGS, "none"),
)


def one_row() -> None:
    """Prints the table; of several dampings the one with the least loss."""
    heading(f"Gauss–Newton for cross-entropy with one row an example, at most {ITERATIONS} iterations a step")
    table(("network, data", "H", "damping", "steps", "iterations", "processor s", "training loss", "test accuracy, %"))
    for subject in SUBJECTS:
        for name, loss, factor in (
            ("whole", il.CrossEntropy(), 1),
            ("whole", il.CrossEntropy(), 2),
            ("one row", OneRow(), 1),
            ("one row", OneRow(), 3),
        ):
            longer = subject._replace(steps=factor * subject.steps)
            damping = min(subject.dampings, key=lambda damping: trained(longer, loss, damping)[0])
            start = time.process_time()
            value, accuracy, iterations = trained(longer, loss, damping)  # compiled before
            took = time.process_time() - start
            row(subject.title, name, damping, longer.steps, iterations, took, value, 100 * accuracy)


def trained(subject: Subject, loss: il.CrossEntropy, damping: float) -> tuple[float, float, int]:
    """Training loss, infinite where the run failed, test accuracy, and iterations."""
    dataset = il.datasets.load(subject.data)
    data = dataset.train.x[: subject.examples], dataset.train.y[: subject.examples]
    model = il.models.build(subject.model, data[0].shape[1:], 10, key=jax.random.key(0), **subject.options)
    apply, params = il.from_equinox(model)
    linear = il.ConjugateGradients(max_steps=ITERATIONS)
    solution = il.train(
        il.Problem(apply, loss),
        il.GaussNewton(damping, subject.adapt, space="functions", linear_solver=linear),
        il.Every(1),
        params,
        data,
        num_steps=subject.steps,
        batch_size=subject.batch_size,
        key=jax.random.key(0),
        observers=[il.Performance(data, "train"), il.Performance((dataset.test.x, dataset.test.y))],
        record_every=subject.steps,
        throw=False,
    )
    last = {name: values[-1] for name, values in solution.records.items()}
    value = float(last["train_loss"]) if solution.result == il.Result.successful else float("inf")
    return value, float(last["test_accuracy"]), int(last["linear_iterations"])
