"""Everything public in `relin.report` that draws, imported at its first use."""

from relin.report._altair import altair_config as altair_config
from relin.report._figures import Plot as Plot
from relin.report._gallery import write_gallery as write_gallery
from relin.report._html import Column as Column, Html as Html, Row as Row, table as table
from relin.report._page import (
    Report as Report,
    Tile as Tile,
    shared_tiles as shared_tiles,
    statistics as statistics,
)
from relin.report._rate_map import rates_plot as rates_plot
from relin.report._records import StudyRecords as StudyRecords
from relin.report._style import Theme as Theme, new_figure as new_figure
from relin.report._tables import csv_of as csv_of, outcomes_csv as outcomes_csv, outcomes_table as outcomes_table
from relin.report._terminal import (
    Layout as Layout,
    Terminal as Terminal,
    grid_terminal as grid_terminal,
    plain_table as plain_table,
)
