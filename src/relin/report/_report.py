"""The report of any study, by the type of its result. Matplotlib is imported only where one is drawn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from relin.study._descent_result import DampingResult, InterpolationResult
from relin.study._kernel_result import KernelResult, WidthResult
from relin.study._result import (
    EssentialResult,
    FrequencyResult,
    LayersResult,
    StabilityResult,
    StudyResult,
    TimingResult,
)


def write_report(
    result: StudyResult,
    records: pl.DataFrame,
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
    out_dir: Path,
) -> Path:
    """Write the report of a study and return the path of its page.

    In `out_dir` there will be `report.html`, which holds everything it shows; `figures/*.png` and `figures/*.pdf`;
    `table.csv`, the outcomes in full precision (beside it `placements.csv` of the timing study, `frozen.csv` of the
    kernel study, `distances.csv` of the damping study); and `summary.txt`. Each file is replaced in one step, the page
    last.

    Args:
        result: the conclusions to show.
        records: a row per run and recorded step, of one model on one data set, at every learning rate tried.
        spec: the settings of the study, nested mappings of plain values.
        environment: versions and device; its entry `command`, if any, is shown as the way to reproduce the study.
        out_dir: created where it does not exist.

    Raises:
        ValueError: there is no outcome or no record, or the records or settings are not those of the result.
        TypeError: the result is that of no study known here.
    """
    match result:
        case FrequencyResult():
            from relin.report._frequency import write_report as write_frequency_report

            return write_frequency_report(result, records, spec, environment, out_dir)
        case EssentialResult():
            from relin.report._essential import write_essential_report

            return write_essential_report(result, records, spec, environment, out_dir)
        case LayersResult():
            from relin.report._layers import write_layers_report

            return write_layers_report(result, records, spec, environment, out_dir)
        case TimingResult():
            from relin.report._timing import write_timing_report

            return write_timing_report(result, records, spec, environment, out_dir)
        case StabilityResult():
            from relin.report._stability import write_stability_report

            return write_stability_report(result, records, spec, environment, out_dir)
        case KernelResult():
            from relin.report._kernel import write_kernel_report

            return write_kernel_report(result, records, spec, environment, out_dir)
        case WidthResult():
            from relin.report._width import write_width_report

            return write_width_report(result, records, spec, environment, out_dir)
        case DampingResult():
            from relin.report._damping import write_damping_report

            return write_damping_report(result, spec, environment, out_dir)
        case InterpolationResult():
            from relin.report._interpolation import write_interpolation_report

            return write_interpolation_report(result, spec, environment, out_dir)
        case _:
            raise TypeError(
                f"Expected the result of a known study, got {type(result).__name__}; pass what the study concluded."
            )
