"""A study from its settings to its answer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import polars as pl

from relin.study._executor import AbstractExecutor, ThreadExecutor
from relin.study._frequency import choose_learning_rates, frequency_result
from relin.study._grid import Pack, RunSpec, comparison_cost, comparison_packs, parse_schedule, selection_packs
from relin.study._result import FrequencyResult
from relin.study._runner import Runner
from relin.study._spec import FrequencySpec
from relin.study._store import Store


@dataclass(frozen=True)
class Progress:
    """How far a study is, in training steps of all its runs."""

    done: int
    total: int
    stage: str


Report = Callable[[Progress], None]


def run_study(
    spec: FrequencySpec,
    folder: Path,
    *,
    data_dir: str | None = None,
    executor: AbstractExecutor | None = None,
    report: Report = lambda progress: None,
) -> tuple[FrequencyResult, pl.DataFrame]:
    """Trains what is not in the folder yet, and answers the study's question from what is stored there.

    Every finished pack of runs is on disk; killed at any moment, the same call resumes and ends with the same records.

    **Arguments:**

    - `spec`: the settings.
    - `folder`: where records are stored; made if it does not exist.
    - `data_dir`: where the data set's files are looked for first.
    - `executor`: who computes; threads of this process by default.
    - `report`: called with the progress.

    **Returns:** the answer, and the records it rests on.

    **Raises:** `ValueError` for settings that cannot be run or a folder that holds another study; `OSError` where the
    folder cannot be written.
    """
    store = Store(folder)
    runner = Runner(spec, data_dir)
    store.open(spec)
    lanes = _lanes_per_pack()
    executor = executor or ThreadExecutor()
    chance = 1 / runner.dataset.num_classes
    selection = selection_packs(spec, lanes)
    total = sum(pack.cost for pack in selection)
    tracker = _Tracker(report, total + comparison_cost(spec))
    _compute(store, runner, executor, selection, tracker, "trying learning rates")
    chosen = choose_learning_rates(store.read(selection), chance)
    comparison = comparison_packs(spec, chosen, lanes)
    tracker.total = total + sum(pack.cost for pack in comparison)
    _compute(store, runner, executor, comparison, tracker, "comparing schedules")
    records = store.read(selection + comparison)
    return conclude(spec, records), records


def conclude(spec: FrequencySpec, records: pl.DataFrame) -> FrequencyResult:
    """The answer, from stored records only."""
    return frequency_result(
        records,
        margin=spec.margin / 100,
        confidence=spec.confidence,
        num_classes=records.item(0, "num_classes"),
    )


def train_one(
    spec: FrequencySpec,
    schedule: str,
    rate: float,
    seed: int,
    *,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The records of one run with a study's data, network and optimiser.

    **Raises:** `ValueError` for settings that cannot be run.
    """
    run = RunSpec(parse_schedule(schedule), spec.steps, rate, seed)
    return Runner(spec, data_dir).train(Pack("select", (run,)), progress)


class _Tracker:
    """Adds up the progress of packs that are computed at the same time."""

    def __init__(self, report: Report, total: int):
        self.report, self.total, self.done = report, total, 0
        self.partial: dict[str, float] = {}
        self.stage = ""

    def advance(self, pack: Pack, fraction: float) -> None:
        self.partial[pack.name] = fraction * pack.cost
        self.report(Progress(int(self.done + sum(self.partial.values())), self.total, self.stage))

    def finish(self, pack: Pack) -> None:
        self.partial.pop(pack.name, None)
        self.done += pack.cost
        self.report(Progress(int(self.done + sum(self.partial.values())), self.total, self.stage))


def _compute(
    store: Store, runner: Runner, executor: AbstractExecutor, packs: list[Pack], tracker: _Tracker, stage: str
) -> None:
    """Computes the packs that are not stored; those another process works on are waited for at the end."""
    tracker.stage = stage
    for pack in packs:
        if store.finished(pack):
            tracker.finish(pack)
    busy: list[Pack] = []

    def compute(pack: Pack, wait: bool) -> None:
        with store.claim(pack, wait) as claim:
            if claim == "busy":
                busy.append(pack)
            elif claim == "ours":
                records = runner.train(pack, lambda done, total: tracker.advance(pack, done / total))
                store.write(pack, records)

    for pack in executor.run(lambda pack: compute(pack, False), [p for p in packs if not store.finished(p)]):
        if pack not in busy:
            tracker.finish(pack)
    for pack in executor.run(lambda pack: compute(pack, True), list(busy)):
        tracker.finish(pack)


def _lanes_per_pack() -> int:
    """How many runs a pack holds: on CPU few, so that little is lost to a kill; enough to fill an accelerator."""
    return 1 if jax.default_backend() == "cpu" else 128 * jax.device_count()
