"""The plan of studies that compare schedules: learning rates are chosen on validation data, then all seeds run."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import polars as pl

from relin.study._grid import Pack, Ranked, Stage, comparison_packs, finals_packs, later_cost, selection_packs
from relin.study._judged import chance_of
from relin.study._outcomes import rank_learning_rates
from relin.study._pack import AbstractPack
from relin.study._plan import AbstractPlan, Read, Train
from relin.study._questions import CONCLUSIONS
from relin.study._result import GridResult
from relin.study._settings import Comparison, GridSpec


class GridPlan(AbstractPlan):
    """The stages are those of `Stage`."""

    stages = {  # noqa: RUF012
        "select": "trying learning rates",
        "finals": "choosing among the best",
        "compare": "comparing schedules",
    }

    def __init__(self, spec: GridSpec):
        self.spec = spec

    @property
    def loss(self) -> Literal["cross-entropy", "squared-error"]:
        return self.spec.loss

    def packs(self, stage: str, before: Sequence[AbstractPack], read: Read, lanes: int) -> list[Pack]:
        widths = self.spec.widths_compared
        if stage == "select":
            return [pack for width in widths for pack in selection_packs(self.spec, lanes, width)]
        records = read(before)
        make = {"finals": finals_packs, "compare": comparison_packs}[stage]
        return [pack for width in widths for pack in make(self.spec, _ranked(self.spec, records, width), lanes, width)]

    def later_cost(self, stage: str) -> int:
        return later_cost(self.spec, cast(Stage, stage))

    def trainer(self, data_dir: str | None) -> Train:
        from relin.study._runner import Runner

        return cast(Any, Runner(self.spec, data_dir).train)

    def conclude(self, records: pl.DataFrame) -> GridResult:
        comparisons = by_comparison(self.spec, records)
        return CONCLUSIONS[self.spec.study](self.spec, comparisons, chance_of(records))


def _ranked(spec: GridSpec, records: pl.DataFrame, width: int | None) -> Ranked:
    """The learning rates of each schedule at a width, the best first."""
    chance = chance_of(records)
    own = records if width is None else records.filter(width=width)
    return {name: rank_learning_rates(part, chance, name) for name, part in by_comparison(spec, own).items()}


def by_comparison(spec: GridSpec, records: pl.DataFrame) -> dict[Comparison, pl.DataFrame]:
    """The records of the runs of each comparison; a run at the reference rate is part of both."""
    rates = records["learning_rate"].unique().to_list()
    parts = dict[Comparison, pl.DataFrame]()
    for comparison in spec.comparisons:
        steps = pl.col("learning_rate").replace_strict(rates, [spec.steps_at(rate, comparison) for rate in rates])
        parts[comparison] = records.filter(pl.col("run_steps") == steps)
    return parts
