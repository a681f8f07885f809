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

Stage = Literal["select", "finals", "compare"]


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
    """The first stage: every schedule at every rate, with the first seed, or with all that choose the rates."""
    seeds = range(1 if spec.finalists else _selecting(spec))
    return _pack("select", _runs(spec, seeds, dict.fromkeys(_names(spec), spec.learning_rates)), lanes)


def finals_packs(spec: FrequencySpec, ranked: dict[str, list[float]], lanes: int) -> list[Pack]:
    """The second stage, if there is one: every schedule at the best of its rates, with the other seeds that choose."""
    if not spec.finalists:
        return []
    best = {name: rates[: spec.finalists] for name, rates in ranked.items()}
    return _pack("finals", _runs(spec, range(1, _selecting(spec)), best), lanes)


def comparison_packs(spec: FrequencySpec, ranked: dict[str, list[float]], lanes: int) -> list[Pack]:
    """The last stage: every schedule at its own rate, with all other seeds."""
    best = {name: rates[:1] for name, rates in ranked.items()}
    return _pack("compare", _runs(spec, range(_selecting(spec), spec.seeds), best), lanes)


def later_cost(spec: FrequencySpec, stage: Stage) -> int:
    """Steps of all stages after this one, at most, before their rates are known."""
    longest = max(spec.steps_at(rate) for rate in spec.learning_rates) * len(schedules(spec))
    finals = min(spec.finalists or 0, len(spec.learning_rates)) * (_selecting(spec) - 1)
    compared = spec.seeds - _selecting(spec)
    return longest * {"select": finals + compared, "finals": compared, "compare": 0}[stage]


def _selecting(spec: FrequencySpec) -> int:
    return min(spec.select_seeds, spec.seeds)


def _names(spec: FrequencySpec) -> list[str]:
    return [schedule.name for schedule in schedules(spec)]


def _runs(spec: FrequencySpec, seeds: Iterable[int], rates: dict[str, list[float]]) -> list[RunSpec]:
    """Every schedule at its rates, which are as many for each; the runs of a pack stand together."""
    places = range(max(len(own) for own in rates.values()))
    return [
        RunSpec(schedule, spec.steps_at(rates[schedule.name][place]), rates[schedule.name][place], seed)
        for seed in seeds
        for place in places
        for schedule in schedules(spec)
    ]


def _pack(stage: Stage, runs: Iterable[RunSpec], lanes: int) -> list[Pack]:
    """Runs of one program in their order, in packs of whole groups, one run of each schedule, of about `lanes` runs.

    Groups are equally large, so that packs are, and one compilation serves them all.
    """

    def program(run: RunSpec) -> tuple[str, int]:
        return run.schedule.kind, run.num_steps

    packs = []
    for _, group in groupby(sorted(runs, key=program), key=program):
        members = list(group)
        width = len({run.schedule for run in members})
        groups = math.ceil(len(members) / width)
        count = math.ceil(groups / max(1, round(lanes / width)))
        size = math.ceil(groups / count) * width
        packs += [Pack(stage, tuple(part)) for part in _chunks(members, size)]
    return sorted(packs, key=lambda pack: (min(run.seed for run in pack.runs), pack.kind != "every"))


def _chunks(items: list[RunSpec], size: int) -> Iterator[list[RunSpec]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
