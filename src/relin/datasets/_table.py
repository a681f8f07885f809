"""Regression tables: CSV and Parquet files, and scikit-learn's diabetes."""

import os
from pathlib import Path

import numpy as np
import polars as pl

from relin._common.files import read_file
from relin._common.words import listed
from relin.datasets._dataset import Dataset, Examples
from relin.datasets._errors import DatasetError

_BOM = b"\xef\xbb\xbf"
"""Before a CSV file, it keeps Polars from decompressing one that looks compressed."""
_READERS = {
    ".csv": lambda content: pl.read_csv(_BOM + content),
    ".tsv": lambda content: pl.read_csv(_BOM + content, separator="\t"),
    ".parquet": pl.read_parquet,
}
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_HELD_OUT = 5
"""A fifth of the rows tests, and of the others a fifth validates."""


def table(path: str | os.PathLike[str], target: str) -> Dataset:
    """A table of numbers, one column of which is predicted from the others, for `SquaredError`.

    In a fixed random order a fifth of the rows tests, a fifth of the others validates, and the rest trains. All
    columns, the target too, get mean 0 and variance 1 on the training rows; a column that is constant there becomes 0.

    **Arguments:**

    - `path`: of a CSV, TSV or Parquet file whose columns are numbers or booleans.
    - `target`: the name of the column to predict.

    **Returns:** a `Dataset` with x of shape (rows, columns − 1) and y of shape (rows, 1), float32; `num_classes` is 1,
    the number of outputs.

    **Raises:** `DatasetError` for a file that cannot be read, an unknown target, text or missing values.
    """
    path = Path(path).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path} must be a .csv, .tsv or .parquet file; convert it to one.")
    try:
        content = read_file(path)
        packed = next((kind for magic, kind in _PACKED.items() if content.startswith(magic)), None)
        if packed:
            raise DatasetError(f"{path} is compressed with {packed}; decompress it first.")
        frame = reader(content.removeprefix(_BOM))
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); name a file that is there.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DatasetError(f"{path} is no table that can be read ({reason}); repair it.") from None
    return _dataset(f"table:{path}#{target}", frame, target)


def diabetes() -> Dataset:
    """The 442 patients of Efron et al. 2004, ten measurements each, and how the disease went on."""
    from sklearn.datasets import load_diabetes

    x, y = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    columns = {f"x{number}": x[:, number] for number in range(x.shape[1])}
    return _dataset("diabetes", pl.DataFrame({**columns, "progression": y}), "progression")


def _dataset(name: str, frame: pl.DataFrame, target: str) -> Dataset:
    if target not in frame.columns:
        raise DatasetError(f"`target` must be a column of the table, got {target!r}; they are {listed(frame.columns)}.")
    for column, kind in frame.schema.items():
        if not (kind.is_numeric() or kind == pl.Boolean):
            raise DatasetError(f"Columns must be numbers, got {column!r} of {kind}; encode it as numbers or drop it.")
    if len(frame.columns) < 2 or len(frame) < 10:
        raise DatasetError(
            f"Tables need at least 2 columns and 10 rows, got {len(frame.columns)} and {len(frame)}; use a larger one."
        )
    values = frame.select(pl.all().cast(pl.Float64)).to_numpy()
    if not np.isfinite(values).all():
        column = frame.columns[int(np.argmin(np.isfinite(values).all(axis=0)))]
        raise DatasetError(
            f"Tables must have no missing values, got some in {column!r}; fill them in or drop the rows."
        )
    values = values[np.random.RandomState(0).permutation(len(values))]
    num_test = len(values) // _HELD_OUT
    num_validation = (len(values) - num_test) // _HELD_OUT
    test, validation, train = np.split(values, [num_test, num_test + num_validation])
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    place = frame.columns.index(target)

    def standard(part: np.ndarray) -> Examples:
        scaled = ((part - mean) / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)
        return Examples(np.delete(scaled, place, axis=1), scaled[:, place : place + 1])

    return Dataset(
        name=name,
        train=standard(train),
        validation=standard(validation),
        test=standard(test),
        num_classes=1,
        normalisation=f"(x − m)/s per column, of the {len(train)} training rows; {target} has m = {mean[place]:.6g} "
        f"and s = {deviation[place]:.6g}",
        split=f"In a fixed random order {num_test} rows test, {num_validation} validate, {len(train)} train.",
    )
