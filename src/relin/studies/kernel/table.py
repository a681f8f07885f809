"""The tables of the kernel study: its columns beside those of every study, and the frozen kernels."""

from typing import Any

from relin.report import _text as text
from relin.report._html import Column
from relin.report._tables import Extra, csv_of, interval_columns
from relin.studies.kernel.result import KernelResult
from relin.study._result import Interval, ScheduleOutcome

FIELDS = {
    "distance": "Kernel distance",
    "change": "Relative kernel change",
    "cka": "CKA to step 0",
    "alignment": "Target alignment",
    "effective_rank": "Effective rank",
}


def kernel_extra(result: KernelResult) -> list[Extra]:
    """The columns of the page's table."""

    def cell(field: str, outcome: ScheduleOutcome) -> str:
        return text.measured(interval_of(result, outcome, field))

    return [
        (Column(heading, "± 95 % interval"), lambda outcome, field=field: cell(field, outcome))
        for field, heading in FIELDS.items()
    ]


def interval_of(result: KernelResult, outcome: ScheduleOutcome, field: str) -> Interval | None:
    """A metric of a schedule's kernel at the end."""
    kernel = result.kernel(outcome.schedule)
    return None if kernel is None else getattr(kernel, field)


def kernel_columns(result: KernelResult) -> dict[str, dict[str, Any]]:
    """By schedule, the columns of the CSV file."""
    columns = dict[str, dict[str, Any]]()
    for kernel in result.kernels:
        own: dict[str, Any] = {"num_kernel_seeds": kernel.num_seeds}
        for field in FIELDS:
            own |= interval_columns(f"kernel_{field}", getattr(kernel, field))
        columns[kernel.schedule] = own
    return columns


def frozen_csv(result: KernelResult) -> str:
    """The accuracy on every frozen kernel as CSV, a row a step, with the gain over the first repeated in each."""
    rows = [
        {"schedule": frozen.schedule, "step": step, "num_seeds": frozen.num_seeds}
        | interval_columns("frozen_kernel_accuracy", accuracy)
        | interval_columns("gain_of_last", frozen.gain)
        for frozen in result.frozen
        for step, accuracy in zip(frozen.steps, frozen.accuracy, strict=True)
    ]
    return csv_of(rows)
