"""Which part of a study's jobs a process takes first, where several share its folder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, final

from relin.study._job import AbstractJob

_SLURM = "SLURM_ARRAY_TASK_"


@final
@dataclass(frozen=True)
class Shard:
    """One of several processes of a study: it takes its own part of each stage first, then what nobody has begun.

    **Arguments:**

    - `number`: from 1 to `count`.
    - `count`: the processes; fewer may run, also one alone, in any order.

    **Raises:** `ValueError` for a number that is not one of them.
    """

    number: int
    count: int

    def __post_init__(self):
        if not 1 <= self.number <= self.count:
            raise ValueError(f"A shard is K/N with K from 1 to N, got {self}; for example 3/16.")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """That of a text such as `3/16`. Raises `ValueError` for any other text."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if found is None:
            raise ValueError(f"A shard is K/N with K from 1 to N, got {text!r}; for example 3/16.")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of_slurm(cls, environment: Mapping[str, str]) -> Self | None:
        """The task of a SLURM job array, by the variables that SLURM sets for it; none outside of one.

        **Raises:** `ValueError` for an array whose task numbers are not consecutive.
        """
        names = ("ID", "MIN", "MAX", "COUNT")
        task, first, last, count = (environment.get(f"{_SLURM}{name}", "") for name in names)
        if not (task and count):
            return None
        numbers = [task, first or "0", count, *([last] if last else [])]
        if all(number.isdecimal() for number in numbers):
            number, size = int(task) - int(first or 0) + 1, int(count)
            if 1 <= number <= size and (not last or int(last) - int(first or 0) + 1 == size):
                return cls(number, size)
        raise ValueError(
            f"The tasks of SLURM's job array must have consecutive numbers to be shards, got task {task} of {count} "
            f"from {first or '?'} to {last or '?'}; submit with --array=1-N, or give --shard K/N, or 1/1 for no others."
        )

    def in_order(self, jobs: Sequence[AbstractJob]) -> list[AbstractJob]:
        """The jobs, its own part first, then those of the shards after it."""
        parts = [(self.number - 1 + n) % self.count for n in range(self.count)]
        return [job for part in parts for job in jobs[part :: self.count]]
