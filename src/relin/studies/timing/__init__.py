"""When are feature updates best spent?"""

from relin.studies.timing.settings import TimingSpec
from relin.study._abstract import AGAINST
from relin.study._grid_study import AbstractGridStudy


class Timing(AbstractGridStudy[TimingSpec]):
    """When are feature updates best spent?"""

    name = "timing"
    settings = TimingSpec
    drawn_against = AGAINST


STUDY = Timing
