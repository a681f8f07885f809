"""What may go with a schedule, by name. Each kind is a final class, and adding one is all that another kind needs."""

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self, final

import relin as il  # JAX is imported where one of its names is first used, which reading names of modifiers does not
from relin.study._named import ABOVE_ZERO, AT_LEAST_ONE, AT_LEAST_ZERO, BELOW_ONE, AbstractNamed, Lane, Numbers, whole
from relin.study._optimisers import NamedOptimiser
from relin.study._schedules import AbstractByLayer, AbstractNamedSchedule, AbstractTolerance

if TYPE_CHECKING:
    from relin.preset import Preset
    from relin.study._run_factory import RunFactory


class AbstractModifier(AbstractNamed):
    """A change of the parts of a run, whatever its schedule and optimiser are."""

    kinds: ClassVar[dict[str, type["AbstractModifier"]]] = {}
    sets: ClassVar[str]
    """What it decides: of two modifiers that decide the same a run has one."""
    alone: ClassVar[bool] = False
    """Whether it goes with no other modifier."""

    def check_schedule(self, schedule: AbstractNamedSchedule) -> None:
        """Raises `ValueError` for a schedule that it does not go with."""

    def check_optimiser(self, name: str, momentum: float | None) -> None:
        """Raises `ValueError` for an optimiser, with no β if it is not gradient descent, that it does not go with."""

    @abstractmethod
    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        """The parts of a run with this modifier and these traced numbers, where its own may be none; `run` makes it."""


@final
class Clip(AbstractModifier, kind="clip"):
    """`clip-C`: the gradient's global norm is clipped before the optimiser sees it."""

    sets, wording, takes = "gradient", "clipped at {}", ABOVE_ZERO

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        import optax

        clipped = optax.chain(optax.clip_by_global_norm(lane["clip"]), parts.solver.optimiser)
        return replace(parts, solver=replace(parts.solver, optimiser=clipped))


@final
class Line(AbstractModifier, kind="line"):
    """`line-F`: line search of factor F."""

    sets, wording, takes = "safeguard", "line search {}", AT_LEAST_ONE

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, safeguard=il.LineSearch(lane["line"]))


@final
class Grid(AbstractModifier, kind="grid"):
    """`grid-N`: the best of N scales, 1, 2^(−1/2), ½, …, over four batches."""

    sets, wording, takes, in_program = "safeguard", "best of {} scales", whole(2, 32), True

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        scales = tuple(2 ** (-i / 2) for i in range(int(self.number)))
        return replace(parts, safeguard=il.GridSearch(scales))


@final
class Trust(AbstractModifier, kind="trust"):
    """`trust-R`: trust region of radius R."""

    sets, wording, takes = "safeguard", "trust region {}", ABOVE_ZERO

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, safeguard=il.TrustRegion(lane["trust"]))


@final
class Proximal(AbstractModifier, kind="proximal"):
    """`proximal-L`: a proximal term with λ = L."""

    sets, wording, takes = "proximal term", "proximal {}", AT_LEAST_ZERO

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, proximal=lane["proximal"]))


@final
class Shrink(AbstractModifier, kind="shrink"):
    """`shrink-F`: the optimiser's moments times F where the run re-linearises."""

    sets, wording, takes, in_program = "optimiser's state", "moments × {}", BELOW_ONE, True

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, on_relinearise=float(self.number)))


@final
class Reset(AbstractModifier, kind="reset"):
    """The optimiser's state begins anew where the run re-linearises."""

    sets, wording = "optimiser's state", "moments reset"

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, on_relinearise="reset"))


class AbstractOfWindow(AbstractModifier):
    """The learning rate between two re-linearisations."""

    def check_schedule(self, schedule: AbstractNamedSchedule) -> None:
        if isinstance(schedule, AbstractByLayer):
            raise ValueError(f"{self.name} does not go with {schedule.name}, whose layers re-linearise apart")


@final
class Cosine(AbstractOfWindow, kind="cosine"):
    """The rate falls to 0 along half a cosine in each window, times its course over the run."""

    sets, wording = "rate in a window", "cosine in each window"

    def check_schedule(self, schedule: AbstractNamedSchedule) -> None:
        super().check_schedule(schedule)
        if isinstance(schedule, AbstractTolerance):
            raise ValueError(f"{self.name} does not go with {schedule.name}, whose next update is not known beforehand")

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, window_rate=il.CosineWindow()))


@final
class WarmUp(AbstractOfWindow, kind="warm"):
    """`warm-N`: the rate rises in a line in the first N steps of each window."""

    sets, wording, takes = "rate in a window", "warm-up of {} in each window", whole(0)

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, window_rate=il.WarmUpWindow(lane["warm"])))


@final
class Cap(AbstractOfWindow, kind="cap"):
    """`cap-C`: the rate of a window is at most C times 2 (1 + β)/λ_max at its anchor."""

    sets, wording, takes = "largest rate", "rate ≤ {} of the limit", ABOVE_ZERO

    def check_optimiser(self, name: str, momentum: float | None) -> None:
        if momentum is None:
            raise ValueError(
                f"{self.name} caps the rate by what gradient descent bears, got the optimiser {name}; leave it out, or "
                "name sgd or momentum"
            )

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        optimiser = run.optimiser
        momentum = optimiser.momentum if isinstance(optimiser, NamedOptimiser) else None
        self.check_optimiser(optimiser.name, momentum)
        assert isinstance(optimiser, NamedOptimiser)
        rates = optimiser.course.rates(lane["learning_rate"], run.num_steps)
        cap = il.RateCap(lane["cap"], rates, momentum or 0.0)
        return replace(parts, solver=replace(parts.solver, rate_cap=cap))


@final
class Average(AbstractModifier, kind="average"):
    """`average`: the anchor moves to the mean of the window; `average-D`: to an exponential one of decay D."""

    sets, wording = "average", "averaged {}"
    takes = Numbers("no number or one between 0 and 1", lambda x: 0 < x <= 1)

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls(1.0) if text == cls.kind else super().read(text)

    @property
    def digits(self) -> str:
        return "" if self.value == 1 else super().digits

    @property
    def label(self) -> str:
        return super().label.strip()

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        averaging = il.ExponentialAverage(lane["average"])  # of decay 1 the uniform one
        return replace(parts, solver=replace(parts.solver, averaging=averaging))


@final
class Bound(AbstractModifier, kind="bound"):
    """`bound-C`: each layer's displacement at most C times its weights' norm."""

    sets, wording, takes = "displacement", "layers bounded at {}", ABOVE_ZERO

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return replace(parts, solver=replace(parts.solver, bound=il.DisplacementBound(lane["bound"])))


@final
class Sparse(AbstractModifier, kind="sparse"):
    """The preset of this name, which decides all of these."""

    sets, wording, alone = "everything", "sparse", True

    def modify(self, parts: "Preset", lane: Lane, run: "RunFactory") -> "Preset":
        return il.preset.sparse(parts.solver.optimiser, parts.schedule)
