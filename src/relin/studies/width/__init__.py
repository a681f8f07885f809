"""Does the NTK move less in wider networks, and does feature learning then matter less?"""

from typing import Any

from relin.studies.width.settings import WidthSpec
from relin.study._grid_study import AbstractGridStudy
from relin.study._kernel_settings import kernel_observers


class Width(AbstractGridStudy[WidthSpec]):
    """Does the NTK move less in wider networks, and does feature learning then matter less?"""

    name = "width"
    settings = WidthSpec

    def observers(self, extra_rate: float | None, runner: Any) -> list[Any]:
        """How the kernel moves on validation examples, and how far it began from that of infinite width."""
        from relin.studies.width.analytic import analytic_deviation

        del extra_rate
        observers, spec = kernel_observers(self.spec, runner), self.spec
        inputs = runner.probe(spec.kernel_probe)[0]
        deviation = analytic_deviation(spec.model, spec.model_options, inputs)
        return observers if deviation is None else [*observers, deviation]


STUDY = Width
