"""The report of the kernel study: *does the NTK stay constant?*"""

from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import polars as pl

from relin.report import _text as text
from relin.report._axes import UpdatesAxis
from relin.report._curves import CAPTION
from relin.report._figures import Plot
from relin.report._page import Report, Tile, constancy_tile, in_words, shared_tiles, statistics
from relin.report._rate_map import rates_plot
from relin.report._records import StudyRecords
from relin.report._tables import outcomes_csv, outcomes_table
from relin.studies.kernel.figures import (
    METRICS,
    Metric,
    accuracy_on_frozen_kernels,
    ends_against_updates,
    kernel_curves,
    metric_in_training,
    so_far,
)
from relin.studies.kernel.result import FrozenKernel, KernelOutcome, KernelResult
from relin.studies.kernel.table import frozen_csv, kernel_columns, kernel_extra
from relin.study._abstract import Against
from relin.study._result import Interval
from relin.study._scale import Scale

QUESTION = "Does the NTK stay constant?"
_METHOD = (
    "The empirical neural tangent kernel (NTK) Θ(x, x′) = J(x) J(x′)ᵀ of the network that is being trained, at its "
    "anchor, is computed on a fixed probe set of validation examples at every record. Kernel distance is "
    "1 − ⟨K, K₀⟩/(‖K‖‖K₀‖) to the kernel at step 0 (Fort et al. 2020, arXiv:2010.15110), relative change is "
    "‖K − K₀‖/‖K₀‖ (Geiger et al. 2020, arXiv:1906.08034), velocity the distance between two records over the steps "
    "between them, alignment the centred alignment with the targets (Baratin et al. 2021, arXiv:2008.00938), and "
    "effective rank exp(−Σ p ln p) of the normalised eigenvalues (Roy & Vetterli 2007). The kernel follows from the "
    "anchor alone, so that between feature updates, and at K = ∞ always, it must be the same to the last bit: that is "
    "checked on every pair of consecutive records."
)
_FROZEN = (
    "A frozen kernel is one taken on the way: the network is linearised at the parameters of that step and trained "
    "lazily from there, with a fresh optimiser, no further feature update, and the steps and the learning rate of lazy "
    "training. Its accuracy says how good the features of that step are. It is measured on the seeds that did not take "
    "part in choosing the learning rates."
)
_READING = (
    "Mean over seeds and its 95 % interval at the learning rate chosen for each schedule, of the runs that "
    "trained: the kernel of others is none, or that of a constant."
)


def page(result: KernelResult, records: pl.DataFrame, spec: Mapping[str, Any], against: Against = "n") -> Report:
    """What the page of the kernel study shows."""
    data = StudyRecords(result, records, tuple(metric.column for metric in METRICS.values()))
    files = {"table.csv": outcomes_csv(result.outcomes, kernel_columns(result))}
    if result.frozen:
        files["frozen.csv"] = frozen_csv(result)
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, data, against),
        tables=[outcomes_table(result, [], "The kernel's numbers are those at the end.", kernel_extra(result))],
        method=[_METHOD, *([_FROZEN] if result.frozen else []), statistics(result)],
        files=files,
    )


def _tiles(result: KernelResult) -> list[Tile]:
    ordinary = result.kernel("every-1")
    gap, _, *others = shared_tiles(result)
    return [
        Tile("Kernel distance, K = 1", *_shown(ordinary and ordinary.distance, "from step 0 to the end")),
        Tile("Relative kernel change, K = 1", *_shown(ordinary and ordinary.change, "‖K − K₀‖/‖K₀‖ at the end")),
        *(_frozen_tile(frozen, result.scale) for frozen in result.frozen[:1]),
        constancy_tile(result.constancy),
        gap,
        *others,
    ]


def _shown(interval: Interval | None, note: str) -> tuple[str, str]:
    if interval is None:
        return text.DASH, "not defined: fewer than two runs trained"
    return text.significant(interval.mean), f"{note}, 95 % interval {text.span(interval)}"


def _frozen_tile(frozen: FrozenKernel, scale: Scale) -> Tile:
    gain = frozen.gain
    interval = f"95 % interval {scale.to(gain)}"
    note = f"points, kernel of step {frozen.steps[-1]:,} against the initial one, {interval}"
    return Tile("Gain of a frozen kernel taken late", scale.value(gain.mean, 1), note)


def plots(result: KernelResult, data: StudyRecords, against: Against = "n") -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    axis = UpdatesAxis(against, result.num_steps)
    so_far = UpdatesAxis("n" if against == "K" else against, result.num_steps)  # on the way there is no K
    moved = [_metric_plot(result, data, name, metric, so_far) for name, metric in METRICS.items()]
    frozen = Plot(
        name="frozen-kernels",
        title=_frozen_title(result),
        caption="Test accuracy of lazy training on the kernel of a step of the run, against that step; mean and 95 % "
        "interval over seeds. Bands are the intervals of ordinary and lazy training, the dashed line is one margin "
        f"worse than ordinary training. {text.EDGES_MEAN}.",
        description=f"Accuracy on frozen kernels against the step at which they were taken. {_frozen_title(result)}.",
        draw=lambda theme: accuracy_on_frozen_kernels(result, theme),
    )
    learned = Plot(
        name="accuracy-and-alignment",
        title=_learned_title(result),
        caption=f"At the end of training, against the {axis.named('feature updates of a run')}: test accuracy, filled "
        "where on par with ordinary training, and the centred alignment of the kernel with the targets; means and 95 % "
        f"intervals over seeds. {text.EDGES_MEAN}.",
        description=f"Test accuracy and alignment with the targets against {axis.named('feature updates')}. "
        f"{_learned_title(result)}.",
        draw=lambda theme: ends_against_updates(result, axis, theme),
    )
    curves = Plot(
        name="learning-curves",
        title=_curves_title(result),
        caption=CAPTION,
        description=f"Test accuracy and training loss against the step. {in_words(result, result.outcomes)}",
        draw=lambda theme: kernel_curves(result, data, theme),
    )
    return [*moved[:2], *([frozen] if result.frozen else []), *moved[2:], learned, curves, rates_plot(result, data)]


def _metric_plot(result: KernelResult, data: StudyRecords, name: str, metric: Metric, axis: UpdatesAxis) -> Plot:
    title = _TITLES[name](result) if name in _TITLES else _velocity_title(result, data)
    left_out = " Where the kernel did not move it has no velocity on a logarithmic axis." if metric.log else ""
    return Plot(
        name=f"kernel-{name}",
        title=title,
        caption=f"{metric.name[0].upper()}{metric.name[1:]}, against the step on the left and against the "
        f"{so_far(axis)} on the right. {_READING}{left_out} {text.EDGES_MEAN}.",
        description=f"{metric.name} against step and feature updates. {title}.",
        draw=partial(metric_in_training, result, data, metric, axis),
    )


def _at_end(result: KernelResult, field: str) -> str:
    """The values of ordinary training, of the largest finite K and of lazy training, for a title."""
    finite = [o for o in result.outcomes if o.period is not None and o.period < float("inf")]
    chosen = [result.outcome("every-1"), finite[-1] if len(finite) > 1 else None, result.outcome("never")]
    parts = []
    for outcome in chosen:
        kernel: KernelOutcome | None = outcome and result.kernel(outcome.schedule)
        interval: Interval | None = kernel and getattr(kernel, field)
        if outcome is not None and interval is not None:
            parts.append(f"{text.significant(interval.mean)} for {text.schedule(outcome)}")
    return ", ".join(parts)


def _ended(what: str, field: str, result: KernelResult, start: Interval | None = None) -> str:
    ended = _at_end(result, field)
    if not ended:
        return f"{what}: no two runs of a schedule trained"
    return f"{what} ends at {ended}" if start is None else f"{what}: {text.significant(start.mean)} at first, {ended}"


_TITLES = {
    "distance": lambda result: _ended("Kernel distance", "distance", result),
    "change": lambda result: _ended("Relative kernel change", "change", result),
    "alignment": lambda result: _ended("Alignment with the targets", "alignment", result, result.initial_alignment),
    "rank": lambda result: _ended("Effective rank", "effective_rank", result, result.initial_rank),
}


def _velocity_title(result: KernelResult, data: StudyRecords) -> str:
    ordinary = result.outcome("every-1")
    moving = data.curve(ordinary, "kernel_velocity").mean if ordinary else np.array([])
    moving = moving[np.isfinite(moving) & (moving > 0)]
    if moving.size < 2:
        return "The kernel of ordinary training does not move"
    first, last = (text.significant(float(value)) for value in (moving[0], moving[-1]))
    how = "slows down" if moving[-1] < moving[0] else "does not slow down"
    return f"The kernel of ordinary training {how}: {first} per step at first, {last} at last"


def _frozen_title(result: KernelResult) -> str:
    if not result.frozen:
        return "No kernel was taken on the way"
    frozen = result.frozen[0]
    gain = frozen.gain
    how = "do better" if gain.low > 0 else "do worse" if gain.high < 0 else "are not shown to do better"
    first, last = (result.scale.value(interval.mean, 1) for interval in (frozen.accuracy[0], frozen.accuracy[-1]))
    return f"Frozen kernels taken later {how}: {last} % on that of step {frozen.steps[-1]:,}, {first} % on the first"


def _learned_title(result: KernelResult) -> str:
    """The fewest updates on par together with every larger number tested, and the alignment they lead to."""
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    periodic = [o for o in result.outcomes if o.period is not None and o.period > 1]
    enough = list(takewhile(lambda outcome: outcome.on_par, periodic))
    if not enough:
        return "No fewer feature updates than ordinary training’s are shown to suffice"
    kernel = result.kernel(enough[-1].schedule)
    fewest = enough[-1].feature_updates
    told = f"{text.counted(fewest, 'feature update')} suffice{'s' if fewest == 1 else ''}"
    if kernel is None or kernel.alignment is None:
        return told
    return f"{told}, with the kernel aligned to {text.significant(kernel.alignment.mean)}"


def _curves_title(result: KernelResult) -> str:
    chosen = [o for o in map(result.outcome, ("every-1", "never")) if o is not None]
    ended = ", ".join(f"{result.scale.told(o.test_accuracy.mean, 1)} for {text.schedule(o)}" for o in chosen)
    return f"Test accuracy ends at {ended}"
