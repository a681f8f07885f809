"""Studies: a question, a grid of runs, their records, the statistics of the answer."""

from typing import TYPE_CHECKING

from relin._common.lazy import names_of

if TYPE_CHECKING:
    from relin.study._public import *  # noqa: F403

__getattr__, __dir__ = names_of("relin.study._public")
