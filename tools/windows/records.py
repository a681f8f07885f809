"""What the stored records say, by quantity: the words of docs/windows.md."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tools.windows.theory import LIMIT, growth

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "windows"
PERIOD = 16
NAMES = {"mlp": "MLP", "cnn": "CNN", "lenet5": "LeNet-5", "vit": "ViT"}
_RISEN, _SATURATED, _OVERFLOW = 1.5, 1e3, 1e30


class Records:
    """The records of a folder; no JAX is needed to read them."""

    def __init__(self, folder: Path = FOLDER):
        self._folder = folder

    @cached_property
    def table(self) -> pl.DataFrame:
        """All rows, with `excess_now`, η λ_max over 2 (1 + β) at θ_t, which may be the next anchor; none where the
        loss is so large that the softmax saturates, and λ_max with it."""
        tables = [pl.read_parquet(path) for path in sorted(self._folder.glob("*.parquet"))]
        measured = pl.when(pl.col("sharpness").is_finite() & (pl.col("network_probe_loss") < _SATURATED))
        excess = measured.then(pl.col("sharpness") * pl.col("rate") / LIMIT)
        return pl.concat(tables).with_columns(excess_now=excess).sort("step")

    @cached_property
    def networks(self) -> list[str]:
        return [name for name in NAMES if name in set(self.table["network"])]

    @property
    def with_changes(self) -> list[str]:
        """The networks whose windows were changed too."""
        return [name for name in self.networks if not self.table.filter(network=name, way="clip").is_empty()]

    @property
    def with_excess(self) -> list[str]:
        """The networks whose λ_max was measured."""
        measured = self.table.drop_nulls("excess_now")["network"].unique()
        return [name for name in self.networks if name in set(measured)]

    def run(self, network: str, way: str = "momentum", rate: float = 0.1, period: int = PERIOD) -> pl.DataFrame:
        """The rows of one run."""
        found = self.table.filter(network=network, way=way, rate=rate, period=period)
        if found.is_empty():
            raise ValueError(f"There is no run {network}, {way}, {rate}, K = {period}.")
        return found

    def diverged_at(self, *run: Any, **more: Any) -> int | None:
        return self.run(*run, **more)["diverged_at"][0]

    def largest_excess(self, *run: Any, **more: Any) -> float:
        """Of all anchors of a run, or of all steps at which ordinary training was measured."""
        measured = self.run(*run, **more)["excess_now"].drop_nulls().to_numpy()
        return float(measured.max()) if measured.size else math.nan

    def last_loss(self, *run: Any, **more: Any) -> float:
        return float(self.run(*run, **more)["network_probe_loss"][-1])

    def windows(self, **which: Any) -> pl.DataFrame:
        """Of every window of K steps: the loss it begins with, what the linear model and the network end with, and the
        excess at its anchor, where that was measured; only those whose losses are finite numbers."""
        rows = self.table.filter((pl.col("period") == PERIOD) & (pl.col("step") % PERIOD == 0), **which)
        rows = rows.filter(pl.col("way") != "detailed") if "way" not in which else rows
        run = ["network", "way", "rate"]
        found = rows.with_columns(
            start=pl.col("network_probe_loss"),
            linear=pl.col("probe_loss").shift(-1).over(run),
            network_end=pl.col("network_probe_loss").shift(-1).over(run),
        )
        losses = ("start", "linear", "network_end")
        found = found.filter(*(pl.col(name).is_finite() & (pl.col(name) < _OVERFLOW) for name in losses))
        return found.select(*run, "step", *losses, anchor_excess="excess_now")

    def window(self, network: str, rate: float, step: int, way: str = "momentum") -> dict[str, Any]:
        """The window that begins at a step."""
        return self.windows(network=network, rate=rate, way=way).filter(step=step).row(0, named=True)

    def risen(self, network: str, rate: float, step: int, which: str, way: str = "momentum") -> float:
        """The loss of the linear model, `linear`, or of the network, `network_end`, over that it began with."""
        own = self.window(network, rate, step, way)
        return own[which] / own["start"]

    def loss_at(self, step: int, *run: Any, **more: Any) -> float:
        """The network's loss at a step."""
        return float(self.run(*run, **more).filter(step=step)["network_probe_loss"][0])

    def displacement(self, step: int, *run: Any, **more: Any) -> float:
        """‖δ‖ at the end of the window that ends at a step."""
        return float(self.run(*run, **more).filter(step=step)["displacement_norm"][0])

    def first_rise(self, network: str, rate: float, way: str = "momentum") -> dict[str, Any]:
        """The first window that leaves the network with one and a half times the loss it began with, or none."""
        own = self.windows(network=network, rate=rate, way=way)
        risen = own.filter(pl.col("network_end") > _RISEN * pl.col("start"))
        return risen.row(0, named=True) if risen.height else {}

    def failures(self, *, diverged: bool = False) -> list[dict[str, Any]]:
        """Of every run of SGD's windows in which one leaves the network with half as large a loss again, of those that
        diverged if asked for: the first such window, with `rise`, by what the linear model's own loss rises in it, and
        `lead`, how many windows later one does the same to the linear model's loss, or none."""
        found = list[dict[str, Any]]()
        for network, rate in self.table.filter(way="momentum", period=PERIOD)[["network", "rate"]].unique().iter_rows():
            first = self.first_rise(network, rate)
            if first and (not diverged or self.diverged_at(network, rate=rate)):
                own = self.windows(network=network, rate=rate, way="momentum")
                steps = own.filter(pl.col("linear") > _RISEN * pl.col("start"))["step"]
                lead = (steps[0] - first["step"]) // PERIOD if steps.len() else None
                found.append(first | {"lead": lead, "rise": first["linear"] / first["start"]})
        return found

    def count(self, low: float, high: float, worse: str = "", **which: Any) -> int:
        """The windows of SGD with momentum whose anchor's excess lies between two numbers; if asked for, those that end
        with half as large a loss again of the linear model, `linear`, or of the network, `network_end`."""
        own = self.windows(way="momentum", **which).filter(pl.col("anchor_excess").is_between(low, high))
        return _count(own, worse)

    def count_saturated(self, worse: str = "") -> int:
        """The same of the windows that begin at a loss above 1000, whose excess says nothing."""
        return _count(self.windows(way="momentum").filter(pl.col("start") >= _SATURATED), worse)

    def rates(self) -> str:
        """A table: for every network and rate, windows against ordinary training."""
        head = ("", "rate", "K = 16", "rate × steps", "excess at its anchor", "linear model", "network")
        head += ("ordinary training: loss at the end", "largest excess")
        rows = list[tuple[str, ...]]()
        for network in self.networks:
            for rate in sorted(self.table.filter(network=network, way="momentum")["rate"].unique(), reverse=True):
                end, first = self.diverged_at(network, rate=rate), self.first_rise(network, rate)
                plain = {"rate": rate, "period": 1}
                row = (
                    NAMES[network],
                    f"{rate:g}",
                    f"diverged at {end}" if end else f"ends at {self.last_loss(network, rate=rate):.2f}",
                )
                row += (f"{rate * end:.1f}" if end else "–",)
                if first:
                    ends = (first[name] / first["start"] for name in ("linear", "network_end"))
                    row += (_excess(first["anchor_excess"]), *(f"× {_short(value)}" for value in ends))
                else:
                    row += (f"{_excess(self.largest_excess(network, rate=rate))} at most", "–", "–")
                ordinary = self.last_loss(network, **plain), self.largest_excess(network, **plain)
                rows.append((*row, *map(_excess, ordinary)))
        return _table(head, rows)

    def changes(self, ways: dict[str, str]) -> str:
        """A table: for every network, what the windows come to with other steps in them, by names for people."""
        networks = self.with_changes
        head = ("", *(NAMES[network] for network in networks))
        rows = [(label, *(self._change(network, way) for network in networks)) for way, label in ways.items()]
        return _table(head, rows)

    def _change(self, network: str, way: str) -> str:
        period = 1 if way == "ordinary" else PERIOD
        own = self.table.filter(network=network, period=period, way="momentum" if period == 1 else way)
        if own.is_empty():
            return "–"
        rate = float(own["rate"].to_numpy().max())
        run = {"way": own["way"][0], "rate": rate, "period": period}
        end, largest = self.diverged_at(network, **run), self.largest_excess(network, **run)
        shown = f"diverged at {end}" if end else f"{self.last_loss(network, **run):.2f}"
        return f"{shown} ({largest:.2g})"

    def frozen(self, network: str, rate: float, first: int) -> pl.DataFrame:
        """One window after `first` steps of ordinary training; its first row is the anchor."""
        found = self.table.filter(network=network, way="frozen", rate=rate, first=first)
        at_anchor = pl.when(pl.col("step") == first)
        anchored = at_anchor.then(pl.col("network_probe_loss")).otherwise(pl.col("probe_loss"))
        return found.with_columns(probe_loss=anchored)

    def frozen_window(self, network: str, rate: float, first: int) -> dict[str, float]:
        """Its losses and excesses at both ends."""
        own = self.frozen(network, rate, first)
        linear, now, excess = own["probe_loss"], own["network_probe_loss"], own["excess_now"].drop_nulls()
        ends = {"start": linear[0], "linear": linear[-1], "network_end": now[-1]}
        return ends | {"anchor_excess": excess[0], "excess_end": excess[-1]}

    def exact(self, network: str, loss: str, excess: float) -> pl.DataFrame:
        """Full-batch descent from rest at one anchor."""
        return self.table.filter((pl.col("excess") - excess).abs() < 1e-6, network=network, way="exact", loss=loss)

    def measured_growth(self, network: str, loss: str, excess: float, until: float = math.inf) -> float:
        """By what δ's fastest part grows a step: half the slope of the logarithm of the loss over the last steps with a
        loss below `until` times the first, a third of them at least eight."""
        losses = self.exact(network, loss, excess)["probe_loss"].cast(pl.Float64).to_numpy()
        usable = np.flatnonzero(np.isfinite(losses) & (losses < min(until * losses[0], _OVERFLOW)))
        last = int(usable[-1])
        first = max(0, last - max(8, last // 3))
        return float(np.exp(0.5 * np.polyfit(np.arange(first, last + 1), np.log(losses[first : last + 1]), 1)[0]))

    def growths(self, network: str) -> str:
        """A table: growth at one anchor against theory's."""
        excesses = sorted(self.table.filter(way="exact", loss="SquaredError")["excess"].unique())
        rows = [("theory, × a step", *(f"{growth(e):.3f}" if e > 1 else "–" for e in excesses))]
        rows += [("measured, squared error", *(self._grown(network, "SquaredError", e) for e in excesses))]
        entropy = [self.exact(network, "CrossEntropy", e)["probe_loss"].to_numpy() for e in excesses]
        rows += [("cross-entropy: loss at its highest, over the first", *(f"{x.max() / x[0]:.2f}" for x in entropy))]
        rows += [("at the last step", *(f"{x[-1] / x[0]:.2f}" for x in entropy))]
        return _table(("excess", *(f"{e:g}" for e in excesses)), rows)

    def _grown(self, network: str, loss: str, excess: float) -> str:
        return f"{self.measured_growth(network, loss, excess):.3f}" if excess > 1 else "–"

    def predicted_growth(self, excess: float) -> float:
        return growth(excess)


def _count(windows: pl.DataFrame, worse: str) -> int:
    """All of them, or those that end with half as large a loss again of the linear model or of the network."""
    return windows.filter(pl.col(worse) > _RISEN * pl.col("start")).height if worse else windows.height


def _excess(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}" if value < 1e4 else f"{value:.0e}".replace("e+0", " · 10^")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))
