"""`relin.preset.sparse` against the same periods without it, over a grid of periods, learning rates and seeds."""

import argparse
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il
from benchmarks._measure import heading, row, table
from relin._common.outcome import failed_to_train

NEVER = np.iinfo(np.int32).max
RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


class Setting(NamedTuple):
    """A data set, a network, and the grid over which it is trained."""

    data: str
    model: str
    options: dict[str, int]
    steps: int
    periods: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, NEVER)
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = (0, 1, 2)


SETTINGS = {
    "digits": Setting("digits", "mlp", {"width": 64, "depth": 2}, 1000),
    "mnist1d": Setting("mnist1d", "mlp", {"width": 128, "depth": 2}, 3000),
    "mnist1d-cnn": Setting("mnist1d", "cnn", {}, 3000, (4, 16, 64, 256, NEVER), RATES[:4], (0, 1)),
}
BATCH = 64
NUM_RECORDS = 10

Parts = tuple[il.AbstractSolver, il.AbstractSchedule, il.AbstractSafeguard | None]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks preset")
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--data", choices=tuple(SETTINGS), default="digits")
    compare(parser.parse_args().data)


def plain(optimiser: optax.GradientTransformation, period: jax.Array) -> Parts:
    return il.WeightSpace(optimiser), il.Every(period), None


def preset(optimiser: optax.GradientTransformation, period: jax.Array) -> Parts:
    parts = il.preset.sparse(optimiser, period)
    return parts.solver, parts.schedule, parts.safeguard


def compare(name: str) -> None:
    """One table: for each period the runs that did not train, and test accuracy at the rate chosen on validation."""
    setting = SETTINGS[name]
    steps, options = setting.steps, " ".join(f"{key} {value}" for key, value in setting.options.items())
    heading(
        f"preset.sparse on {setting.data}: {setting.model} {options}, {steps} steps, batch {BATCH}, SGD with "
        f"momentum 0.9, rates {', '.join(map(str, setting.rates))} falling linearly to 0, {len(setting.seeds)} seeds"
    )
    periods = (1, *setting.periods)
    alone, with_preset = trained(setting, plain, periods), trained(setting, preset, periods)
    num_runs = len(setting.rates) * len(setting.seeds)
    counts = f"did not train, of {num_runs}: Every"
    table(("K", "feature updates", counts, "preset", "test % (rate): Every", "preset"))
    for period in periods:
        both = (alone, with_preset)
        failures, accuracies = [untrained(e, period) for e in both], [best(setting, e, period) for e in both]
        row("∞" if period == NEVER else period, -(-steps // period) - 1, *failures, *accuracies)


def trained(setting: Setting, parts: Callable[..., Parts], periods: tuple[int, ...]) -> dict[tuple, dict[str, Any]]:
    """How the run of each period, rate and seed ended."""
    steps, dataset = setting.steps, il.datasets.load(setting.data)
    train, validation, test = (
        (jnp.asarray(p.x), jnp.asarray(p.y)) for p in (dataset.train, dataset.validation, dataset.test)
    )

    def make(lane: dict[str, jax.Array]) -> il.Run:
        key = jax.random.key(lane["seed"])
        model = il.models.build(
            setting.model, dataset.input_shape, dataset.num_classes, key=jax.random.fold_in(key, 0), **setting.options
        )
        apply, params = il.from_equinox(model)
        optimiser = optax.sgd(optax.linear_schedule(lane["rate"], 0.0, steps), momentum=0.9)
        solver, schedule, safeguard = parts(optimiser, lane["period"])
        problem = il.Problem(apply, il.CrossEntropy())
        return il.Run(problem, solver, schedule, params, jax.random.fold_in(key, 1), safeguard)

    grid = list(product(periods, setting.rates, setting.seeds))
    lanes = {
        "period": np.array([period for period, _, _ in grid], np.int32),
        "rate": np.array([rate for _, rate, _ in grid], np.float32),
        "seed": np.array([seed for _, _, seed in grid], np.int32),
    }
    observers = (il.Performance(validation, "validation"), il.Performance(test, "test"))
    options = {"num_steps": steps, "batch_size": BATCH, "observers": observers, "record_every": steps // NUM_RECORDS}
    frequencies = np.bincount(dataset.train.y) / len(dataset.train.y)
    constant = -float(frequencies @ np.log(frequencies))  # the loss of the best constant predictor
    ends = (end_of(solution, constant) for solution in il.train_lanes(make, lanes, train, **options))
    return dict(zip(grid, ends, strict=True))


def end_of(solution: il.Solution, constant: float) -> dict[str, Any]:
    """What came out, and whether the run trained, as studies judge it by the mean loss of its last tenth."""
    records = solution.records
    failed = failed_to_train(float(records["training_loss"][-1]), constant)
    return {
        "trained": solution.diverged_at is None and not failed,
        "validation": float(records["validation_accuracy"][-1]),
        "test": float(records["test_accuracy"][-1]),
    }


def untrained(ends: dict[tuple, dict[str, Any]], period: int) -> int:
    return sum(not end["trained"] for (own, _, _), end in ends.items() if own == period)


def best(setting: Setting, ends: dict[tuple, dict[str, Any]], period: int) -> str:
    """Mean test accuracy at the rate of best validation accuracy at which every seed trained; ↥ at the largest."""
    seeds = setting.seeds
    stable = [rate for rate in setting.rates if all(ends[period, rate, seed]["trained"] for seed in seeds)]
    if not stable:
        return "–"

    def mean(rate: float, part: str) -> float:
        return float(np.mean([ends[period, rate, seed][part] for seed in seeds]))

    rate = max(stable, key=lambda rate: mean(rate, "validation"))
    edge = "↥" if rate == max(setting.rates) else ""
    return f"{100 * mean(rate, 'test'):.1f} ({rate:g}{edge})"
