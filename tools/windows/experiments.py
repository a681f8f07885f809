"""The runs: networks, optimisers, and what is recorded of them, through relin's public API."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from tools.windows.observe import At
from tools.windows.theory import LIMIT, MOMENTUM

import relin as il


@dataclass(frozen=True)
class Network:
    """A network of `relin.models`."""

    name: str
    options: dict[str, int] = field(default_factory=dict)
    distance: float = 15.0
    """η T, the same at every rate."""
    in_detail: bool = False
    """Whether single steps and single windows are recorded too, and descent at one anchor is compared with theory."""


NETWORKS = {
    "mlp": Network("mlp", {"width": 128, "depth": 2}),
    "cnn": Network("cnn", {"width": 8}, 30.0, in_detail=True),
    "lenet5": Network("lenet5"),
    "vit": Network("vit", {"patch": 7, "width": 32, "depth": 2, "num_heads": 2}),
}


@dataclass(frozen=True)
class Plan:
    """Numbers of the runs."""

    rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    period: int = 16
    batch: int = 64
    probe: int = 256
    validation: int = 2000
    between_sharpness: float = 1.5
    """Rate × steps between measurements of λ_max in ordinary training; in other runs every anchor has one."""
    detailed_steps: int = 256
    """Of a run that is recorded at every step: to the end of the last frozen window."""
    frozen: tuple[tuple[float, int], ...] = ((0.1, 16), (0.1, 64), (0.1, 192))
    """Rates, and steps of ordinary training after which the features are frozen."""
    frozen_steps: int = 64
    cap: float = 0.25
    """The part of the limit that the rate is capped at."""
    implicit_batch: int = 256
    adam_rate: float = 0.01
    excesses: tuple[float, ...] = (0.9, 1.02, 1.1, 1.3)
    """η λ_max over its limit, of full-batch descent at one anchor."""
    exact_start: tuple[float, int] = (0.03, 64)
    exact_steps: int = 32


@dataclass(frozen=True)
class Subject:
    """A network at its initial parameters, with its data."""

    network: Network
    apply: Any
    params: Any
    train: tuple[Any, Any]
    probe: tuple[Any, Any]
    validation: tuple[Any, Any]
    num_classes: int

    def problem(self, loss: il.AbstractLoss | None = None) -> il.Problem:
        return il.Problem(self.apply, loss or il.CrossEntropy())

    def steps(self, rate: float) -> int:
        return round(self.network.distance / rate)


def subject(network: Network, data: il.datasets.Dataset, plan: Plan) -> Subject:
    """The network drawn with seed 0; the probe is of the training examples."""
    model = il.models.build(network.name, data.input_shape, data.num_classes, key=jax.random.key(0), **network.options)
    apply, params = il.from_equinox(model)
    probe = jax.tree.map(lambda a: a[: plan.probe], tuple(data.train))
    validation = jax.tree.map(lambda a: a[: plan.validation], tuple(data.validation))
    return Subject(network, apply, params, tuple(data.train), probe, validation, data.num_classes)


def momentum(rate: Any) -> optax.GradientTransformation:
    return optax.sgd(jnp.asarray(rate), momentum=MOMENTUM)  # an array, so that one program serves every rate


def everything(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """The records of all runs of a network."""
    in_detail = (detailed, frozen, exact) if subject.network.in_detail else ()
    for part in (at_rates, changed, implicit, *in_detail):
        yield from part(subject, plan)


def detailed(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """Every step of SGD's largest rate, with windows and in ordinary training."""
    rate, steps = plan.rates[0], plan.detailed_steps
    for period in (plan.period, 1):
        schedule = il.Until(il.Every(period), steps)
        yield _run(subject, plan, momentum(rate), schedule, rate, steps, way="detailed", period=period, record_every=1)


def frozen(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """Ordinary training to a step, and one window from there with the optimiser's state that it has."""
    for rate, start in plan.frozen:
        steps, schedule = start + plan.frozen_steps, il.Until(il.Every(1), start + 1)
        yield _run(subject, plan, momentum(rate), schedule, rate, steps, way="frozen", first=start, record_every=1)


def at_rates(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """Ordinary training and windows of K steps, at every rate."""
    for rate in plan.rates:
        for period in (plan.period, 1):
            about = {"way": "momentum", "period": period}
            yield _run(subject, plan, momentum(rate), il.Every(period), rate, subject.steps(rate), **about)


def exact(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """Full-batch descent from rest at one anchor, at multiples of the limit, with either loss."""
    rate, start = plan.exact_start
    problem, key, data = subject.problem(), jax.random.key(1), subject.train
    options = {"num_steps": start, "batch_size": plan.batch, "key": key}
    params = il.train(problem, il.WeightSpace(momentum(rate)), il.Every(1), subject.params, data, **options).params
    x, y = subject.probe
    one_hot = jax.nn.one_hot(jnp.asarray(y), subject.num_classes)
    for loss, probe in ((il.SquaredError(), (x, one_hot)), (il.CrossEntropy(), (x, y))):
        problem = subject.problem(loss)
        options = {"key": key, "record_every": 1, "throw": False}
        at_start = il.train(
            problem,
            il.WeightSpace(momentum(0.0)),
            il.Never(),
            params,
            probe,
            num_steps=1,
            observers=(At(il.Sharpness(probe, 1e-5, 300), every=2),),
            **options,
        )
        largest = float(at_start.records["sharpness"][0])
        for excess in plan.excesses:
            solution = il.train(
                problem,
                il.WeightSpace(momentum(excess * LIMIT / largest)),
                il.Never(),
                params,
                probe,
                num_steps=plan.exact_steps,
                observers=(il.Performance(probe, "probe"),),
                **options,
            )
            about = {"way": "exact", "rate": excess * LIMIT / largest, "excess": excess, "loss": type(loss).__name__}
            yield _table(subject, solution, **about, first_sharpness=largest)


def changed(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """The same windows with other steps in them, over as many steps as SGD's largest rate."""
    rate, schedule = plan.rates[0], il.Every(plan.period)
    steps = subject.steps(rate)
    clipped = optax.chain(optax.clip_by_global_norm(0.3), momentum(rate))
    adam = optax.adam(jnp.asarray(plan.adam_rate))
    for way, at, optimiser in (("clip", rate, clipped), ("adam", plan.adam_rate, adam)):
        yield _run(subject, plan, optimiser, schedule, at, steps, way=way, period=plan.period)
    capped = il.WeightSpace(momentum(rate), rate_cap=il.RateCap(plan.cap, rate, MOMENTUM))
    yield _run(subject, plan, capped, schedule, rate, steps, way="cap", period=plan.period)


def implicit(subject: Subject, plan: Plan) -> Iterator[pl.DataFrame]:
    """In place of each window one damped Gauss–Newton step of the length of its K steps, on one larger batch."""
    rate, period = plan.rates[0], plan.period
    damping = (1 - MOMENTUM) / (rate * period)
    solver = il.GaussNewton(damping, linear_solver=il.ConjugateGradients(max_steps=20))
    options = {"batch": plan.implicit_batch, "record_every": 1, "way": "gauss-newton", "period": period}
    found = _run(subject, plan, solver, il.Every(1), rate, subject.steps(rate) // period, **options)
    yield found.with_columns(pl.col("step", "diverged_at") * period)


def _run(
    subject: Subject,
    plan: Plan,
    solver: il.AbstractSolver | optax.GradientTransformation,
    schedule: il.AbstractSchedule,
    rate: float,
    steps: int,
    *,
    record_every: int | None = None,
    first: int = 0,
    batch: int | None = None,
    **about: Any,
) -> pl.DataFrame:
    """One run, recorded at the end of every window unless told otherwise."""
    often = plan.period * max(1, round(plan.between_sharpness / rate / plan.period))
    each = 1 if batch else often if isinstance(schedule, il.Every) and schedule.every_step else plan.period
    observers = (
        At(il.Performance(subject.probe, "probe"), first=first),
        At(il.Sharpness(subject.probe, 0.05, 60), every=each, first=first, here=True),
        At(il.Performance(subject.validation, "validation"), first=steps),
        il.Movement(),
    )
    solution = il.train(
        subject.problem(),
        solver if isinstance(solver, il.AbstractSolver) else il.WeightSpace(solver),
        schedule,
        subject.params,
        subject.train,
        num_steps=steps,
        batch_size=batch or plan.batch,
        key=jax.random.key(1),
        observers=observers,
        record_every=record_every or plan.period,
        throw=False,
    )
    return _table(subject, solution, rate=rate, first=first, **about)


COLUMNS: dict[str, Any] = {
    "network": pl.String,
    "way": pl.String,
    "rate": pl.Float64,
    "period": pl.Int64,
    "first": pl.Int64,
    "loss": pl.String,
    "excess": pl.Float64,
    "first_sharpness": pl.Float64,
    "diverged_at": pl.Int64,
    "step": pl.Int64,
    "probe_loss": pl.Float32,
    "network_probe_loss": pl.Float32,
    "sharpness": pl.Float32,
    "displacement_norm": pl.Float32,
    "network_validation_accuracy": pl.Float32,
}


def _table(subject: Subject, solution: il.Solution, **about: Any) -> pl.DataFrame:
    """The records as rows, those apart of which nothing was measured."""
    about |= {"network": subject.network.name, "diverged_at": solution.diverged_at}
    records = {name: np.asarray(column) for name, column in solution.records.items() if name in COLUMNS}
    number = len(records["step"])
    missing = set(COLUMNS) - set(records)
    columns: dict[str, Sequence[Any] | np.ndarray] = records | {name: [about.get(name)] * number for name in missing}
    table = pl.DataFrame({name: pl.Series(name, columns[name], COLUMNS[name], strict=False) for name in COLUMNS})
    return table.filter(pl.col("probe_loss").is_not_nan())
