"""Studies that compare schedules: learning rates are chosen on validation data, then all seeds run."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from relin.study._abstract import AbstractStudy, Read, Train
from relin.study._condition import Condition
from relin.study._grid import (
    Beyond,
    Job,
    Ranked,
    Stage,
    comparison_jobs,
    finals_jobs,
    follow_jobs,
    later_cost,
    no_extra_steps,
    selection_jobs,
)
from relin.study._job import AbstractJob
from relin.study._settings import Comparison, GridSpec

if TYPE_CHECKING:  # settings are checked before these are imported
    import polars as pl

    from relin.study._result import GridResult
    from relin.study._runner import Runner

Spec = TypeVar("Spec", bound=GridSpec)


class AbstractGridStudy(AbstractStudy[Spec]):
    """A study whose settings name the schedules; the stages are those of `Stage`."""

    shows_schedules: ClassVar = True

    stages: ClassVar = {
        "select": "trying learning rates",
        "follow": "following the best rates outwards",
        "finals": "choosing among the best",
        "compare": "comparing schedules",
    }

    def rounds(self) -> dict[str, str]:
        """With a stage `follow-N` for each round of following the best rates outwards."""
        numbers = {"follow": [f"-{n}" for n in range(1, self.spec.follow_edges + 1)]}
        return {stage + number: name for stage, name in self.stages.items() for number in numbers.get(stage, [""])}

    @property
    def loss(self) -> Literal["cross-entropy", "squared-error"]:
        return self.spec.loss

    def answer(self, records: "dict[Comparison, pl.DataFrame]", chance: float) -> "GridResult":
        """From the records of each comparison, and the accuracy at which a run that did not train counts.

        That of the function `conclude` of `conclude.py` beside it.
        """
        return self.beside("conclude").conclude(self.spec, records, chance)

    @classmethod
    def modules_needed(cls) -> list[str]:
        own = ["conclude"] if cls.answer is AbstractGridStudy.answer else []
        return [*super().modules_needed(), *own]

    def observers(self, extra_rate: float | None, runner: Any) -> Sequence[Any]:
        """The `relin.AbstractObserver`s of this study beside those of all.

        **Arguments:**

        - `extra_rate`: of a job of runs with `extra_steps`; none for others.
        - `runner`: the `Runner` that trains, with its data.
        """
        del extra_rate, runner
        return ()

    def extra_steps(self, condition: Condition) -> int:
        """Steps beside its own that measuring a run takes in the stage that compares schedules; none for most."""
        return no_extra_steps(condition)

    def extra_rate(self, ranked: Ranked) -> float | None:
        """The learning rate of these steps."""
        del ranked
        return None

    def jobs(self, stage: str, before: Sequence[AbstractJob], read: Read, lanes: int) -> list[Job]:
        cells = self.spec.cells()
        if stage == "select":
            return [job for cell in cells for job in selection_jobs(cell, lanes)]
        records = read(before)
        if stage.startswith("follow-"):
            return [job for cell in cells for job in follow_jobs(cell, self._beyond(records, cell), lanes)]
        if stage == "finals":
            return [job for cell in cells for job in finals_jobs(cell, self._ranked(records, cell), lanes)]
        jobs = list[Job]()
        for cell in cells:
            ranked = self._ranked(records, cell)
            jobs += comparison_jobs(cell, ranked, lanes, self.extra_steps, self.extra_rate(ranked))
        return jobs

    def _ranked(self, records: "pl.DataFrame", cell: GridSpec) -> Ranked:
        """The learning rates of each schedule of a cell, the best first."""
        from relin.study._judged import chance_of
        from relin.study._outcomes import margin_of, rank_learning_rates

        chance, margin, parts = chance_of(records), margin_of(cell, records), _of_cell(records, cell)
        return {name: rank_learning_rates(part, chance, name, margin) for name, part in parts.items()}

    def _beyond(self, records: "pl.DataFrame", cell: GridSpec) -> Beyond:
        """The next learning rates of a cell."""
        from relin.study._edges import rates_beyond

        ranked = self._ranked(records, cell)
        return {name: rates_beyond(part, ranked[name]) for name, part in _of_cell(records, cell).items()}

    def later_cost(self, stage: str) -> int:
        kind, _, number = stage.partition("-")
        rounds = self.spec.follow_edges - int(number or 0)
        return sum(later_cost(cell, cast(Stage, kind), rounds, self.extra_steps) for cell in self.spec.cells())

    def runner(self, data_dir: str | None) -> "Runner":
        """Data and networks, made once. Raises `ValueError` for those that do not exist or do not fit."""
        from relin.study._runner import Runner

        if data_dir not in self._runners:
            self._runners[data_dir] = Runner(self.spec, data_dir, self)
        return self._runners[data_dir]

    @cached_property
    def _runners(self) -> "dict[str | None, Runner]":
        return {}

    def trainer(self, data_dir: str | None) -> Train:
        return cast(Any, self.runner(data_dir).train_kept)

    def conclude(self, records: "pl.DataFrame") -> "GridResult":
        from relin.study._judged import chance_of
        from relin.study._verdict import in_measure

        result = self.answer(by_comparison(self.spec, records), chance_of(records))
        return result.model_copy(update={"verdict": in_measure(result.verdict, result.measure)})


def _of_cell(records: "pl.DataFrame", cell: GridSpec) -> "dict[Comparison, pl.DataFrame]":
    import polars as pl

    place = cell.place
    return by_comparison(cell, records if place is None else records.filter(pl.col(place.axis) == place.value))


def by_comparison(spec: GridSpec, records: "pl.DataFrame") -> "dict[Comparison, pl.DataFrame]":
    """The records of the runs of each comparison; a run at the reference rate is part of both."""
    import polars as pl

    if spec.place is None and spec.axis is not None:
        return dict.fromkeys(spec.comparisons, records)
    rates = records["learning_rate"].unique().to_list()
    parts: dict[Comparison, pl.DataFrame] = {}
    for comparison in spec.comparisons:
        steps = pl.col("learning_rate").replace_strict(rates, [spec.steps_at(rate, comparison) for rate in rates])
        parts[comparison] = records.filter(pl.col("run_steps") == steps)
    return parts
