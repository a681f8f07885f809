"""Up to which learning rate does sparse feature learning train?"""

from typing import Any

from relin.studies.stability.settings import StabilitySpec
from relin.study._abstract import AGAINST
from relin.study._grid_study import AbstractGridStudy


class Stability(AbstractGridStudy[StabilitySpec]):
    """Up to which learning rate does sparse feature learning train?"""

    name = "stability"
    settings = StabilitySpec
    drawn_against = AGAINST

    def observers(self, extra_rate: float | None, runner: Any) -> list[Any]:
        """The sharpness of the linearised problem on validation examples."""
        from relin import Sharpness

        del extra_rate
        return [Sharpness(runner.probe(self.spec.probe_size))]


STUDY = Stability
