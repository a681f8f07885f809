"""Does K lead from ordinary training to NTK regression?"""

from typing import cast

from relin.studies.interpolation.runs import interpolation_jobs
from relin.studies.interpolation.settings import InterpolationSpec
from relin.study._abstract import AGAINST, Train
from relin.study._descent import AbstractDescentStudy
from relin.study._descent_jobs import DescentJob


class Interpolation(AbstractDescentStudy[InterpolationSpec]):
    """Does K lead from ordinary training to NTK regression?"""

    name = "interpolation"
    settings = InterpolationSpec
    drawn_against = AGAINST

    def runs(self) -> list[DescentJob]:
        return interpolation_jobs(self.spec)

    def trainer(self, data_dir: str | None) -> Train:
        from relin.studies.interpolation.runner import InterpolationRunner

        return cast(Train, InterpolationRunner(self.spec, data_dir).train)


STUDY = Interpolation
