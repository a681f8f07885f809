"""The report of any study. Matplotlib is imported only where one is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from relin._common.words import listed
from relin.study._registry import find
from relin.study._result import StudyResult


def write_report(
    result: StudyResult,
    records: pl.DataFrame,
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
    out_dir: Path,
    against: str | None = None,
) -> Path:
    """Write the report of a study and return the path of its page.

    In `out_dir` there will be `report.html`, which holds everything it shows; `figures/*.png` and `figures/*.pdf`;
    `table.csv`, the outcomes in full precision (beside it what else a study has, such as `placements.csv`); and
    `summary.txt`. Each file is replaced in one step, the page last.

    **Arguments:**

    - `result`: the conclusions to show.
    - `records`: a row per run and recorded step, of one model on one data set, at every learning rate tried.
    - `spec`: the settings of the study, nested mappings of plain values.
    - `environment`: versions and device; its entry `command`, if any, is shown as the way to reproduce the study.
    - `out_dir`: created where it does not exist.
    - `against`: what figures of feature updates have on their axis, of what the study offers; each its own, if none.

    **Raises:** `ValueError`: there is no outcome or no record, the records or settings are not those of the result,
    there is no study of the result's name, or it does not offer `against`.
    """
    from relin.report._page import write_study_page

    check_against(result.study, against)
    choice = () if against is None else (against,)
    page = find(result.study).page(result, records, spec, *choice)
    return write_study_page(result, page, spec, environment, out_dir)


def check_against(study: str, against: str | None) -> None:
    """Raises `ValueError` where no figure of a study can have this on its axis."""
    offered = find(study).drawn_against
    if against is None or against in offered:
        return
    if not offered:
        raise ValueError(
            f"against: no figure of the study {study} has the feature updates of a run on its axis, got {against}; "
            "leave it out."
        )
    raise ValueError(
        f"against: the figures of the study {study} can be drawn against {listed(offered)}, got {against}; choose one "
        "of these."
    )
