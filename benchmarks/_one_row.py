"""Gauss–Newton for cross-entropy with one row an example, the curvature of its class against the rest, or all of H."""

import time
from typing import Literal, NamedTuple

import jax
import numpy as np

import relin as il
from benchmarks._measure import heading, row, table

DAMPINGS = (3.0, 1.0, 0.3, 0.1)
ITERATIONS = 50
SEEDS = 3


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
    """Prints the table, loss and accuracy of each seed; of several dampings the best by the loss of the first seed."""
    heading(f"Gauss–Newton for cross-entropy with one row an example, at most {ITERATIONS} iterations a step")
    table(("network, data", "H", "damping", "steps", "iterations", "processor s", "loss", "test accuracy, %"))
    for subject in SUBJECTS:
        for curvature, factor in (("whole", 1), ("whole", 2), ("one-row", 1), ("one-row", 3)):
            longer = subject._replace(steps=factor * subject.steps)
            damping = min(subject.dampings, key=lambda damping: trained(longer, curvature, damping, seed=0)[0])
            start = time.process_time()
            runs = [trained(longer, curvature, damping, seed) for seed in range(SEEDS)]  # compiled before
            took = (time.process_time() - start) / SEEDS
            losses, accuracies = ([run[i] for run in runs] for i in (0, 1))
            iterations = sum(run[2] for run in runs) / SEEDS
            told = each(losses, "{:.2g}"), each([100 * accuracy for accuracy in accuracies], "{:.1f}")
            row(subject.title, curvature, damping, longer.steps, iterations, took, *told)


def each(values: list[float], form: str) -> str:
    """The runs' values, a dash for one that failed."""
    return ", ".join(form.format(value) if np.isfinite(value) else "–" for value in values)


def trained(
    subject: Subject, curvature: Literal["whole", "one-row"], damping: float, seed: int
) -> tuple[float, float, int]:
    """Training loss and test accuracy, not finite where the run failed, and iterations."""
    dataset = il.datasets.load(subject.data)
    data = dataset.train.x[: subject.examples], dataset.train.y[: subject.examples]
    model = il.models.build(subject.model, data[0].shape[1:], 10, key=jax.random.key(seed), **subject.options)
    apply, params = il.from_equinox(model)
    linear = il.ConjugateGradients(max_steps=ITERATIONS)
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.GaussNewton(damping, subject.adapt, curvature=curvature, space="functions", linear_solver=linear),
        il.Every(1),
        params,
        data,
        num_steps=subject.steps,
        batch_size=subject.batch_size,
        key=jax.random.key(seed),
        observers=[il.Performance(data, "train"), il.Performance((dataset.test.x, dataset.test.y))],
        record_every=subject.steps,
        throw=False,
    )
    last = {name: values[-1] for name, values in solution.records.items()}
    iterations = int(last["linear_iterations"])
    if solution.result != il.Result.successful:
        return float("inf"), float("nan"), iterations
    return float(last["train_loss"]), float(last["test_accuracy"]), iterations
