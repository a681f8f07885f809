"""How many feature updates suffice, as training grows longer?"""

from relin.studies.phase.settings import PhaseSpec
from relin.study._abstract import AGAINST
from relin.study._grid_study import AbstractGridStudy


class Phase(AbstractGridStudy[PhaseSpec]):
    """How many feature updates suffice, as training grows longer?"""

    name = "phase"
    settings = PhaseSpec
    drawn_against = AGAINST


STUDY = Phase
