"""The report of any study. Matplotlib is imported only where one is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from relin.study._registry import find
from relin.study._result import StudyResult


def write_report(
    result: StudyResult,
    records: pl.DataFrame,
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
    out_dir: Path,
) -> Path:
    """Write the report of a study and return the path of its page.

    In `out_dir` there will be `report.html`, which holds everything it shows; `figures/*.png` and `figures/*.pdf`;
    `table.csv`, the outcomes in full precision (beside it what else a study has, such as `placements.csv`); and
    `summary.txt`. Each file is replaced in one step, the page last.

    Args:
        result: the conclusions to show.
        records: a row per run and recorded step, of one model on one data set, at every learning rate tried.
        spec: the settings of the study, nested mappings of plain values.
        environment: versions and device; its entry `command`, if any, is shown as the way to reproduce the study.
        out_dir: created where it does not exist.

    Raises:
        ValueError: there is no outcome or no record, the records or settings are not those of the result, or there is
            no study of the result's name.
    """
    from relin.report._page import write_study_page

    page = find(result.study).page(result, records, spec)
    return write_study_page(result, page, spec, environment, out_dir)
