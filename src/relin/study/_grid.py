"""From a spec to runs, and from runs to packs that share one compiled program."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

from relin.study._spec import FrequencySpec

Stage = Literal["select", "compare"]


@dataclass(frozen=True, order=True)
class Schedule:
    """A schedule as the records name it."""

    kind: Literal["every", "when-error"]
    value: float

    @property
    def name(self) -> str:
        if self.kind == "every":
            return "never" if math.isinf(self.value) else f"every-{int(self.value)}"
        return f"when-error-{repr(float(self.value)).removesuffix('.0')}"

    @property
    def period(self) -> float | None:
        return self.value if self.kind == "every" else None


def parse_schedule(name: str) -> Schedule:
    """The schedule of a name as the records have it. Raises `ValueError` for another one."""
    if name == "never":
        return Schedule("every", math.inf)
    period, tolerance = name.removeprefix("every-"), name.removeprefix("when-error-")
    if period != name and period.isdecimal() and int(period) >= 1:
        return Schedule("every", int(period))
    if tolerance != name and _is_number(tolerance):
        return Schedule("when-error", float(tolerance))
    raise ValueError(
        f"The schedule must be every-K (K = 1, 2, …), never or when-error-TOLERANCE, got {name!r}; "
        "for example every-64 or when-error-0.1."
    )


def _is_number(text: str) -> bool:
    try:
        return 0 <= float(text) < math.inf
    except ValueError:
        return False


@dataclass(frozen=True, order=True)
class RunSpec:
    """One run of a study."""

    schedule: Schedule
    num_steps: int
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Pack:
    """Runs trained together as lanes of one program: the unit of work and of storage."""

    stage: Stage
    runs: tuple[RunSpec, ...]

    @property
    def kind(self) -> str:
        return self.runs[0].schedule.kind

    @property
    def num_steps(self) -> int:
        return self.runs[0].num_steps

    @cached_property
    def name(self) -> str:
        """Unique in its study, the same on every machine."""
        text = json.dumps([asdict(run) for run in self.runs], sort_keys=True)
        seeds = sorted({run.seed for run in self.runs})
        return f"{self.stage}-{self.kind}-seed{seeds[0]:03d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def cost(self) -> int:
        """Steps of all its runs, for progress bars."""
        return len(self.runs) * self.num_steps


def schedules(spec: FrequencySpec) -> list[Schedule]:
    return [Schedule("every", k) for k in spec.periods] + [Schedule("when-error", e) for e in spec.tolerances]


def selection_packs(spec: FrequencySpec, lanes: int) -> list[Pack]:
    """The first stage: every schedule at every rate, with the first few seeds."""
    seeds = range(min(spec.select_seeds, spec.seeds))
    runs = [
        RunSpec(schedule, spec.steps_at(rate), rate, seed)
        for seed in seeds
        for rate in spec.learning_rates
        for schedule in schedules(spec)
    ]
    return _pack("select", runs, lanes)


def comparison_packs(spec: FrequencySpec, chosen: dict[str, float], lanes: int) -> list[Pack]:
    """The second stage: every schedule at its own rate, with the other seeds."""
    runs = [
        RunSpec(schedule, spec.steps_at(chosen[schedule.name]), chosen[schedule.name], seed)
        for seed in range(min(spec.select_seeds, spec.seeds), spec.seeds)
        for schedule in schedules(spec)
    ]
    return _pack("compare", runs, lanes)


def comparison_cost(spec: FrequencySpec) -> int:
    """Steps of the second stage, at most, before the rates are chosen."""
    longest = max(spec.steps_at(rate) for rate in spec.learning_rates)
    seeds = max(0, spec.seeds - spec.select_seeds)
    return longest * seeds * len(schedules(spec))


def _pack(stage: Stage, runs: Iterable[RunSpec], lanes: int) -> list[Pack]:
    """Runs of one program in their order, in packs of whole (seed, rate) groups of about `lanes` runs.

    Groups are equally large, so that packs are, and one compilation serves them all.
    """

    def program(run: RunSpec) -> tuple[str, int]:
        return run.schedule.kind, run.num_steps

    packs = []
    for _, group in groupby(sorted(runs, key=program), key=program):
        members = list(group)
        width = max(1, sum(run.seed == members[0].seed for run in members) if stage == "compare" else _width(members))
        groups = math.ceil(len(members) / width)
        count = math.ceil(groups / max(1, round(lanes / width)))
        size = math.ceil(groups / count) * width
        packs += [Pack(stage, tuple(part)) for part in _chunks(members, size)]
    return sorted(packs, key=lambda pack: (min(run.seed for run in pack.runs), pack.kind != "every"))


def _width(runs: list[RunSpec]) -> int:
    """The number of runs that share a seed and a rate."""
    first = runs[0]
    return sum(run.seed == first.seed and run.learning_rate == first.learning_rate for run in runs)


def _chunks(items: list[RunSpec], size: int) -> Iterator[list[RunSpec]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
