"""The report of the width study: *does the NTK move less in wider networks, and does feature learning matter less?*"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from relin.report import _text as text
from relin.report._figures import Plot
from relin.report._page import Report, Tile, constancy_tile, shared_tiles, statistics
from relin.studies.width.figures import Seeds, accuracy_against_width, against_width
from relin.studies.width.result import WidthResult
from relin.studies.width.table import width_csv, width_table
from relin.study._kernel import final_records
from relin.study._result import Interval
from relin.study._scale import Scale

QUESTION = "Does the NTK move less in wider networks?"
_METHOD = (
    "Networks of growing width in NTK parametrisation (Jacot et al. 2018, arXiv:1806.07572), whose initial kernel "
    "tends to a limit that the width does not change, are trained in the ordinary way (K = 1) and lazily (K = ∞), each "
    "at the learning rate chosen for it at that width. The kernel of the network that is being trained, at its anchor, "
    "is computed on a fixed probe set of validation examples; its relative change is ‖K − K₀‖/‖K₀‖ from step 0 to the "
    "end. The theory of wide networks bounds it by a multiple of 1/√width at a fixed training time (Lee et al. 2019, "
    "arXiv:1902.06720), and says the same of the initial kernel’s deviation from that of infinite width, "
    "‖K₀ − Θ_∞‖/‖Θ_∞‖, of which there is a closed form for dense and convolutional networks. A slope is that of the "
    "straight line through logarithm of value against logarithm of width, fitted to each seed’s runs."
)
_COLUMNS = ("width", "schedule", "learning_rate", "seed", "step", "result", "kernel_change")


def page(result: WidthResult, records: pl.DataFrame, spec: Mapping[str, Any]) -> Report:
    """What the page of the width study shows."""
    _check(result, records)
    return Report(
        question=QUESTION,
        tiles=_tiles(result),
        plots=plots(result, _seeds(result, records)),
        tables=[width_table(result)],
        method=[_METHOD, statistics(result)],
        files={"table.csv": width_csv(result)},
    )


def _check(result: WidthResult, records: pl.DataFrame) -> None:
    if not result.widths:
        raise ValueError(
            f"Expected at least one width in the result of study {result.study!r}, got none; run the study before "
            "asking for its report."
        )
    if missing := [name for name in _COLUMNS if name not in records.columns]:
        raise ValueError(
            f"Expected records with the columns {', '.join(_COLUMNS)}, got none named {', '.join(missing)}; pass the "
            "records as the study's store returns them."
        )
    absent = [at.width for at in result.widths if final_records(at.ordinary, records.filter(width=at.width)).is_empty()]
    if absent and any(at.num_seeds for at in result.widths if at.width in absent):
        raise ValueError(
            f"Expected records of width {absent[0]}, got none; pass the records that the result was computed from."
        )


def _seeds(result: WidthResult, records: pl.DataFrame) -> Seeds:
    def of(column: str, step: int | None) -> dict[int, np.ndarray]:
        values = {}
        for at in result.widths if column in records.columns else []:
            own = records.filter(width=at.width)
            rows = final_records(at.ordinary, own)
            if step is not None:
                rows = own.filter(schedule="every-1", learning_rate=at.ordinary.learning_rate, step=step)
            found = rows[column].cast(pl.Float64).drop_nulls().to_numpy()
            values[at.width] = found[np.isfinite(found) & (found > 0)]
        return values

    return Seeds(of("kernel_change", None), of("analytic_deviation", 0))


def _tiles(result: WidthResult) -> list[Tile]:
    narrow, wide = result.widths[0], result.widths[-1]
    _, _, *others = shared_tiles(result)
    tiles = [
        Tile("Kernel change ∝ width to the power", *_slope(result.change_slope, "K = 1; theory: −1/2")),
        *(_gap_tile(at.width, at.gap, result.scale) for at in (narrow, wide)),
    ]
    if result.deviation_slope is not None:
        note = "from the kernel of infinite width; theory: −1/2"
        tiles.append(Tile("Initial deviation ∝ width to the power", *_slope(result.deviation_slope, note)))
    return [*tiles, constancy_tile(result.constancy), *others]


def _slope(slope: Interval | None, note: str) -> tuple[str, str]:
    if slope is None:
        return text.DASH, "too few runs trained"
    return text.fixed(slope.mean, 2), f"{note}, 95 % interval {text.fixed(slope.low, 2)} to {text.fixed(slope.high, 2)}"


def _gap_tile(width: int, gap: Interval, scale: Scale) -> Tile:
    interval = scale.headed(f"95 % interval {scale.to(gap)}", difference=True)
    return Tile(f"K = 1 less K = ∞, width {width:,}", scale.value(gap.mean, 1), interval)


def plots(result: WidthResult, seeds: Seeds) -> list[Plot]:
    """Every figure of the study, in the order of the page, each with the finding as its title."""
    whole = Plot(
        name="width",
        title=_title(result),
        caption="Against the width of the network: relative change of the kernel in ordinary training, test accuracy "
        "of ordinary less that of lazy training paired by seed, and deviation of the initial kernel from that of "
        "infinite width. Means over seeds with 95 % intervals, faint dots are seeds; the dashed line has the slope "
        "−1/2 and passes through the centre of the means.",
        description=f"Kernel change, accuracy gap and deviation against width. {_title(result)}. {_in_words(result)}",
        draw=lambda theme: against_width(result, seeds, theme),
    )
    accuracy = Plot(
        name="accuracy",
        title=_accuracy_title(result),
        caption="Mean test accuracy and its 95 % interval at the learning rate chosen for each width and schedule. "
        f"{text.EDGES_MEAN}.",
        description=f"Test accuracy of ordinary and lazy training against width. {_accuracy_title(result)}.",
        draw=lambda theme: accuracy_against_width(result, theme),
    )
    return [whole, accuracy]


def _title(result: WidthResult) -> str:
    slope, narrow, wide = result.change_slope, result.widths[0], result.widths[-1]
    if slope is None or narrow.change is None or wide.change is None:
        return "Too few runs trained to say how the kernel moves with width"
    ends = f"{text.significant(narrow.change.mean)} at width {narrow.width:,}, {text.significant(wide.change.mean)}"
    return f"Kernel change scales as width to the power {text.fixed(slope.mean, 2)}: {ends} at {wide.width:,}"


def _in_words(result: WidthResult) -> str:
    parts = (
        f"width {at.width}: change {text.significant(at.change and at.change.mean)}, "
        f"gap {result.scale.signed(at.gap.mean)}"
        for at in result.widths
    )
    return "; ".join(parts) + "."


def _accuracy_title(result: WidthResult) -> str:
    if not result.is_comparable:
        return text.NOTHING_TO_COMPARE
    narrow, wide = result.widths[0], result.widths[-1]
    gaps = (
        f"{result.scale.in_points(result.scale.signed(narrow.gap.mean))} at width {narrow.width:,}",
        f"{result.scale.signed(wide.gap.mean)} at {wide.width:,}",
    )
    return f"Ordinary less lazy training: {', '.join(gaps)}"
