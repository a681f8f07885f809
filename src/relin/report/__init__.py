"""Reports of studies, rendered from stored results only: pages, figures, tables and terminal summaries."""

from relin.report._report import write_report as write_report
from relin.report._terminal import terminal_summary as terminal_summary
