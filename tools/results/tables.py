"""What is written whole from the stored records: tables, and verdicts as quotations."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import product, takewhile
from typing import cast

from tools.results import optimisers
from tools.results.gallery import gallery
from tools.results.quantities import Quantities, percent, study
from tools.windows.records import Records

from relin.report import _text as text
from relin.studies.frequency.settings import FrequencySpec
from relin.studies.layers.result import LayersResult
from relin.study import Condition, conclude, parse_condition
from relin.study._result import Interval, ScheduleOutcome

_WIDTH = 126
_WINDOWS = Records()


class Words(Quantities):
    """All words of expressions."""

    def __call__(self, folder: str, expression: str) -> object:
        """The value of an expression, of the texts of this repository only, over the public methods."""
        self.folder = folder
        words = {name: getattr(self, name) for name in dir(self) if not name.startswith("_") and name != "folder"}
        return eval(expression, {"percent": percent, **words})

    def windows(self) -> Records:
        """What the records of docs/windows say."""
        return _WINDOWS

    def gallery(self) -> str:
        """All studies of docs/results as cards: question, specimen, verdict, figure."""
        return gallery(self.folders())

    def verdict(self, of: str | None = None, *, equal_steps: bool = False) -> str:
        """The verdict as a quotation, of the comparison at equal steps alone if asked for."""
        folder = of or self.folder
        spec, result, records = study(folder)
        if equal_steps:
            result = conclude(cast(FrequencySpec, spec).model_copy(update={"comparison": "equal-steps"}), records)
        lines = textwrap.wrap(result.verdict.replace("*", "\\*"), _WIDTH, break_on_hyphens=False)
        return "\n".join(f"> {line}" for line in lines)

    def fewest(self, folders: Mapping[str, str]) -> str:
        """By names for people, frequency studies: the fewest updates on par, and what is lost without any."""
        rows = list[Sequence[str]]()
        for name, folder in folders.items():
            result = self.result(folder)
            found = result.outcome(result.fewest_updates or "")
            ordinary, lazy = self.outcome("every-1", folder), result.outcome("never")
            updates = ordinary.feature_updates if found is None else found.feature_updates
            fewest = (
                f"none shown below {updates:.0f}" if found is None else f"{updates:.3g}: {found.label}{_edge(found)}"
            )
            share = "all" if found is None else f"{100 * updates / result.num_steps:.2g} % of {result.num_steps}"
            gap = "–" if lazy is None else _interval(self.lazy_gap(folder))
            rates = (text.chosen_rate(ordinary), "–" if lazy is None else text.chosen_rate(lazy))
            rows.append((name, f"{100 * result.margin:g}", fewest, share, gap, *rates))
        shown = ("data, network", "margin", "fewest updates on par", "of steps", "lazy gap, points")
        head = (*shown, "rate of K = 1", "of K = ∞")
        return _table(head, rows)

    def accuracies(self, folders: Mapping[str, str]) -> str:
        """By names for people, studies: how every schedule came out at its learning rate."""
        outcomes = [outcome for folder in folders.values() for outcome in self.result(folder).outcomes]
        outcomes.sort(key=lambda outcome: math.inf if outcome.period is None else min(outcome.period, 1e9))
        labels = {outcome.schedule: outcome.label for outcome in outcomes}
        head = ["schedule"]
        for name in folders:
            of = f"{name}: " if len(folders) > 1 else ""
            head += [f"{of}test accuracy, %", "feature updates", "rate"]
        rows = [
            [label, *(cell for folder in folders.values() for cell in self._cells(schedule, folder))]
            for schedule, label in labels.items()
        ]
        return _table(head, rows)

    at_edges = staticmethod(optimisers.at_edges)
    gains_by_accuracy_alone = staticmethod(optimisers.gains_by_accuracy_alone)
    of_optimisers = staticmethod(optimisers.folders)

    def by_optimiser(self) -> str:
        """Networks with several optimisers: points lost to ordinary training with the same optimiser, by updates."""
        shown = list[Sequence[str]]()
        for row in optimisers.rows():
            cells = [_lost(row.best(share)) for share in optimisers.SHARES]
            ordinary = f"{_accuracy(row.ordinary)}{_edge(row.ordinary)}"
            shown.append((row.network, row.optimiser, f"{row.num_steps:,}", ordinary, *cells))
        most = ("no updates", *(f"at most {share:g} % of T" for share in optimisers.SHARES[1:]))
        return _table(("data, network", "", "T", "K = 1, %", *most), shown)

    def by_updates(self, folders: Mapping[str, str]) -> str:
        """By names for people, studies of periods: test accuracy or R², in percent, by the feature updates of a run.

        The last columns are the fewest updates on par together with every larger number tested, and those that close
        half and nine tenths of the gap between lazy and ordinary training.
        """
        periodic = {f: [o for o in self.outcomes(of=f) if o.period is not None] for f in folders.values()}
        numbers = sorted({round(o.feature_updates) for outcomes in periodic.values() for o in outcomes})
        rows = list[Sequence[str]]()
        for name, folder in folders.items():
            found = {round(o.feature_updates): o for o in periodic[folder]}
            reached = [_accuracy(found[n]) + _edge(found[n]) if n in found else "–" for n in numbers]
            on_par = list(takewhile(lambda outcome: outcome.on_par, periodic[folder][1:]))
            fewest = f"{on_par[-1].feature_updates:.0f}" if on_par else "all"
            rows.append((name, *reached, fewest, *(f"{self.closes(share, folder)}" for share in (0.5, 0.9))))
        return _table(("n =", *map(str, numbers), "on par", "half the gap", "nine tenths"), rows)

    def _cells(self, schedule: str, folder: str) -> Sequence[str]:
        found = self.result(folder).outcome(schedule)
        if found is None:
            return ("–", "–", "–")
        if found.num_untrained == found.num_seeds:
            return (f"all {text.untrained_words(found.num_diverged, found.num_failed)}", "–", "–")
        return (_accuracy(found), _updates(found), text.chosen_rate(found))

    def layers(self, folders: Mapping[str, str]) -> str:
        """By names for people, layers studies: every layer alone rich, and alone lazy."""
        results: list[LayersResult] = [self.result(folder) for folder in folders.values()]
        ways = ("rich, over lazy training", "lazy, from K = 1")
        head = ["", *(f"{name}: {way}" for name in folders for way in ways)]
        rows = [
            [layer.layer, *(cell for result in results for cell in _of_layer(result, layer.layer))]
            for layer in results[0].layers
        ]
        whole = [cell for result in results for cell in _of_all_layers(result)]
        return _table(head, [*rows, ["all", *whole]])

    def rates_that_train(self, folders: Mapping[str, str]) -> str:
        """By names for people, stability studies: the largest rate at which every run trained, by period."""
        limits = {
            name: [(parse_condition(each.schedule), each.largest_rate) for each in self.limits(of=folder)]
            for name, folder in folders.items()
        }
        kinds = dict.fromkeys(_kind(method) for own in limits.values() for method, _ in own)
        head = ["schedule"]
        for name, folder in folders.items():
            periods = dict.fromkeys(f"{m.value:g}" for m, _ in limits[name] if _kind(m) == _PERIODS)
            head.append(f"{name}: K of {', '.join(periods)}; rates to {self.spec(folder).learning_rates[0]:g}")
        rows = [[kind] for kind in kinds]
        for own, (kind, row) in product(limits.values(), zip(kinds, rows, strict=True)):
            found = [f"{rate:g}" if rate else "none" for method, rate in own if _kind(method) == kind]
            row.append(", ".join(found) or "–")
        return _table(head, rows)

    def fronts(self, folders: Mapping[str, str]) -> str:
        """By names for people, stability studies: which schedules no other beats with as few updates."""
        rows = list[Sequence[str]]()
        for name, folder in folders.items():
            front = [self.outcome(schedule, folder) for schedule in self.result(folder).pareto]
            shown = [f"{o.label}{_edge(o)}: {_updates(o)} updates, {_accuracy(o)} %" for o in front]
            rows.append((name, "; ".join(shown)))
        return _table(("", "fewest updates first"), rows)


_PERIODS = "K alone"


def _kind(condition: Condition) -> str:
    """A schedule of no fixed period as it is called, others by what goes with them."""
    if condition.kind != "every" or condition.value in (1, math.inf):
        return condition.label
    return f"K, {', '.join(modifier.label for modifier in condition.modifiers)}" if condition.modifiers else _PERIODS


def _of_layer(result: LayersResult, name: str) -> list[str]:
    (layer,) = (layer for layer in result.layers if layer.layer == name)
    ways = ((layer.rich, layer.gain), (layer.lazy, layer.loss))
    return [_signed(percent(cast(Interval, value))) + _edge(result.outcome(schedule)) for schedule, value in ways]


def _of_all_layers(result: LayersResult) -> list[str]:
    gap, edge = percent(cast(Interval, result.lazy_gap)).mean, _edge(result.outcome("never"))
    return [f"{_plus(gap)}{edge}", f"{_plus(-gap)}{edge}"]


def _edge(outcome: ScheduleOutcome | None) -> str:
    return "" if outcome is None else text.EDGES[outcome.rate_edge]


def _updates(outcome: ScheduleOutcome) -> str:
    return f"{outcome.feature_updates:.0f}" if outcome.feature_updates >= 100 else f"{outcome.feature_updates:.3g}"


def _accuracy(outcome: ScheduleOutcome) -> str:
    lost = text.untrained_words(outcome.num_diverged, outcome.num_failed)
    return f"{100 * outcome.test_accuracy.mean:.1f}" + (f" (of {outcome.num_seeds} runs {lost})" if lost else "")


def _lost(outcome: ScheduleOutcome | None) -> str:
    """Points lost, and the mean number of updates; in bold where the schedule is on par."""
    if outcome is None or outcome.difference is None:
        return "–"
    difference = percent(outcome.difference)
    mean, low, high = (_number(-value, 1) for value in (difference.mean, difference.high, difference.low))
    lost = f"{mean} [{low}, {high}]{_edge(outcome)}"
    number = f", n = {_updates(outcome)}" if outcome.feature_updates else ""
    return f"**{lost}**{number}" if outcome.on_par else f"{lost}{number}"


def _plus(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{_number(value)}"


def _number(value: float, decimals: int = 2) -> str:
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def _interval(value: Interval) -> str:
    return f"{_number(value.mean)} [{_number(value.low)}, {_number(value.high)}]"


def _signed(value: Interval) -> str:
    return f"{_plus(value.mean)} [{_number(value.low)}, {_number(value.high)}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, with what its marks mean below it."""
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))
    marked = any(mark and mark in table for mark in text.EDGES.values())
    return f"{table}\n\n{text.EDGES_MEAN}." if marked else table
