"""The runs of the damping study."""

from relin.studies.damping.settings import DampingSpec
from relin.study._descent_jobs import DescentJob, Way


def damping_jobs(spec: DampingSpec) -> list[DescentJob]:
    """All runs of the study, those of a seed together."""
    numbers: dict[Way, list[float]] = {"every": spec.periods, "gauss-newton": spec.kappas}
    return [
        DescentJob(way, seed, spec.outer_steps, spec.rate, number, spec.outer_steps)
        for seed in range(spec.seeds)
        for way, own in numbers.items()
        for number in own
    ]
