"""Is feature learning essential, and when?"""

from relin.studies.essential.settings import EssentialSpec
from relin.study._abstract import AGAINST
from relin.study._grid_study import AbstractGridStudy


class Essential(AbstractGridStudy[EssentialSpec]):
    """Is feature learning essential, and when?"""

    name = "essential"
    settings = EssentialSpec
    drawn_against = AGAINST


STUDY = Essential
