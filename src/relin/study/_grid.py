"""From a spec to runs, and from runs to packs that share one compiled program."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal

from relin.study._method import Method, parse_method
from relin.study._pack import AbstractPack, Identity
from relin.study._settings import Comparison, GridSpec, Place

Stage = Literal["select", "finals", "compare"]


@dataclass(frozen=True, order=True)
class RunSpec:
    """One run of a study."""

    method: Method
    num_steps: int
    learning_rate: float
    seed: int
    place: Place | None = None
    """On the axis of a study that has one."""

    @property
    def identity(self) -> Identity:
        value = None if self.place is None else self.place.value
        return self.method.name, self.num_steps, self.learning_rate, self.seed, value


@dataclass(frozen=True)
class Pack(AbstractPack):
    """Runs trained together as lanes of one program."""

    stage: Stage
    runs: tuple[RunSpec, ...]
    weight: int = 1
    """About how many times as much a step costs as those of other packs."""
    extra_rate: float | None = None
    """Learning rate of what else is trained to measure the runs, see `AbstractGridStudy.extra_steps`."""
    extra_steps: int = 0
    """Its steps, of all runs together."""

    @property
    def program(self) -> str:
        return self.runs[0].method.program

    @property
    def num_steps(self) -> int:
        return self.runs[0].num_steps

    @property
    def name(self) -> str:
        return _name(self)

    @property
    def place(self) -> Place | None:
        return self.runs[0].place

    @property
    def identities(self) -> set[Identity]:
        return {run.identity for run in self.runs}

    @property
    def cost(self) -> int:
        return len(self.runs) * self.num_steps * self.weight + self.extra_steps


@cache
def _name(pack: Pack) -> str:
    runs = [_described(run) for run in pack.runs]
    text = json.dumps(runs if pack.extra_rate is None else [*runs, pack.extra_rate], sort_keys=True)
    seeds = sorted({run.seed for run in pack.runs})
    return f"{pack.stage}-{pack.program}-seed{seeds[0]:03d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _described(run: RunSpec) -> dict[str, Any]:
    fields = asdict(run)
    place = fields.pop("place")
    return fields if place is None else {**fields, run.place.axis: run.place.value}  # pyright: ignore


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise ValueError(f"The seed must be from 0 to 2147483647, got {seed}; for example 0.")


def single_run(spec: GridSpec, schedule: str, rate: float, seed: int) -> Pack:
    """A pack of one run, by the name of its schedule.

    **Raises:** `ValueError` for numbers that cannot be run.
    """
    if not 1e-30 <= rate <= 1e30:
        raise ValueError(
            f"The learning rate must be above 0 and finite, from 1e-30 to 1e30, got {rate:g}; for example 0.03."
        )
    check_seed(seed)
    return Pack("select", (RunSpec(parse_method(schedule), spec.steps, rate, seed),))


Ranked = dict[Comparison, dict[str, list[float]]]
"""For each comparison, the learning rates of each schedule by name, the best first."""


def selection_packs(spec: GridSpec, lanes: int) -> list[Pack]:
    """The first stage: every schedule at every rate, with the first seed, or with all that choose the rates."""
    seeds = range(1 if spec.finalists else _selecting(spec))
    rates = {method.name: spec.learning_rates for method in spec.all_methods()}
    return _pack(spec, "select", _runs(spec, seeds, dict.fromkeys(spec.comparisons, rates)), lanes)


def finals_packs(spec: GridSpec, ranked: Ranked, lanes: int) -> list[Pack]:
    """The second stage, if there is one: every schedule at the best of its rates, with the other seeds that choose."""
    if not spec.finalists:
        return []
    return _pack(spec, "finals", _runs(spec, range(1, _selecting(spec)), _best(ranked, spec.finalists)), lanes)


ExtraSteps = Callable[[Method], int]


def no_extra_steps(method: Method) -> int:
    del method
    return 0


def comparison_packs(
    spec: GridSpec,
    ranked: Ranked,
    lanes: int,
    extra_steps: ExtraSteps = no_extra_steps,
    extra_rate: float | None = None,
) -> list[Pack]:
    """The last stage: every schedule at its own rate, with all other seeds; those with extra steps in packs apart."""
    runs = _runs(spec, range(_selecting(spec), spec.seeds), _best(ranked, 1))
    more = [run for run in runs if extra_steps(run.method)]
    others = _pack(spec, "compare", [run for run in runs if run not in more], lanes)
    return others + [
        replace(pack, extra_rate=extra_rate, extra_steps=sum(extra_steps(run.method) for run in pack.runs))
        for pack in _pack(spec, "compare", more, lanes)
    ]


def later_cost(spec: GridSpec, stage: Stage, extra_steps: ExtraSteps = no_extra_steps) -> int:
    """Cost of all stages after this one, at most, before their rates are known."""
    longest = sum(max(spec.steps_at(rate, c) for rate in spec.learning_rates) for c in spec.comparisons)
    finals = min(spec.finalists or 0, len(spec.learning_rates)) * (_selecting(spec) - 1)
    compared = spec.seeds - _selecting(spec)
    methods = spec.all_methods()
    runs = len(methods) * {"select": finals + compared, "finals": compared, "compare": 0}[stage]
    extra = 0 if stage == "compare" else compared * sum(map(extra_steps, methods))
    return longest * runs * spec.weight + extra


def _selecting(spec: GridSpec) -> int:
    return min(spec.select_seeds, spec.seeds)


def _best(ranked: Ranked, number: int) -> Ranked:
    return {c: {name: rates[:number] for name, rates in own.items()} for c, own in ranked.items()}


def _runs(spec: GridSpec, seeds: Iterable[int], rates: Ranked) -> list[RunSpec]:
    """Every schedule at its rates in every comparison, each run once; the runs of a pack stand together."""
    methods = spec.all_methods()
    runs = [
        RunSpec(method, spec.steps_at(own[method.name][place], comparison), own[method.name][place], seed, spec.place)
        for seed in seeds
        for comparison, own in rates.items()
        for place in range(max(len(offered) for offered in own.values()))
        for method in methods
        if place < len(own[method.name])
    ]
    return list(dict.fromkeys(runs))


def _pack(spec: GridSpec, stage: Stage, runs: Iterable[RunSpec], lanes: int) -> list[Pack]:
    """Runs of one program in their order, in packs of whole groups, one run of each schedule, of about `lanes` runs.

    Groups are equally large, so that packs are, and one compilation serves them all.
    """

    def program(run: RunSpec) -> tuple[str, int]:
        return run.method.program, run.num_steps

    packs = []
    for _, group in groupby(sorted(runs, key=program), key=program):
        members = list(group)
        width = len({run.method for run in members})
        groups = math.ceil(len(members) / width)
        count = math.ceil(groups / max(1, round(lanes / width)))
        size = math.ceil(groups / count) * width
        packs += [Pack(stage, tuple(part), spec.weight) for part in _chunks(members, size)]
    return sorted(packs, key=lambda pack: (min(run.seed for run in pack.runs), pack.program != "every"))


def _chunks(items: list[RunSpec], size: int) -> Iterator[list[RunSpec]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
