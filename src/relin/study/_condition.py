"""How a run is trained, by name: a schedule, and the parts that go with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

_PARTS = ("clip", "line", "trust", "proximal", "shrink", "reset", "sparse")
_WITHOUT_VALUE = ("reset", "sparse")
_SAFEGUARDS = ("line", "trust")
_PLACEMENTS = ("early", "even", "geometric", "late")
_TOLERANCES = {"when-error": "error", "when-loss-gap": "loss gap", "when-moves": "movement"}
_BY_LAYER = ("rich", "lazy")
MOST_PLACED = 100_000
"""Updates whose steps are written down, one by one."""
_COUNTED = ("until", "after", *_BY_LAYER, *_PLACEMENTS)


@dataclass(frozen=True, order=True)
class Part:
    """Something that goes with a schedule, for example `clip-1`."""

    kind: str
    value: float = 0.0

    @property
    def name(self) -> str:
        return self.kind if self.kind in _WITHOUT_VALUE else f"{self.kind}-{_number(self.value)}"

    @property
    def label(self) -> str:
        value = _number(self.value)
        return {
            "clip": f"clipped at {value}",
            "line": f"line search {value}",
            "trust": f"trust region {value}",
            "proximal": f"proximal {value}",
            "shrink": f"moments × {value}",
            "reset": "moments reset",
            "sparse": "sparse",
        }[self.kind]


@dataclass(frozen=True, order=True)
class Condition:
    """A schedule with its parts, as records and settings name it: `every-64`, `every-64+clip-1`, `when-error-0.1`.

    Schedules: `every-K`; `never`; `when-error-T`, `when-loss-gap-T` and `when-moves-T` with a tolerance T;
    `until-N`, features frozen after N updates, one at each step; `after-S`, an update at each step from S on; N updates
    placed `early-N` (one a step from the start), `even-N`, `geometric-N` (at evenly spaced powers of the step) or
    `late-N` (one a step at the end); `rich-I` and `lazy-I`, where layer I of the settings, counted from 0, is alone
    re-linearised at every step, or alone never.

    Parts: `clip-C` (gradient's global norm), `line-F` (line search, factor F),
    `trust-R` (trust region of radius R), `proximal-L` (λ), `reset`, `shrink-F` (optimiser moments), and `sparse`, the
    preset.
    """

    kind: str
    value: float
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        whole = self.kind == "every" or self.kind in _COUNTED
        value = str(int(self.value)) if whole and math.isfinite(self.value) else _number(self.value)
        schedule = "never" if self.kind == "every" and math.isinf(self.value) else f"{self.kind}-{value}"
        return "+".join([schedule, *(part.name for part in self.parts)])

    @property
    def label(self) -> str:
        """Name for people, for example `K = 4`, `K = ∞ (lazy)`, `error ≤ 0.1` or `K = 64, clipped at 1`."""
        value = _number(self.value)
        if self.kind == "every":
            schedule = "K = ∞ (lazy)" if math.isinf(self.value) else f"K = {value}"
        elif self.kind in _TOLERANCES:
            schedule = f"{_TOLERANCES[self.kind]} ≤ {value}"
        elif self.kind == "until":
            schedule = f"frozen after {value}"
        elif self.kind == "after":
            schedule = f"from step {value}"
        elif self.is_by_layer:
            schedule = f"layer {value} alone {self.kind}"
        else:
            schedule = f"{value} updates, {self.kind}"
        return ", ".join([schedule, *(part.label for part in self.parts)])

    @property
    def period(self) -> float | None:
        """K of a plain period; infinity for `never`; none for everything else."""
        return self.value if self.kind == "every" and not self.parts else None

    @property
    def program(self) -> str:
        """Methods of one program differ in numbers only: the name without those that are traced."""
        places = f"-{int(self.value)}" if self.is_placed or self.is_by_layer else ""
        parts = [part.name if part.kind == "shrink" else part.kind for part in self.parts]
        return "+".join([f"{self.kind}{places}", *parts])

    @property
    def is_placed(self) -> bool:
        """Whether the schedule is a number of updates at steps that are known beforehand."""
        return self.kind in _PLACEMENTS

    @property
    def is_by_layer(self) -> bool:
        """Whether one layer is treated differently from all others."""
        return self.kind in _BY_LAYER

    def updates_at(self, num_steps: int) -> list[int]:
        """The steps before which a placed schedule updates features, out of 1, …, T − 1."""
        number, last = int(min(self.value, num_steps - 1)), num_steps - 1
        return _PLACES[self.kind](number, last)


def _even(number: int, last: int) -> list[int]:
    return [round(place * (last + 1) / (number + 1)) for place in range(1, number + 1)]


def _geometric(number: int, last: int) -> list[int]:
    """Evenly spaced powers of the number of steps; where those round to the same step, the next free one."""
    import numpy as np  # here: what names say is asked before a study needs more

    steps = list[int]()
    for power in np.arange(1, number + 1) / (number + 1):
        steps.append(max(round((last + 1) ** power), steps[-1] + 1 if steps else 1))
    return [min(step, last - (number - 1 - place)) for place, step in enumerate(steps)]


_PLACES: dict[str, Callable[[int, int], list[int]]] = {
    "early": lambda number, last: list(range(1, number + 1)),
    "late": lambda number, last: list(range(last - number + 1, last + 1)),
    "even": _even,
    "geometric": _geometric,
}


def every(period: float, *parts: str) -> Condition:
    """Of period K, infinity for `never`, with parts by name."""
    return Condition("every", period, tuple(map(_parse_part, parts)))


def parse_condition(name: str) -> Condition:
    """The condition of a name as records have it. Raises `ValueError` for another one."""
    schedule, *parts = name.split("+")
    try:
        kind, value = _parse_schedule(schedule)
        condition = Condition(kind, value, tuple(map(_parse_part, parts)))
    except ValueError:
        condition = None
    if condition is None or not _composes(condition):
        raise ValueError(
            "The schedule must be every-K (K = 1, 2, …), never, when-error-TOLERANCE, until-UPDATES, after-STEP or one "
            f"of {', '.join(_PLACEMENTS)} followed by -UPDATES, and may have parts such as +clip-1, +trust-1 (one "
            f"safeguard at most) or, alone, +sparse, got {name!r}; for example every-64 or when-error-0.1."
        )
    return condition


def _parse_schedule(text: str) -> tuple[str, float]:
    if text == "never":
        return "every", math.inf
    kind, number = _split(text, ("every", *_COUNTED, *_TOLERANCES))
    if kind in ("every", *_COUNTED):
        least = 0 if kind in ("until", "after", *_BY_LAYER) else 1
        most = MOST_PLACED if kind in _PLACEMENTS else 10**9
        if number.isdecimal() and len(number) < 20 and least <= int(number) <= most:
            return kind, float(int(number))
    elif 0 <= float(number) < math.inf:
        return kind, float(number)
    raise ValueError(text)


def _parse_part(text: str) -> Part:
    if text in _WITHOUT_VALUE:
        return Part(text)
    kind, number = _split(text, _PARTS)
    value = float(number)
    in_range = {"line": value >= 1, "proximal": value >= 0, "shrink": 0 < value < 1}.get(kind, value > 0)
    if kind in _WITHOUT_VALUE or not in_range or not math.isfinite(value):
        raise ValueError(text)
    return Part(kind, value)


def _composes(condition: Condition) -> bool:
    """Each part once, one safeguard, one rule for the optimiser's state; the preset brings all of its own."""
    kinds = [part.kind for part in condition.parts]
    alone = "sparse" not in kinds or len(kinds) == 1
    one_of = all(sum(kind in group for kind in kinds) <= 1 for group in (_SAFEGUARDS, ("shrink", "reset")))
    return alone and one_of and len(set(kinds)) == len(kinds)


def _split(text: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    """A kind and the number behind it, which may itself hold a minus sign."""
    for kind in kinds:
        if text.startswith(f"{kind}-"):
            return kind, text.removeprefix(f"{kind}-")
    raise ValueError(text)


def _number(value: float) -> str:
    """In full and without an exponent, whose sign would read as a part's."""
    return "∞" if math.isinf(value) else f"{Decimal(repr(float(value))):f}".removesuffix(".0")
