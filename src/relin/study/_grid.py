"""From a spec to runs, and from runs to jobs that share one compiled program."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any, Literal

from relin.study._condition import Condition, parse_condition
from relin.study._job import AbstractJob, Identity
from relin.study._settings import Comparison, GridSpec, Place

Stage = Literal["select", "follow", "finals", "compare"]


@dataclass(frozen=True)
class RunSpec:
    """One run of a study."""

    condition: Condition
    num_steps: int
    learning_rate: float
    seed: int
    place: Place | None = None
    """On the axis of a study that has one."""

    @property
    def identity(self) -> Identity:
        value = None if self.place is None else self.place.value
        return self.condition.name, self.num_steps, self.learning_rate, self.seed, value


@dataclass(frozen=True)
class Job(AbstractJob):
    """Runs trained together as lanes of one program."""

    stage: Stage
    runs: tuple[RunSpec, ...]
    weight: int = 1
    """About how many times as much a step costs as those of other jobs."""
    extra_rate: float | None = None
    """Learning rate of what else is trained to measure the runs, see `AbstractGridStudy.extra_steps`."""
    extra_steps: int = 0
    """Its steps, of all runs together."""

    @property
    def condition(self) -> Condition:
        """That of the first run, and in all but traced numbers of the others."""
        return self.runs[0].condition

    @property
    def program(self) -> str:
        return self.condition.program

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
def _name(job: Job) -> str:
    runs = [_described(run) for run in job.runs]
    text = json.dumps(runs if job.extra_rate is None else [*runs, job.extra_rate], sort_keys=True)
    seeds = sorted({run.seed for run in job.runs})
    return f"{job.stage}-{job.program}-seed{seeds[0]:03d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _described(run: RunSpec) -> dict[str, Any]:
    """As names of files hold a digest of it; the words are those of files that exist."""
    modifiers = [{"kind": modifier.kind, "value": modifier.value or 0.0} for modifier in run.condition.modifiers]
    return {
        "method": {"kind": run.condition.kind, "value": run.condition.value, "parts": modifiers},
        "num_steps": run.num_steps,
        "learning_rate": run.learning_rate,
        "seed": run.seed,
    } | ({} if run.place is None else {run.place.axis: run.place.value})


def check_seed(seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise ValueError(f"The seed must be from 0 to 2147483647, got {seed}; for example 0.")


def single_run(spec: GridSpec, schedule: str, rate: float, seed: int) -> Job:
    """A job of one run, by the name of its schedule.

    **Raises:** `ValueError` for numbers that cannot be run.
    """
    if not 1e-30 <= rate <= 1e30:
        raise ValueError(
            f"The learning rate must be above 0 and finite, from 1e-30 to 1e30, got {rate:g}; for example 0.03."
        )
    check_seed(seed)
    condition = parse_condition(schedule)
    spec.check_condition(condition)
    return Job("select", (RunSpec(condition, spec.steps, rate, seed),))


Ranked = dict[Comparison, dict[str, list[float]]]
"""For each comparison, the learning rates of each schedule by name, the best first."""


def selection_jobs(spec: GridSpec, lanes: int) -> list[Job]:
    """The first stage: every schedule at every rate, with the first seed, or with all that choose the rates."""
    rates = {condition.name: spec.learning_rates for condition in spec.all_conditions()}
    return _job(spec, "select", _runs(spec, _first_seeds(spec), dict.fromkeys(spec.comparisons, rates)), lanes)


Beyond = dict[Comparison, dict[str, float]]
"""For each comparison, the next learning rate of each schedule whose best one is the outermost it was offered."""


def follow_jobs(spec: GridSpec, beyond: Beyond, lanes: int) -> list[Job]:
    """A round of the stage after the first: these rates with the seeds of the first."""
    names = [condition.name for condition in spec.all_conditions()]
    rates: Ranked = {c: {name: [own[name]] if name in own else [] for name in names} for c, own in beyond.items()}
    return _job(spec, "follow", _runs(spec, _first_seeds(spec), rates), lanes)


def finals_jobs(spec: GridSpec, ranked: Ranked, lanes: int) -> list[Job]:
    """The second stage, if there is one: every schedule at the best of its rates, with the other seeds that choose."""
    if not spec.finalists:
        return []
    return _job(spec, "finals", _runs(spec, range(1, _selecting(spec)), _best(ranked, spec.finalists)), lanes)


ExtraSteps = Callable[[Condition], int]


def no_extra_steps(condition: Condition) -> int:
    del condition
    return 0


def comparison_jobs(
    spec: GridSpec,
    ranked: Ranked,
    lanes: int,
    extra_steps: ExtraSteps = no_extra_steps,
    extra_rate: float | None = None,
) -> list[Job]:
    """The last stage: every schedule at its own rate, with all other seeds; those with extra steps in jobs apart."""
    runs = _runs(spec, range(_selecting(spec), spec.seeds), _best(ranked, 1))
    more = [run for run in runs if extra_steps(run.condition)]
    others = _job(spec, "compare", [run for run in runs if run not in more], lanes)
    return others + [
        replace(job, extra_rate=extra_rate, extra_steps=sum(extra_steps(run.condition) for run in job.runs))
        for job in _job(spec, "compare", more, lanes)
    ]


def later_cost(spec: GridSpec, stage: Stage, rounds: int = 0, extra_steps: ExtraSteps = no_extra_steps) -> int:
    """Cost of all stages after this one, at most, before their rates are known; `rounds` of following among them."""
    longest = sum(max(spec.steps_at(rate, c) for rate in spec.learning_rates) for c in spec.comparisons)
    followed = rounds * len(_first_seeds(spec))
    finals = min(spec.finalists or 0, len(spec.learning_rates) + spec.follow_edges) * (_selecting(spec) - 1)
    compared = spec.seeds - _selecting(spec)
    conditions = spec.all_conditions()
    after = {"select": followed + finals + compared, "follow": followed + finals + compared, "finals": compared}
    runs = len(conditions) * after.get(stage, 0)
    extra = 0 if stage == "compare" else compared * sum(map(extra_steps, conditions))
    return longest * runs * spec.weight + extra


def _first_seeds(spec: GridSpec) -> range:
    return range(1 if spec.finalists else _selecting(spec))


def _selecting(spec: GridSpec) -> int:
    return min(spec.select_seeds, spec.seeds)


def _best(ranked: Ranked, number: int) -> Ranked:
    return {c: {name: rates[:number] for name, rates in own.items()} for c, own in ranked.items()}


def _runs(spec: GridSpec, seeds: Iterable[int], rates: Ranked) -> list[RunSpec]:
    """Every schedule at its rates in every comparison, each run once; the runs of a job stand together."""
    conditions = spec.all_conditions()
    runs = [
        RunSpec(
            condition,
            spec.steps_at(own[condition.name][place], comparison),
            own[condition.name][place],
            seed,
            spec.place,
        )
        for seed in seeds
        for comparison, own in rates.items()
        for place in range(max(len(offered) for offered in own.values()))
        for condition in conditions
        for rate in own[condition.name][place : place + 1]
    ]
    return list(dict.fromkeys(runs))


def _job(spec: GridSpec, stage: Stage, runs: Iterable[RunSpec], lanes: int) -> list[Job]:
    """Runs of one program in their order, in jobs of whole groups, one run of each schedule, of about `lanes` runs.

    Groups are equally large, so that jobs are, and one compilation serves them all.
    """

    def program(run: RunSpec) -> tuple[str, int]:
        return run.condition.program, run.num_steps

    jobs = []
    for _, group in groupby(sorted(runs, key=program), key=program):
        members = list(group)
        width = len({run.condition for run in members})
        groups = math.ceil(len(members) / width)
        count = math.ceil(groups / max(1, round(lanes / width)))
        size = math.ceil(groups / count) * width
        jobs += [Job(stage, tuple(part), spec.weight) for part in _chunks(members, size)]
    return sorted(jobs, key=lambda job: (min(run.seed for run in job.runs), job.program != "every"))


def _chunks(items: list[RunSpec], size: int) -> Iterator[list[RunSpec]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
