"""What is named by its kind and a number, such as `every-64` or `clip-1`: how names are read and written."""

import math
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, ClassVar, Self

from relin._common.words import listed

LARGEST = 1_000_000_000
"""Of all counts: no run has more steps, and none reaches a longer period."""

Traced = dict[str, float | list[int]]
"""The traced numbers of a run, by name; whole numbers are integers."""
Lane = Mapping[str, Any]
"""The same, and the learning rate and seed, as arrays."""


@dataclass(frozen=True)
class Numbers:
    """The numbers that a kind takes, in words after *takes*."""

    words: str
    contain: Callable[[float], bool]
    whole: bool = False

    def read(self, text: str) -> float:
        """Raises `ValueError` for what is no such number; a whole one is written in digits alone."""
        if self.whole and not (text.isdecimal() and len(text) < 20):
            raise ValueError(text)
        return float(text)


def whole(least: int, most: int = LARGEST) -> Numbers:
    return Numbers(f"a whole number from {least} to {most:,}", lambda n: least <= n <= most and n == int(n), whole=True)


NO_NUMBER = Numbers("no number", lambda _: False)
AT_LEAST_ZERO = Numbers("a number of at least 0", lambda x: 0 <= x < math.inf)
ABOVE_ZERO = Numbers("a number above 0", lambda x: 0 < x < math.inf)
AT_LEAST_ONE = Numbers("a number of at least 1", lambda x: 1 <= x < math.inf)
BELOW_ONE = Numbers("a number between 0 and 1", lambda x: 0 < x < 1)


@dataclass(frozen=True)
class AbstractNamed(ABC):
    """A kind with its number.

    A base class of kinds has a table `kinds`, in which a final class enters itself by `kind="…"`.

    **Raises:** `ValueError` for a number that the kind does not take.
    """

    value: float | None = None
    """None for a kind that takes no number, and where it is left out of what the runs of a program share."""

    kinds: ClassVar[dict[str, Any]]
    kind: ClassVar[str]
    wording: ClassVar[str]
    """The label, with braces where the number stands."""
    takes: ClassVar[Numbers] = NO_NUMBER
    in_program: ClassVar[bool] = False
    """Whether runs that differ in the number are different programs; otherwise the number is traced."""

    def __init_subclass__(cls, kind: str | None = None):
        if kind is not None:
            cls.kind = kind
            cls.kinds[kind] = cls

    def __post_init__(self):
        if self.value is not None and not self.takes.contain(self.value):
            raise ValueError(f"{self.kind} takes {self.takes.words}, got {self.digits}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The one of this name, of any kind. Raises `ValueError` where there is none."""
        for kind in cls.kinds.values():
            if (found := kind.read(text)) is not None:
                return found
        raise ValueError(f"{text!r} is none of {listed(cls.kinds)}")

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The one of this kind and name, none for another kind. Raises `ValueError` for a wrong number."""
        if text == cls.kind and cls.takes is NO_NUMBER:
            return cls()
        if not f"{text}-".startswith(f"{cls.kind}-"):
            return None
        number = text.removeprefix(cls.kind).removeprefix("-")
        try:
            value = cls.takes.read(number)
        except ValueError:
            raise ValueError(f"{cls.kind} takes {cls.takes.words}, got {number!r}") from None
        return cls(value)

    @property
    def name(self) -> str:
        """As records and settings have it."""
        return f"{self.kind}-{self.digits}".removesuffix("-")

    @property
    def label(self) -> str:
        """Name for people."""
        return self.wording.format(self.digits)

    @property
    def digits(self) -> str:
        """The number in full and without an exponent, whose sign would read as that of a modifier; empty for none."""
        return "" if self.value is None else f"{Decimal(repr(float(self.value))):f}".removesuffix(".0")

    @property
    def number(self) -> float:
        assert self.value is not None, self.kind
        return self.value

    @property
    def shared(self) -> Self:
        """What runs of one program share: the same without a number that is traced."""
        return self if self.in_program else replace(self, value=None)

    def traced(self, num_steps: int) -> Traced:
        """The traced numbers of a run of so many steps: its own under the name of the kind, by default."""
        del num_steps
        if self.in_program or self.value is None:
            return {}
        return {self.kind: int(self.value) if self.takes.whole else float(self.value)}
