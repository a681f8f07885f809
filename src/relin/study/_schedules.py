"""Schedules by name. Each kind is a final class, and adding one is all that another kind needs."""

import math
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self, final

import relin as il  # JAX is imported where one of its names is first used, which reading names of schedules does not
from relin.study._named import AT_LEAST_ZERO, LARGEST, AbstractNamed, Lane, Traced, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relin import AbstractSchedule
    from relin.study._condition import Condition
    from relin.study._run_factory import RunFactory

MOST_PLACED = 100_000
"""Updates whose steps are written down, one by one."""


class AbstractNamedSchedule(AbstractNamed):
    """When a run re-linearises, by name."""

    kinds: ClassVar[dict[str, type["AbstractNamedSchedule"]]] = {}

    @property
    def period(self) -> float | None:
        """K of a plain period, infinity for `never`; none for everything else."""
        return None

    def updates_by(self, step: int, num_steps: int) -> int | None:
        """Feature updates of a run of so many steps by a step of it; none where they depend on the run."""
        del step, num_steps
        return None

    def check_optimiser(self, name: str, is_own: bool) -> None:
        """Raises `ValueError` for an optimiser that it does not go with; `is_own` is that of a user's own."""

    @classmethod
    def numbers_of(cls, conditions: "Sequence[Condition]") -> list[float]:
        """Of those of these conditions that are this kind of schedule, without modifiers."""
        return [c.value for c in conditions if isinstance(c.schedule, cls) and not c.modifiers]

    @abstractmethod
    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        """The schedule of a run with these traced numbers. Where they are given, its own may be left out."""


@final
class Every(AbstractNamedSchedule, kind="every"):
    """`every-K`: at every K-th step; `never` is K = ∞, of the same program."""

    wording = "K = {}"
    takes = replace(whole(1), contain=lambda n: n == math.inf or whole(1).contain(n))

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls(math.inf) if text == "never" else super().read(text)

    @property
    def name(self) -> str:
        return "never" if self.value == math.inf else super().name

    @property
    def label(self) -> str:
        return "K = ∞ (lazy)" if self.value == math.inf else super().label

    @property
    def period(self) -> float | None:
        return self.value

    def traced(self, num_steps: int) -> Traced:
        return {"every": int(min(self.number, LARGEST))}

    def updates_by(self, step: int, num_steps: int) -> int:
        return 0 if self.number == math.inf else max(0, -(-step // int(self.number)) - 1)

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.Every(lane["every"])


class AbstractTolerance(AbstractNamedSchedule):
    """Where a measure of how far the run is from its linearisation exceeds a tolerance."""

    takes = AT_LEAST_ZERO
    measure: ClassVar[str]

    @property
    def label(self) -> str:
        return f"{self.measure} ≤ {self.digits}"


@final
class WhenError(AbstractTolerance, kind="when-error"):
    measure = "error"

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.WhenError(lane["when-error"], run.check_every)


@final
class WhenLossGap(AbstractTolerance, kind="when-loss-gap"):
    measure = "loss gap"

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.WhenLossGap(lane["when-loss-gap"], run.check_every)


@final
class WhenMoves(AbstractTolerance, kind="when-moves"):
    measure = "movement"

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.WhenFunctionMoves(lane["when-moves"], run.check_every)


@final
class Until(AbstractNamedSchedule, kind="until"):
    """`until-N`: features frozen after N updates, one at each step."""

    wording, takes = "frozen after {}", whole(0)

    def updates_by(self, step: int, num_steps: int) -> int:
        return min(int(self.number), max(0, step - 1))

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.Until(il.Every(1), lane["until"] + 1)  # N updates are before steps 1 to N


@final
class After(AbstractNamedSchedule, kind="after"):
    """`after-S`: an update at each step from S on."""

    wording, takes = "from step {}", whole(0)

    def updates_by(self, step: int, num_steps: int) -> int:
        return max(0, step - max(1, int(self.number)))

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.After(il.Every(1), lane["after"])


class AbstractPlaced(AbstractNamedSchedule):
    """A number of updates at steps that are known beforehand."""

    takes, in_program = whole(1, MOST_PLACED), True

    @property
    def label(self) -> str:
        return f"{self.digits} updates, {self.kind}"

    def updates_at(self, num_steps: int) -> list[int]:
        """The steps before which features are updated, out of 1, …, T − 1."""
        return self._places(int(min(self.number, num_steps - 1)), num_steps - 1)

    def updates_by(self, step: int, num_steps: int) -> int:
        return sum(at < step for at in self.updates_at(num_steps))

    def traced(self, num_steps: int) -> Traced:
        return {"steps": self.updates_at(num_steps)}

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return il.AtSteps(lane["steps"])

    @abstractmethod
    def _places(self, number: int, last: int) -> list[int]:
        """So many of the steps from 1 to the last, in order."""


@final
class Early(AbstractPlaced, kind="early"):
    """`early-N`: one a step from the start."""

    def _places(self, number: int, last: int) -> list[int]:
        return list(range(1, number + 1))


@final
class Even(AbstractPlaced, kind="even"):
    def _places(self, number: int, last: int) -> list[int]:
        return [round(place * (last + 1) / (number + 1)) for place in range(1, number + 1)]


@final
class Geometric(AbstractPlaced, kind="geometric"):
    """`geometric-N`: at evenly spaced powers of the number of steps; where those round to the same, the next free."""

    def _places(self, number: int, last: int) -> list[int]:
        import numpy as np  # here: names are read before a study needs more

        steps = list[int]()
        for power in np.arange(1, number + 1) / (number + 1):
            steps.append(max(round((last + 1) ** power), steps[-1] + 1 if steps else 1))
        return [min(step, last - (number - 1 - place)) for place, step in enumerate(steps)]


@final
class EqualTime(AbstractNamedSchedule, kind="equal-time"):
    """`equal-time-N`: N updates, whose windows have equal sums of the learning rate."""

    wording, takes, in_program = "{} updates, equal time", whole(1, MOST_PLACED), True

    def check_optimiser(self, name: str, is_own: bool) -> None:
        if is_own:
            raise ValueError(
                f"{self.name} needs the course of the learning rate, which {name} does not tell; name an optimiser "
                "and its decay, or leave the schedule out"
            )

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        from relin.study._optimisers import NamedOptimiser

        optimiser, steps = run.optimiser, run.num_steps
        assert isinstance(optimiser, NamedOptimiser), optimiser  # `check_optimiser` saw to it
        if steps == 1:
            return il.Never()
        return il.EqualTime(optimiser.course.rates(1.0, steps), steps, int(min(self.number, steps - 1)))


@final
class Late(AbstractPlaced, kind="late"):
    """`late-N`: one a step at the end."""

    def _places(self, number: int, last: int) -> list[int]:
        return list(range(last - number + 1, last + 1))


class AbstractByLayer(AbstractNamedSchedule):
    """One layer of the settings, counted from 0, is treated differently from all others."""

    takes, in_program = whole(0), True

    @property
    def label(self) -> str:
        return f"layer {self.digits} alone {self.kind}"

    def updates_by(self, step: int, num_steps: int) -> int:
        return max(0, step - 1)

    def _apart(self, run: "RunFactory", layer: "AbstractSchedule", others: "AbstractSchedule") -> "AbstractSchedule":
        if self.number >= len(run.layers):
            raise ValueError(
                f"{self.name}: the settings name {len(run.layers)} layers, counted from 0; add it to `layers`."
            )
        return il.PerParameter({f"{run.layers[int(self.number)]}*": layer, "*": others})


@final
class Rich(AbstractByLayer, kind="rich"):
    """`rich-I`: layer I alone is re-linearised, at every step."""

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return self._apart(run, il.Every(1), il.Never())


@final
class Lazy(AbstractByLayer, kind="lazy"):
    """`lazy-I`: layer I alone is never re-linearised, and all others are at every step."""

    def make(self, lane: Lane, run: "RunFactory") -> "AbstractSchedule":
        return self._apart(run, il.Never(), il.Every(1))
