"""Records as files, and whether they are what a study's runs leave: every row once, of the right types and settings."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from relin._common.files import BLANK, is_damaged, sealed
from relin._common.words import listed
from relin.study._job import Identity
from relin.study._registry import find
from relin.study._settings import STORED, StudySpec

RUN = ("schedule", "run_steps", "learning_rate", "seed")
DATA_DIGEST = "data_digest"
"""A column of data that a function of the user's own gave, whose settings know the function's text alone."""
_NUMBERS = (*RUN[1:], "step", "diverged_at")
_TEXTS = frozenset(
    (
        "study",
        "data",
        "model",
        "stage",
        "schedule",
        "mode",
        "way",
        "result",
        "measure",
        "measure_unit",
        "measure_better",
        "spec",
        "versions",
        "device",
        DATA_DIGEST,
    )
)
_LISTS = frozenset(("outputs", "network_outputs"))
_REQUIRED = ("schedule", *_NUMBERS, "result", "spec", "versions", "device")
Fault = str
"""What is wrong with records, as the end of a sentence."""


class OtherSettingsError(ValueError):
    """The records are those of a study with other settings."""


def to_parquet(records: pl.DataFrame, compression_level: int | None = None) -> bytes:
    """Records as a Parquet file that tells when it is damaged."""
    content = io.BytesIO()
    records.write_parquet(content, compression_level=compression_level, metadata=BLANK)
    return sealed(content.getvalue())


def from_parquet(content: bytes, most: int | None = None) -> pl.DataFrame:
    """Records of a Parquet file; `most` rows at most, so that a small file cannot fill the memory.

    **Raises:** `ValueError` for a file that is damaged or holds no records; the message is the end of a sentence.
    """
    if is_damaged(content):
        raise ValueError("its bytes have changed")
    try:
        if most is not None and pl.scan_parquet(io.BytesIO(content)).select(pl.len()).collect().item() > most:
            raise ValueError("rows that no run of this study has")
        records = pl.read_parquet(content)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        raise ValueError("no Parquet file") from None
    if fault := _types_fault(records.schema):
        raise ValueError(fault)
    return records


def in_order(records: pl.DataFrame, axis: str | None = None) -> pl.DataFrame:
    """Records in the order in which they are stored: run by run, by step; `axis` is what a study compares first."""
    return records.sort([name for name in (axis, *RUN, "step") if name in records.columns])


def _types_fault(schema: Mapping[str, pl.DataType]) -> Fault | None:
    missing = [name for name in _REQUIRED if name not in schema]
    if missing:
        return f"no column {listed(missing)}"
    for name, kind in schema.items():
        if name in _TEXTS:
            right = kind == pl.String
        elif name in _LISTS:
            right = kind == pl.List(pl.Float64)
        else:
            right = kind.is_float() or kind.is_integer() or kind == pl.Null
        if not right:
            return f"a column {name} of type {kind}"
    return None


def identities(records: pl.DataFrame, axis: str | None = None) -> set[Identity]:
    """The runs that records are of; `axis` is the column of what a study compares beside schedules."""
    return set(_keys(records, axis).select(*RUN, "place").unique().rows())  # pyright: ignore[reportReturnType]


def faults(
    parts: Sequence[pl.DataFrame], expected: Sequence[set[Identity]], axis: str | None = None
) -> dict[int, Fault]:
    """What is wrong with records that `from_parquet` read, by their place; each part is to hold the runs expected."""
    keys = ["part", *RUN, "place"]
    rows = pl.concat(
        [_keys(part, axis).with_columns(part=pl.lit(n)) for n, part in enumerate(parts)], how="vertical_relaxed"
    )
    runs = rows.sort("step").group_by(keys).agg(*_run_faults())
    found = dict[int, Fault]()
    held = [set[Identity]() for _ in parts]
    for part, *identity, doubled, missing in runs.select(*keys, "doubled", "missing").iter_rows():
        held[part].add(tuple(identity))  # pyright: ignore[reportArgumentType]
        if doubled or missing:
            found[part] = "rows that are there twice" if doubled else "rows missing"
    return {**{n: "other runs" for n, own in enumerate(held) if own != expected[n]}, **found}


def _keys(part: pl.DataFrame, axis: str | None) -> pl.DataFrame:
    place = pl.lit(None) if axis is None or axis not in part.columns else pl.col(axis)
    ends = pl.lit("network_outputs" in part.columns)
    return part.select("schedule", *_NUMBERS, place.cast(pl.Int64).alias("place"), ends.alias("ends"))


def _run_faults() -> tuple[pl.Expr, pl.Expr]:
    """Of a run's rows in order: whether a step is there twice, and whether one is missing.

    Steps are evenly spaced from 0 on, the last one possibly nearer, and end with the run or where it diverged; a study
    that compares where runs end keeps one row of each.
    """
    step, gap, steps = pl.col("step"), pl.col("step").diff().drop_nulls(), pl.col("run_steps").first()
    even = (gap.max() == gap.first()) & (gap.head(pl.len() - 2).n_unique() <= 1)
    begun = (step.first() == 0) & (even | (pl.len() == 1))
    diverged = pl.col("diverged_at").first()
    last = step.last()
    ended = pl.when(diverged.is_null()).then(last == steps).otherwise(last.is_between(diverged - 1, steps))
    end = pl.col("ends").first() & (pl.len() == 1) & (last == steps)
    return (step.n_unique() < pl.len()).alias("doubled"), (~((begun & ended) | end)).fill_null(True).alias("missing")


def check_settings(records: pl.DataFrame, spec: StudySpec) -> Fault | None:
    """What is wrong with the settings that records name, if anything.

    **Raises:** `OtherSettingsError` if they are another study's.
    """
    for text, versions in records.select("spec", "versions").unique().iter_rows():
        try:
            settings = json.loads(text)
            own = find(settings["study"]).settings.model_validate(settings, context=STORED)
        except (ValueError, KeyError, TypeError, RecursionError):
            return "settings that no study has"
        if own != spec:
            raise OtherSettingsError(_different(own, spec))
        try:
            dict(json.loads(versions))
        except (ValueError, TypeError, RecursionError):
            return "versions that no program has"
    return None


def _different(one: StudySpec, other: StudySpec) -> str:
    first, second = (s.model_dump(mode="json") for s in (one, other))
    return ", ".join(sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name)))


def environments(records: pl.DataFrame, axis: str | None = None) -> dict[str, Any]:
    """Versions and device of stored records, each with every value there is, and of how many runs if they differ."""
    keys = list(dict.fromkeys([*RUN, *([axis] if axis in records.columns else [])]))
    runs = records.group_by("versions", "device").agg(pl.struct(keys).n_unique().alias("runs"))
    counts = dict[str, dict[str, int]]()
    for versions, device, number in runs.sort("versions", "device").iter_rows():
        own = {**json.loads(versions), "device": device}
        for name, value in own.items():
            values = counts.setdefault(name, {})
            values[str(value)] = values.get(str(value), 0) + number
    return {name: _with_counts(values) for name, values in counts.items()}


def _with_counts(values: Mapping[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({number} run{'' if number == 1 else 's'})" for value, number in values.items())
