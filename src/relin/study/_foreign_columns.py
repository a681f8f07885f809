"""A table of runs that were made elsewhere: what its columns must hold, and what is wrong with them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from relin._common.words import listed, shortened
from relin.study._condition import every, parse_condition
from relin.study._judged import DIVERGED, FAILED, TRAINED
from relin.study._measured import ACCURACIES, BETTER, CONSTANTS
from relin.study._named import LARGEST

_INFINITE = ("inf", "infinity", "∞")


@dataclass(frozen=True)
class _Kind:
    """What the numbers of a column are, in words after *must be*, and whether each row must have one."""

    words: str
    contains: Callable[[pl.Expr], pl.Expr]
    required: bool = False
    whole: bool = False
    remedy: str = "correct it"


def _whole(least: int | None = None, required: bool = False) -> _Kind:
    def contains(value: pl.Expr) -> pl.Expr:
        above = pl.lit(value=True) if least is None else value >= least
        return (value == value.round()) & above & (value.abs() < 2**53)

    words = "a whole number" + ("" if least is None else f" of at least {least}")
    return _Kind(words, contains, required, whole=True)


_FRACTION = _Kind(
    "a fraction from 0 to 1",
    lambda value: value.is_between(0, 1) | value.is_nan(),
    remedy="divide accuracies in percent by 100",
)
_ANY = _Kind("a number", lambda _: pl.lit(value=True))
NUMBERS: Mapping[str, _Kind] = {
    "seed": _whole(required=True),
    "learning_rate": _Kind("a number above 0", lambda value: value.is_finite() & (value > 0), required=True),
    "step": _whole(0, required=True),
    "run_steps": _whole(1, required=True),
    "feature_updates": _Kind("a number of at least 0", lambda value: value >= 0),
    "diverged_at": _whole(0),
    "batch_size": _whole(1),
    "num_classes": _whole(2),
    "test_accuracy": _FRACTION,
    "validation_accuracy": _FRACTION,
    "network_test_accuracy": _FRACTION,
    "constant_accuracy": _Kind("a fraction above 0", lambda value: (value > 0) & (value <= 1)),
    "train_loss": _ANY,
    "validation_loss": _ANY,
    "final_loss": _ANY,
    "constant_loss": _ANY,
    "linearisation_error": _ANY,
    "parameter_movement": _ANY,
}
"""The columns of numbers that studies read, each of which is kept as it is checked; all others are kept as they are."""
TEXTS = ("schedule", "data", "model", "result")


def table_of(runs: Any) -> pl.DataFrame:
    """A Polars frame of what was given: one of Polars or pandas, a mapping of columns, a list of rows.

    **Raises:** `ValueError` for anything else, and for a table without rows.
    """
    if isinstance(runs, pl.LazyFrame):
        runs = runs.collect()
    if hasattr(runs, "to_dict") and not isinstance(runs, pl.DataFrame | pl.Series):
        runs = runs.to_dict(orient="list")  # that of pandas needs no PyArrow in this way
    try:
        table = pl.DataFrame(runs, strict=False, infer_schema_length=None)
    except (TypeError, ValueError, AttributeError, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"Expected a table of runs, such as a Polars or pandas frame, got {type(runs).__name__} ({error}); give a "
            "row for each run, or for each run and recorded step."
        ) from None
    if table.is_empty():
        raise ValueError("Expected a table of runs, got one without rows; give a row for each run.")
    return table


def with_checked_columns(table: pl.DataFrame) -> pl.DataFrame:
    """The table with its known columns of the right types, and `schedule` and `period` from either of them.

    **Raises:** `ValueError` with the first row in which a column does not hold what it must.
    """
    for name in TEXTS:
        if name in table.columns and table.schema[name] != pl.String:
            if not isinstance(table.schema[name], pl.Categorical | pl.Enum | pl.Null):
                raise ValueError(f"The column {name} must hold names, got {table.schema[name]}; write them as text.")
            table = table.with_columns(pl.col(name).cast(pl.String))
    own = dict.fromkeys((*ACCURACIES, CONSTANTS[0]), _ANY) if BETTER in table.columns else {}
    for name, kind in {**NUMBERS, **own}.items():
        if name in table.columns:
            table = _with_numbers(table, name, kind)
    if "result" in table.columns:
        _check_names(table, "result", (TRAINED, FAILED, DIVERGED))
    return _with_schedules(table)


def _with_numbers(table: pl.DataFrame, name: str, kind: _Kind) -> pl.DataFrame:
    column = table[name]
    if not (column.dtype.is_numeric() or column.dtype == pl.Null):
        row = next((row for row, value in enumerate(column) if value is not None), 0)
        _refuse(name, kind, column[row], row, "store numbers")
    value = pl.col(name).cast(pl.Float64)
    right = kind.contains(value).fill_null(value=not kind.required)
    if not kind.required and name not in ACCURACIES:
        right = right | value.is_nan()
    wrong = table.select(~right).to_series().arg_true()
    if not wrong.is_empty():
        _refuse(name, kind, table[name][wrong[0]], wrong[0], kind.remedy)
    number = value.fill_nan(None).cast(pl.Int64) if kind.whole else value
    return table.with_columns(number.alias(name))


def _refuse(name: str, kind: _Kind, value: Any, row: int, remedy: str) -> None:
    value = value.to_list() if isinstance(value, pl.Series) else value
    raise ValueError(f"{name} must be {kind.words}, got {shortened(value)} in row {row}, counted from 0; {remedy}.")


def _check_names(table: pl.DataFrame, name: str, known: tuple[str, ...]) -> None:
    unknown = table[name].drop_nulls().unique().sort().to_list()
    if unknown := [value for value in unknown if value not in known]:
        raise ValueError(f"{name} must be one of {listed(known)}, got {listed(unknown)}; correct or drop the column.")


def _with_schedules(table: pl.DataFrame) -> pl.DataFrame:
    if "schedule" not in table.columns and "period" not in table.columns:
        raise ValueError(
            f"Expected the column period (K, or inf for lazy training) or schedule (such as every-4 or never), got "
            f"{listed(table.columns)}; add one of them."
        )
    if "schedule" not in table.columns:
        names = [every(_period(value, row)).name for row, value in enumerate(table["period"])]
        table = table.with_columns(schedule=pl.Series(names, dtype=pl.String))
    elif table["schedule"].null_count():
        row = table["schedule"].is_null().arg_true()[0]
        raise ValueError(f"schedule has no value in row {row}, counted from 0; name the schedule of every run.")
    conditions = {name: parse_condition(name) for name in table["schedule"].unique()}
    if "period" in table.columns:
        _check_agreement(table, {name: condition.period for name, condition in conditions.items()})
    names, periods = zip(*((name, condition) for name, condition in conditions.items()), strict=True)
    return table.with_columns(
        schedule=pl.col("schedule").replace_strict(names, [c.name for c in periods], return_dtype=pl.String),
        period=pl.col("schedule").replace_strict(names, [c.period for c in periods], return_dtype=pl.Float64),
    )


def _check_agreement(table: pl.DataFrame, periods: Mapping[str, float | None]) -> None:
    for row, (name, value) in enumerate(table.select("schedule", "period").iter_rows()):
        if value is not None and value == value and _period(value, row) != periods[name]:
            raise ValueError(
                f"period is {shortened(value)} in row {row}, counted from 0, and schedule is {name}; correct or drop "
                "one of the two columns."
            )


def _period(value: Any, row: int) -> float:
    text = str(value).strip().lower()
    try:
        period = math.inf if text in _INFINITE else float(text)
    except ValueError:
        period = math.nan
    if period != math.inf and not (1 <= period <= LARGEST and period.is_integer()):
        raise ValueError(
            f"period must be a whole number K from 1 to {LARGEST:,}, or inf for lazy training, got "
            f"{shortened(value)} in row {row}, counted from 0; correct it."
        )
    return period
