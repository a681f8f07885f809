"""The runs of the interpolation study."""

import math

from relin.studies.interpolation.settings import InterpolationSpec
from relin.study._descent_packs import DescentPack

_CHEAPER = 20
"""About how many times an anchor's many steps at once cost one step."""


def interpolation_packs(spec: InterpolationSpec) -> list[DescentPack]:
    """All runs of the study, those of a seed together, the long ones first."""

    def work(period: float) -> int:
        if period <= spec.stepped_up_to:
            return spec.steps
        anchors = 1 if math.isinf(period) else math.ceil(spec.steps / period)
        return math.ceil(anchors * _CHEAPER * math.sqrt(min(period, spec.steps)))

    packs = []
    for seed in range(spec.seeds):
        packs.append(DescentPack("ordinary", seed, spec.steps, spec.rate, None, spec.steps))
        packs += [DescentPack("every", seed, spec.steps, spec.rate, k, work(k)) for k in spec.periods]
        packs += [DescentPack("regression", seed, spec.steps, spec.rate)]
        packs += [DescentPack("limit", seed, spec.steps, spec.rate)]
    return packs
