"""How rarely can features be updated without loss?"""

from relin.studies.frequency.settings import FrequencySpec
from relin.study._abstract import AGAINST
from relin.study._grid_study import AbstractGridStudy


class Frequency(AbstractGridStudy[FrequencySpec]):
    """How rarely can features be updated without loss?"""

    name = "frequency"
    settings = FrequencySpec
    drawn_against = AGAINST


STUDY = Frequency
