"""Is iterative linearisation damped Gauss–Newton?"""

from typing import cast

from relin.studies.damping.runs import damping_jobs
from relin.studies.damping.settings import DampingSpec
from relin.study._abstract import Train
from relin.study._descent import AbstractDescentStudy
from relin.study._descent_jobs import DescentJob


class Damping(AbstractDescentStudy[DampingSpec]):
    """Is iterative linearisation damped Gauss–Newton?"""

    name = "damping"
    settings = DampingSpec

    def runs(self) -> list[DescentJob]:
        return damping_jobs(self.spec)

    def trainer(self, data_dir: str | None) -> Train:
        from relin.studies.damping.runner import DampingRunner

        return cast(Train, DampingRunner(self.spec, data_dir).train)


STUDY = Damping
