"""Columns of a table as inputs and targets: numbers, lists of numbers, pictures, and classes by name."""

import io
import math
import warnings
from typing import Any

import numpy as np
import polars as pl

from relin._common.words import listed
from relin.datasets._assemble import Content
from relin.datasets._errors import DatasetError
from relin.datasets._places import part_of

_USUAL_TARGETS = ("label", "labels")


def content(frames: dict[str, pl.DataFrame], target: str | None, where: str, note: str = "") -> Content:
    """Inputs and targets of every part.

    Columns of numbers, all but the target, are the inputs of shape (rows, columns). One column of lists or pictures is
    the input as it is; several columns, some of them lists, are a dictionary of inputs.

    **Arguments:** `target`: a column's name; none for the one named label or labels; `where`: the data are, for
    messages.

    **Raises:** `DatasetError` for an unknown target, text among the inputs, missing values, rows of different length.
    """
    frames = {part: _plain(frame) for part, frame in frames.items()}
    columns = frames["train"].columns
    if target is None:
        target = next((name for name in _USUAL_TARGETS if name in columns), None)
        if target is None:
            raise DatasetError(f"{where} has no column named label; name one with #COLUMN: {listed(columns)}.")
    for part, frame in frames.items():
        if target not in frame.columns:
            raise DatasetError(
                f"The target must be a column of {part_of(where, part, frames)}, got {target!r}; its columns are "
                f"{listed(frame.columns)}."
            )
        if set(frame.columns) != set(columns):
            raise DatasetError(
                f"All parts of {where} must have the same columns, got {listed(frame.columns)} in {part} and "
                f"{listed(columns)} in train; drop the others."
            )
    inputs = [name for name in columns if name != target]
    if not inputs:
        raise DatasetError(f"{where} must have a column beside the target {target!r}, got none; add inputs.")
    standard = all(_is_number(frames["train"].schema[name]) for name in inputs)
    parts = {
        part: (_inputs(frame, inputs, standard, place), _array(frame[target], target, place, names=True))
        for part, frame in frames.items()
        for place in [part_of(where, part, frames)]
    }
    return Content(parts, standard, note=note)


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns without types that only other libraries know."""
    return frame.with_columns(
        frame[name].ext.storage() for name, kind in frame.schema.items() if isinstance(kind, pl.BaseExtension)
    )


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean


def _inputs(frame: pl.DataFrame, names: list[str], standard: bool, where: str) -> Any:
    if standard:
        columns = [_array(frame[name].cast(pl.Float64), name, where) for name in names]
        return np.stack(columns, axis=1)
    arrays = {name: _array(frame[name], name, where) for name in names}
    return arrays[names[0]] if len(names) == 1 else arrays


def _array(series: pl.Series, name: str, where: str, names: bool = False) -> np.ndarray:
    """The numbers of a column, of shape (rows, …), or the `names` in it, where these may be."""
    if series.null_count():
        row = series.is_null().arg_max()
        raise DatasetError(f"{_place(name, where)} must have no missing values, got one at row {row}; {_REPAIR}.")
    if names and isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum):
        return series.cast(pl.String).to_numpy().astype(str)
    if isinstance(series.dtype, pl.Decimal):
        series = series.cast(pl.Float64)
    if _is_number(series.dtype):
        array = series.to_numpy()
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argmin(np.isfinite(array)))
            raise DatasetError(f"{_place(name, where)} must be finite, got {array[row]} at row {row}; {_REPAIR}.")
        return array
    if isinstance(series.dtype, pl.List | pl.Array):
        return _nested(series, name, where)
    if isinstance(series.dtype, pl.Struct) and {"bytes", "path"} == {field.name for field in series.dtype.fields}:
        return _pictures(series.struct.field("bytes"), name, where)
    raise DatasetError(
        f"{_place(name, where)} must be numbers, got {_example(series)}; encode it as numbers or drop it."
    )


_REPAIR = "repair or drop that row (counted from 0)"


def _place(name: str, where: str) -> str:
    return f"Column {name!r} of {where}"


def _example(series: pl.Series) -> str:
    """A value that is no number, with its row."""
    if series.dtype != pl.String:
        return str(series.dtype)
    numbers = series.cast(pl.Float64, strict=False)
    row = int(numbers.is_null().arg_max() or 0)
    return f"the text {series[row][:40]!r} at row {row} (counted from 0)"


def _nested(series: pl.Series, name: str, where: str) -> np.ndarray:
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    lengths = series.list.len()
    if len(series) and lengths.min() != lengths.max():
        row = int((lengths != lengths[0]).arg_max() or 0)
        raise DatasetError(
            f"{_place(name, where)} must have rows of one length, got {lengths[0]} at row 0 and {lengths[row]} at row "
            f"{row} (counted from 0); pad or cut them."
        )
    width = int(lengths[0]) if len(series) else 0
    if not width:
        raise DatasetError(f"{_place(name, where)} must hold numbers, got empty lists; drop it.")
    inner = series.explode()
    try:
        found = _array(inner, name, where)
    except DatasetError as error:
        raise DatasetError(f"In lists of {width}, one after another: {error}") from None
    return found.reshape(len(series), width, *found.shape[1:])


def _pictures(series: pl.Series, name: str, where: str) -> np.ndarray:
    """Pictures in files, as bytes of shape (rows, height, width, channels)."""
    from PIL import Image

    pictures = []
    for row, data in enumerate(series):
        if data is None:
            raise DatasetError(f"{_place(name, where)} names a picture's file at row {row}; store its bytes instead.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(io.BytesIO(data)) as picture:
                    if pictures and _shape(picture) != pictures[0].shape:
                        raise DatasetError(
                            f"{_place(name, where)} must have pictures of one size, got {_shape(picture)} at row {row} "
                            f"and {pictures[0].shape} at row 0; resize them."
                        )
                    array = np.asarray(picture)
        except DatasetError:
            raise
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as fault:
            raise DatasetError(f"{_place(name, where)} holds no picture at row {row} ({fault}); {_REPAIR}.") from None
        if array.dtype != np.uint8 or picture.mode == "P":
            raise DatasetError(
                f"{_place(name, where)} must have pictures of bytes, got mode {picture.mode} at row {row}; convert "
                "them, for example to RGB."
            )
        pictures.append(array[..., None] if array.ndim == 2 else array)
    return np.stack(pictures) if pictures else np.empty((0, 1, 1, 1), np.uint8)


def _shape(picture: Any) -> tuple[int, int, int]:
    return picture.height, picture.width, len(picture.getbands())


def expands_to(frame: pl.LazyFrame) -> int:
    """The bytes of a table's numbers, from what its file says of itself."""
    rows = frame.select(pl.len()).collect().item()
    return math.prod((rows, len(frame.collect_schema()), 8))
