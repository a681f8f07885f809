"""The runs of the interpolation study."""

import math

from relin.studies.interpolation.settings import InterpolationSpec
from relin.study._descent_jobs import DescentJob

_CHEAPER = 20
"""About how many times an anchor's many steps at once cost one step."""


def interpolation_jobs(spec: InterpolationSpec) -> list[DescentJob]:
    """All runs of the study, those of a seed together, the long ones first."""

    def work(period: float) -> int:
        if period <= spec.stepped_up_to:
            return spec.steps
        anchors = 1 if math.isinf(period) else math.ceil(spec.steps / period)
        return math.ceil(anchors * _CHEAPER * math.sqrt(min(period, spec.steps)))

    jobs = []
    for seed in range(spec.seeds):
        jobs.append(DescentJob("ordinary", seed, spec.steps, spec.rate, None, spec.steps))
        jobs += [DescentJob("every", seed, spec.steps, spec.rate, k, work(k)) for k in spec.periods]
        jobs += [DescentJob("regression", seed, spec.steps, spec.rate)]
        jobs += [DescentJob("limit", seed, spec.steps, spec.rate)]
    return jobs
