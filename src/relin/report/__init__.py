"""Reports of studies, rendered from stored results only: pages, figures, tables and terminal summaries."""

from typing import TYPE_CHECKING

from relin._common.lazy import names_of
from relin.report._current import write_current as write_current
from relin.report._report import write_report as write_report
from relin.report._terminal import terminal_summary as terminal_summary

if TYPE_CHECKING:
    from relin.report._public import *  # noqa: F403

__getattr__, _of_public = names_of("relin.report._public")


def __dir__() -> list[str]:
    return sorted({*_of_public(), "terminal_summary", "write_current", "write_report"})
