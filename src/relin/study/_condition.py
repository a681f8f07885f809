"""How a run is trained, by name: a schedule, and the modifiers that go with it."""

from dataclasses import dataclass
from itertools import combinations

from relin.study._modifiers import AbstractModifier
from relin.study._named import Traced
from relin.study._schedules import AbstractNamedSchedule, Every


@dataclass(frozen=True)
class Condition:
    """A schedule with its modifiers, as records and settings name it: `every-64+clip-1`, `when-error-0.1`.

    The kinds of schedules are the final classes of `_schedules.py`, those of modifiers the final ones of
    `_modifiers.py`: each says its name, label and numbers, and what it makes of a run.

    **Raises:** `ValueError` for modifiers that do not go together, or not with the schedule.

    **Arguments:**

    - `schedule`: when features are updated.
    - `modifiers`: what else is changed in a run, in order.
    """

    schedule: AbstractNamedSchedule
    modifiers: tuple[AbstractModifier, ...] = ()

    def __post_init__(self):
        for one, other in combinations(self.modifiers, 2):
            if one.alone or other.alone or one.sets == other.sets:
                raise ValueError(f"{one.name} and {other.name} do not go together")
        for modifier in self.modifiers:
            modifier.check_schedule(self.schedule)

    @property
    def name(self) -> str:
        """As records and settings have it, such as `every-64+clip-1`."""
        return "+".join(each.name for each in (self.schedule, *self.modifiers))

    @property
    def label(self) -> str:
        """Name for people, for example `K = 4`, `K = ∞ (lazy)`, `error ≤ 0.1` or `K = 64, clipped at 1`."""
        return ", ".join(each.label for each in (self.schedule, *self.modifiers))

    @property
    def kind(self) -> str:
        """Of the schedule."""
        return self.schedule.kind

    @property
    def value(self) -> float:
        """The schedule's number; infinity for `never`."""
        return self.schedule.number

    @property
    def period(self) -> float | None:
        """K of a plain period; infinity for `never`; none for everything else."""
        return None if self.modifiers else self.schedule.period

    @property
    def shared(self) -> "Condition":
        """What runs of one program share: the condition without the numbers that are traced."""
        return Condition(self.schedule.shared, tuple(modifier.shared for modifier in self.modifiers))

    @property
    def program(self) -> str:
        """Conditions of one program differ in traced numbers only: the name without those."""
        return self.shared.name

    def traced(self, num_steps: int) -> Traced:
        """The traced numbers of a run of so many steps, by name."""
        numbers = [each.traced(num_steps) for each in (self.schedule, *self.modifiers)]
        return {name: number for own in numbers for name, number in own.items()}


def every(period: float, *modifiers: str) -> Condition:
    """Of period K, infinity for `never`, with modifiers by name. Raises `ValueError` for another period or name."""
    return Condition(Every(period), tuple(map(AbstractModifier.parse, modifiers)))


def parse_condition(name: str) -> Condition:
    """The condition of a `name` as records have it, such as `every-64+clip-1`.

    **Raises:** `ValueError` for another one, with the names there are.
    """
    schedule, *modifiers = name.split("+")
    try:
        return Condition(AbstractNamedSchedule.parse(schedule), tuple(map(AbstractModifier.parse, modifiers)))
    except ValueError as error:
        raise ValueError(
            "The schedule must be every-K (K = 1, 2, …), never, when-error-TOLERANCE or of another kind, and may have "
            f"modifiers such as +clip-1, got {name!r}: {error}; for example every-64 or when-error-0.1."
        ) from None
