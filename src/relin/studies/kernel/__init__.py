"""Does the NTK stay constant?"""

from typing import Any

from relin.studies.kernel.settings import KernelSpec
from relin.study._abstract import AGAINST
from relin.study._condition import Condition
from relin.study._grid import Ranked
from relin.study._grid_study import AbstractGridStudy
from relin.study._kernel_settings import kernel_observers


class Kernel(AbstractGridStudy[KernelSpec]):
    """Does the NTK stay constant?"""

    name = "kernel"
    settings = KernelSpec
    drawn_against = AGAINST

    def observers(self, extra_rate: float | None, runner: Any) -> list[Any]:
        """How the kernel moves on validation examples, and lazy training on kernels taken on the way of some runs."""
        from relin import FrozenKernelAccuracy

        observers = kernel_observers(self.spec, runner)
        if extra_rate is not None:
            spec, steps = self.spec, self.spec.frozen_steps or self.spec.steps
            optimiser = spec.trained_by.make(extra_rate, steps)
            size, every = spec.batch_size, spec.frozen_every
            data = (runner.data, runner.test)
            observers.append(FrozenKernelAccuracy(*data, optimiser, steps, batch_size=size, every=every))
        return observers

    def extra_steps(self, condition: Condition) -> int:
        if condition.name not in self.spec.frozen_methods:
            return 0
        return (self.spec.num_records // self.spec.frozen_every + 1) * (self.spec.frozen_steps or self.spec.steps)

    def extra_rate(self, ranked: Ranked) -> float:
        """As the settings say, else the rate of lazy training, else that of ordinary training."""
        own = ranked[self.spec.comparisons[0]]
        return self.spec.frozen_rate or own.get("never", own["every-1"])[0]


STUDY = Kernel
