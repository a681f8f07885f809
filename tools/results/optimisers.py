"""The same networks with several optimisers, side by side: what is lost with few feature updates, and the figure."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from tools.results.quantities import study

from relin.report._style import FONT_SIZE, Theme, new_figure
from relin.study import GridResult
from relin.study._judged import DIVERGED, TRAINED
from relin.study._result import ScheduleOutcome

STUDIES = {
    "digits, MLP": {
        "SGD": "frequency-digits-mlp-sgd",
        "Adam": "frequency-digits-mlp-adam",
        "Muon": "frequency-digits-mlp-muon",
    },
    "digits, MLP, longer": {
        "Muon": "frequency-digits-mlp-muon-long",
    },
    "mnist1d, MLP": {
        "SGD": "frequency-mnist1d-mlp-sgd",
        "Adam": "frequency-mnist1d-mlp-adam",
        "Muon": "frequency-mnist1d-mlp-muon",
    },
    "mnist1d, MLP, longer": {
        "Muon": "frequency-mnist1d-mlp-muon-long",
    },
    "Fashion-MNIST, MLP": {"Adam": "frequency-fashion-mlp-adam", "Muon": "frequency-fashion-mlp-muon"},
    "CIFAR-10, MLP": {"Adam": "frequency-cifar-mlp-adam", "Muon": "frequency-cifar-mlp-muon"},
    "mnist1d, CNN": {
        "SGD": "frequency-mnist1d-cnn-sgd",
        "Adam": "frequency-mnist1d-cnn-adam",
        "Muon": "frequency-mnist1d-cnn-muon",
    },
    "mnist1d, CNN, longer": {
        "Muon": "frequency-mnist1d-cnn-muon-long",
    },
    "Fashion-MNIST, CNN": {
        "SGD": "equal-time-fashion-cnn-sgd",
        "Adam": "frequency-fashion-cnn-adam",
        "Muon": "frequency-fashion-cnn-muon",
    },
    "Fashion-MNIST, CNN, longer": {
        "Muon": "equal-time-fashion-cnn-muon",
    },
    "CIFAR-10, CNN": {
        "SGD": "frequency-cifar-cnn-sgd",
        "Adam": "equal-time-cifar-cnn-adam",
        "Muon": "equal-time-cifar-cnn-muon",
    },
    "Fashion-MNIST, LeNet-5": {
        "SGD": "frequency-fashion-lenet-sgd",
        "Adam": "frequency-fashion-lenet-adam",
        "Muon": "frequency-fashion-lenet-muon",
    },
    "Fashion-MNIST, ViT": {
        "SGD": "frequency-fashion-vit-sgd",
        "Adam": "frequency-fashion-vit-adam",
        "Muon": "frequency-fashion-vit-muon",
    },
    "digits, ResNet-18, batch norm": {
        "SGD": "frequency-digits-resnet-sgd",
        "Adam": "frequency-digits-resnet-adam",
        "Muon": "frequency-digits-resnet-muon",
    },
}
SHARES = (0.0, 1.0, 3.5, 10.0)
"""Feature updates in percent of the steps: how many there are at most in a column of the table."""
_COLOURS = {"SGD": "#7570b3", "Adam": "#d95f02", "Muon": "#1b9e77"}
_MARKS = {"SGD": "s", "Adam": "^", "Muon": "o"}


@dataclass(frozen=True)
class Row:
    """A network with one optimiser."""

    network: str
    optimiser: str
    result: GridResult

    @property
    def num_steps(self) -> int:
        return self.result.num_steps  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def ordinary(self) -> ScheduleOutcome:
        found = self.result.outcome("every-1")
        assert found is not None
        return found

    def best(self, share: float) -> ScheduleOutcome | None:
        """The schedule that is best on validation data of those that make at most so many updates, in percent."""
        most = round(share / 100 * self.num_steps)
        own = [o for o in self.result.outcomes if o.feature_updates <= most and o.num_untrained < o.num_seeds]
        return max(own, key=lambda outcome: outcome.validation_accuracy, default=None)


def rows() -> Iterator[Row]:
    for network, studies in STUDIES.items():
        for optimiser, folder in studies.items():
            yield Row(network, optimiser, study(folder)[1])


def folders() -> list[str]:
    """Of the rows of the table, in their order."""
    return [folder for studies in STUDIES.values() for folder in studies.values()]


def at_edges() -> set[tuple[str, str]]:
    """The folders and schedules of the table whose best rate is the largest or the smallest that was offered."""
    return {(f, outcome.schedule) for f in folders() for outcome in study(f)[1].outcomes if outcome.rate_edge}


def gains_by_accuracy_alone() -> list[float | None]:
    """Of each schedule of the table, by the runs of its first seed: none where the rate that is best on validation data
    is one whose run trained, else how many points of test accuracy better that run is than the one at the chosen rate.

    Runs that did not train, by their training loss, count at chance where rates are chosen, whatever their accuracy.
    """
    gains = list[float | None]()
    for folder in folders():
        _, result, records = study(folder)
        ends = records.filter(pl.col("step") == pl.col("run_steps"), pl.col("result") != DIVERGED, seed=0)
        for outcome in result.outcomes:
            own = ends.filter(schedule=outcome.schedule).sort("validation_accuracy")
            chosen = own.filter(learning_rate=outcome.learning_rate).item(0, "test_accuracy")
            best, gain = own.row(-1, named=True), 100 * (own.item(-1, "test_accuracy") - chosen)
            gains.append(None if best["result"] == TRAINED else gain)
    return gains


def draw(theme: Theme) -> Figure:
    """Test accuracy against the feature updates that a run may make, in percent of its steps; K = 1 at the right."""
    figure = new_figure(15.5, 9.4)
    panels = list(figure.subplots(3, 5).flat)
    for axes, network in zip(panels, STUDIES, strict=False):
        _panel(axes, network)
    for axes in panels[len(STUDIES) :]:
        axes.set_axis_off()
    figure.supxlabel("feature updates, at most this share of the steps in %", fontsize=FONT_SIZE)
    figure.supylabel("test accuracy, %", fontsize=FONT_SIZE)
    lines = [Line2D([], [], color=colour, marker=_MARKS[name], label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=lines, loc="outside upper center", ncols=len(lines), frameon=False)
    return figure


def _panel(axes: Axes, network: str) -> None:
    own = [row for row in rows() if row.network == network]
    for row in own:
        points = [(share or 0.25, row.best(share)) for share in SHARES]
        found = [(at, o.test_accuracy) for at, o in [*points, (100.0, row.ordinary)] if o is not None]
        at = [place for place, _ in found]
        mean = [100 * accuracy.mean for _, accuracy in found]
        spread = [
            [100 * (accuracy.mean - accuracy.low) for _, accuracy in found],
            [100 * (accuracy.high - accuracy.mean) for _, accuracy in found],
        ]
        axes.errorbar(
            at,
            mean,
            spread,
            color=_COLOURS[row.optimiser],
            marker=_MARKS[row.optimiser],
            markersize=5,
            capsize=2,
            linewidth=1.2,
        )
    axes.axhline(100 * max(row.ordinary.test_accuracy.mean for row in own), color="#888888", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks([0.25, 1, 3.5, 10, 100])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x == 0.25 else f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(f"{network.removesuffix(', longer')}, {own[0].num_steps:,} steps", fontsize=8.5)
