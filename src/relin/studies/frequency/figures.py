"""The drawings of the frequency study about accuracy: against K, against feature updates, against the step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from relin.report import _text as text
from relin.report._accuracy import SMALL, draw_mean, ends as ends_of, par_handles
from relin.report._periods import BESIDE_INCHES, PeriodAxis, sparse_period, stands_beside
from relin.report._placing import Name, name_marks
from relin.report._style import Theme, halo, label_right, new_figure
from relin.studies.frequency.data import FrequencyRecords, answered, with_period
from relin.studies.frequency.result import FrequencyResult
from relin.study._result import ScheduleOutcome

COMPARISONS = {"equal-steps": "equal steps", "equal-distance": "equal learning rate × steps"}
"""What a comparison keeps equal, in words."""


def accuracy_against_period(records: FrequencyRecords, theme: Theme) -> Figure:
    """Test accuracy against K: means with intervals, one dot a seed, bands of ordinary and lazy training."""
    beside = sum(map(stands_beside, records.result.outcomes))
    width = 11.5 + BESIDE_INCHES * max(0, beside - 2)
    figure = new_figure(width, 6.2)
    axes = figure.subplots()
    periods = PeriodAxis(records.result.outcomes, inches=width - 3.0)
    drawn = _draw_periods(axes, periods, records, theme)
    _limit(axes, drawn.ends, drawn.rows)
    _finish_periods(axes, periods, drawn, records.result, theme)
    axes.set_ylabel("test accuracy, %")
    _legend(figure, periods, records.result, theme)
    return figure


def both_comparisons(answers: Sequence[FrequencyRecords], theme: Theme) -> Figure:
    """Test accuracy against K in a panel for each comparison, on one axis of accuracy."""
    figure = new_figure(15.0, 6.6)
    panels = figure.subplots(1, len(answers), sharey=True)
    axis = [PeriodAxis(records.result.outcomes, beside=False, inches=4.9) for records in answers]
    drawn = [_draw_periods(*parts, theme) for parts in zip(panels, axis, answers, strict=True)]
    _limit(panels[0], [ends for part in drawn for ends in part.ends], max(part.rows for part in drawn))
    for axes, periods, part, records in zip(panels, axis, drawn, answers, strict=True):
        _finish_periods(axes, periods, part, records.result, theme, every=2 if len(periods.finite) > 8 else 1)
        axes.set_title(COMPARISONS[records.result.comparison], pad=28)  # K* is written between title and axes
    panels[0].set_ylabel("test accuracy, %")
    _legend(figure, axis[0], answers[0].result, theme)
    return figure


@dataclass(frozen=True)
class _Drawn:
    """What an axis of K shows."""

    ends: list[tuple[float, float]]
    """Lowest and highest value of each schedule, in percent."""
    lost: list[tuple[float, str, int]]
    """For each schedule with seeds that did not train its place, how many they are, and the row this is written in."""

    @property
    def rows(self) -> int:
        return max((row + 1 for _, _, row in self.lost), default=0)


def _draw_periods(axes: Axes, periods: PeriodAxis, records: FrequencyRecords, theme: Theme) -> _Drawn:
    """Seeds, means and intervals; the marks of the preset are joined."""
    width = min(0.28, 0.018 * periods.extent)
    ends, counts = [], []
    for outcome in periods.outcomes:
        x, colour = periods.at(outcome), periods.colour(outcome, theme)
        accuracy, trained = records.seeds(outcome)
        alive = 100 * accuracy[trained]
        jitter = width * (np.arange(alive.size) - (alive.size - 1) / 2) / max(alive.size - 1, 1)
        axes.plot(x + jitter, alive, ".", color=colour, alpha=0.35, markersize=6, zorder=2)
        draw_mean(axes, x, outcome, colour, theme, periods.marker(outcome))
        ends += [ends_of(outcome.test_accuracy), (alive.min(initial=math.inf), alive.max(initial=-math.inf))]
        if lost := records.lost(outcome):
            counts.append((x, lost))
    joined = [(periods.at(o), 100 * o.test_accuracy.mean) for o in periods.sparse if sparse_period(o) != math.inf]
    axes.plot([x for x, _ in joined], [y for _, y in joined], color=theme.accent, linewidth=1.6, zorder=1.5)
    return _Drawn(ends, _in_rows(counts, periods))


def _in_rows(counts: Sequence[tuple[float, str]], periods: PeriodAxis) -> list[tuple[float, str, int]]:
    """Each count in the lowest row where those before it leave it room."""
    placed, ends = list[tuple[float, str, int]](), list[float]()
    for x, content in sorted(counts):
        half = 0.34 * SMALL / 72 * len(content) * periods.extent / periods.inches
        row = next((i for i, end in enumerate(ends) if end <= x - half), len(ends))
        ends[row : row + 1] = [x + half]
        placed.append((x, content, row))
    return placed


def _finish_periods(
    axes: Axes, periods: PeriodAxis, drawn: _Drawn, result: FrequencyResult, theme: Theme, every: int = 1
) -> None:
    """Everything that depends on the limits of the axes: K, bands, seeds that did not train, the answer."""
    periods.dress(axes, theme, every)
    _references(axes, result, theme)
    for x, content, row in drawn.lost:
        # Seeds that did not train count at chance, most often far below these axes: they are counted instead of drawn.
        axes.annotate(
            content,
            (x, 0.015),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1.3 * SMALL * row),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=theme.ink,
            path_effects=halo(theme),
        )
    star = with_period(periods.outcomes, result.k_star) if answered(result) else None
    if star is not None:
        _mark_answer(axes, periods.at(star), star, f"K* = {text.period(star.period)}", theme)


def accuracy_against_updates(result: FrequencyResult, theme: Theme) -> Figure:
    """Test accuracy against the number of feature updates, on an axis that is logarithmic and yet has a zero."""
    figure = new_figure(11.5, 6.2)
    axes = figure.subplots()
    periods = PeriodAxis(result.outcomes)
    lines = [
        [(o.feature_updates, 100 * o.test_accuracy.mean) for o in series]
        for series in ([*periods.finite, *periods.lazy], periods.sparse)
    ]
    for line, colour in zip(lines, (theme.grid, theme.accent), strict=True):
        axes.plot([x for x, _ in line], [y for _, y in line], color=colour, linewidth=2, zorder=1)
    axes.set_xscale("symlog", linthresh=1, linscale=0.6)
    most = max([o.feature_updates for o in result.outcomes] + [1.0])
    axes.set_xlim(-0.35, most * 2.2)
    axes.xaxis.set_major_locator(FixedLocator([0.0, *(10.0**e for e in range(math.ceil(math.log10(most)) + 1))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
    for outcome in periods.outcomes:
        colour = periods.colour(outcome, theme)
        draw_mean(axes, outcome.feature_updates, outcome, colour, theme, periods.marker(outcome))
    axes.set_xlabel("feature updates during training")
    axes.set_ylabel("test accuracy, %")
    _limit(axes, [ends_of(outcome.test_accuracy) for outcome in result.outcomes])
    _references(axes, result, theme)
    ordinary = with_period(result.outcomes, 1.0)
    if ordinary is not None:
        floor = 100 * (ordinary.test_accuracy.mean - result.margin)
        lines.append([(x, floor) for x in axes.get_xlim()])
    star = with_period(result.outcomes, result.k_star) if answered(result) else None
    if star is not None:
        answer = f"{text.count(result.sufficient_feature_updates)} suffice"
        _mark_answer(axes, star.feature_updates, star, answer, theme)
        lines.append([(star.feature_updates, y) for y in (100 * star.test_accuracy.mean, axes.get_ylim()[1])])
    _legend(figure, periods, result, theme)
    names = [
        Name(
            o.feature_updates,
            100 * o.test_accuracy.mean,
            *ends_of(o.test_accuracy),
            _short(o),
            periods.colour(o, theme),
        )
        for o in periods.outcomes
    ]
    name_marks(axes, names, lines, theme, SMALL - 0.5)
    return figure


def _short(outcome: ScheduleOutcome) -> str:
    """A name beside a mark, which tells the preset from other periods by its form."""
    sparse = sparse_period(outcome)
    return text.schedule(outcome) if sparse is None else f"K = {text.period(sparse)}"


def _mark_answer(axes: Axes, x: float, outcome: ScheduleOutcome, answer: str, theme: Theme) -> None:
    """A dotted line from the outcome of K* to the top of the axes, with the answer in words above."""
    top = axes.get_ylim()[1]
    mean = 100 * outcome.test_accuracy.mean
    axes.plot([x, x], [mean, top], color=theme.ink, linewidth=1.4, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        answer,
        (x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
        annotation_clip=False,
    )


def selection(result: FrequencyResult) -> list[ScheduleOutcome]:
    """At most six periods that tell the story: ordinary, on the way, K*, beyond it, the largest, lazy."""
    finite = sorted((o for o in result.outcomes if o.period and o.period < math.inf), key=lambda o: o.period or 0)
    lazy = with_period(result.outcomes, math.inf)
    star = next((i for i, o in enumerate(finite) if o.period == result.k_star), 0)
    last = len(finite) - 1
    wanted = sorted({i for i in (0, star, star + 1, (star + 1 + last) // 2, last) if 0 <= i <= last})
    return [finite[i] for i in wanted] + ([lazy] if lazy else [])


def learning_curves(records: FrequencyRecords, theme: Theme) -> Figure:
    """Test accuracy and training loss against the step, mean and interval over seeds."""
    figure = new_figure(13.5, 6.0)
    panels = figure.subplots(1, 2)
    result = records.result
    periods = PeriodAxis(result.outcomes)
    columns = (("test_accuracy", "test accuracy, %", 100.0), ("train_loss", "training loss", 1.0))
    for axes, (column, name, factor) in zip(panels, columns, strict=True):
        ends, lows, highs, longest = [], [], [], 0
        for outcome in selection(result) or result.outcomes[:6]:
            colour = periods.colour(outcome, theme)
            curve = records.curve(outcome, column)
            usable = np.isfinite(curve.mean)
            if column == "train_loss":
                usable &= curve.mean > 0
            if not usable.any():
                continue
            steps, mean = curve.steps[usable], factor * curve.mean[usable]
            low, high = factor * curve.low[usable], factor * curve.high[usable]
            if column == "train_loss":
                low = np.maximum(low, 0.2 * mean)  # an interval of a mean may cross zero, a logarithmic axis may not
            axes.plot(steps, mean, color=colour, zorder=3)
            longest = max(longest, int(curve.steps[-1]))  # where smaller rates take more steps, curves differ in length
            axes.fill_between(steps, low, high, where=np.isfinite(low), color=colour, alpha=0.18, linewidth=0)
            ends.append((mean[-1], text.name_and_lost(text.schedule(outcome), outcome), colour))
            learnt = mean[steps > 0] if column == "test_accuracy" and (steps > 0).any() else mean
            lows.append(learnt.min())  # the untrained network, at step 0, would squeeze all curves together
            highs.append(learnt.max())
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.set_xlim(0, longest or result.num_steps)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.count(value)))
        if column == "train_loss" and lows:
            _log_axis(axes, min(lows), max(highs))
        elif lows:
            axes.set_ylim(max(0.0, min(lows) - 2), min(100.0, max(highs) + 2))
        label_right(axes, ends)
    return figure


def _log_axis(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low / 1.3, high * 1.3)
    # Less than a decade has at most one power of ten in it: name 2 and 5 as well.
    multiples = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=multiples))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text.tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _limit(axes: Axes, shown: Sequence[tuple[float, float]], rows: int = 0) -> None:
    """Limits that hold what is shown, in percent, above so many rows of text."""
    values = np.array(shown, dtype=float).ravel()
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 100.0)
    pad = max(0.5, 0.06 * (high - low))
    below = (1.5 + 0.9 * rows) * pad
    axes.set_ylim(max(-12.0 if rows else -2.0, low - below), min(102.0, high + pad))


def _references(axes: Axes, result: FrequencyResult, theme: Theme) -> None:
    """Bands of ordinary and lazy training and the line one margin below the former, named at their right."""
    labels = []
    for period, name, colour in ((1.0, "ordinary (K = 1)", theme.ordinary), (math.inf, "lazy (K = ∞)", theme.lazy)):
        outcome = with_period(result.outcomes, period)
        if outcome is None:
            continue
        low, high = ends_of(outcome.test_accuracy)
        axes.axhspan(low, high, color=colour, alpha=0.18, linewidth=0, zorder=0)
        mean = 100 * outcome.test_accuracy.mean
        labels.append((mean, f"{name}\n{text.fixed(mean, 1)} %{text.EDGES[outcome.rate_edge]}", colour))
        if period == 1:
            floor = mean - 100 * result.margin
            axes.axhline(floor, color=theme.ordinary, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)
            labels.append((floor, f"margin, {text.short_points(-result.margin)}", theme.ordinary))
    label_right(axes, labels)


def _legend(figure: Figure, periods: PeriodAxis, result: FrequencyResult, theme: Theme) -> None:
    """What faces mean, and the marks of the kinds of schedules where there is more than one."""
    look = {"linestyle": "", "markeredgewidth": 2, "markersize": 9}
    handles = par_handles(result, theme)
    kinds = (
        ("every K steps", [*periods.finite, *periods.lazy]),
        ("preset sparse", periods.sparse),
        ("other schedules", periods.others),
    )
    shown = [(name, outcomes[0]) for name, outcomes in kinds if outcomes]
    for name, outcome in shown if len(shown) > 1 else []:
        colour = theme.middle if outcome.period is not None else periods.colour(outcome, theme)
        handles.append(Line2D([], [], marker=periods.marker(outcome), color=colour, label=name, **look))
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        labelcolor=theme.muted,
        handletextpad=0.2,
        columnspacing=1.4,
    )
