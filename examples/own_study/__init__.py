"""A study of one's own: does it matter whether momentum starts anew at each re-linearisation?

Run by `relin study examples/own_study`; `relin report FOLDER --study examples/own_study` makes its page again.
A package names such a study among its entry points instead, in the group `relin.studies`.
"""

from typing import Literal

from pydantic import Field

from relin.study import AbstractGridStudy, Condition, GridSpec, parse_condition


class RestartSpec(GridSpec, frozen=True):
    """Does it matter whether momentum starts anew at each re-linearisation?"""

    study: Literal["restart"] = Field("restart", description="Which question the study answers.")
    periods: list[int] = Field([16, 64], max_length=20, description="Periods K at which both ways are compared.")

    def own_conditions(self) -> list[Condition]:
        names = ["every-1", *(f"every-{K}{part}" for K in self.periods for part in ("", "+reset"))]
        return [parse_condition(name) for name in names]


class Restart(AbstractGridStudy[RestartSpec]):
    """Does it matter whether momentum starts anew at each re-linearisation?

    `conclude.py`, `page.py` and `terminal.py` beside it say what follows and how it is shown.
    """

    name = "restart"
    settings = RestartSpec


STUDY = Restart
