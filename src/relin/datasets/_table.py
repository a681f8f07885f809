"""Tables: CSV, TSV and Parquet files, and scikit-learn's diabetes."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from relin._common.files import read_file
from relin.datasets._assemble import assembled
from relin.datasets._dataset import Dataset
from relin.datasets._errors import DatasetError
from relin.datasets._expanding import check_expansion
from relin.datasets._frame import content, expands_to

_BOM = b"\xef\xbb\xbf"
"""Before a CSV file, it keeps Polars from decompressing one that looks compressed."""
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def table(path: str | os.PathLike[str], target: str) -> Dataset:
    """A table, one column of which is predicted from the others.

    A target of text, categories, integers or booleans is a class, see `Dataset.classes`; one of floats is a value to
    predict, for `SquaredError`. A fifth of the rows tests, a fifth of the others validates, and the rest trains, in a
    fixed random order; each class has its share in all three. Columns of numbers get mean 0 and variance 1 on the
    training rows, as does a target of floats; one that is constant there becomes 0.

    **Arguments:**

    - `path`: of a CSV, TSV or Parquet file whose columns, but for the target, are numbers or booleans; in Parquet also
      lists of them of one length, or pictures, see `relin.datasets.load`.
    - `target`: the name of the column to predict.

    **Returns:** a `Dataset` with x of shape (rows, columns − 1), float32, and y of shape (rows,), int32, or, of values,
    (rows, 1), float32; `num_classes` is then 1, the number of outputs.

    **Raises:** `DatasetError` for a file that cannot be read, an unknown target, text among the inputs, missing values,
    fewer than two classes, or fewer than three rows of a class.
    """
    path = Path(path).expanduser()
    frame = _read(path)
    return assembled(f"table:{path}#{target}", content({"train": frame}, target, str(path)))


def diabetes() -> Dataset:
    """The 442 patients of Efron et al. 2004, ten measurements each, and how the disease went on."""
    from sklearn.datasets import load_diabetes

    x, y = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    columns = {f"x{number}": x[:, number] for number in range(x.shape[1])}
    frame = pl.DataFrame({**columns, "progression": y})
    return assembled("diabetes", content({"train": frame}, "progression", "diabetes"))


def _read(path: Path) -> pl.DataFrame:
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        raise DatasetError(f"{path} must be a .csv, .tsv or .parquet file; convert it to one.")
    try:
        data = read_file(path)
        packed = next((kind for magic, kind in _PACKED.items() if data.startswith(magic)), None)
        if packed:
            raise DatasetError(f"{path} is compressed with {packed}; decompress it first.")
        if path.suffix.lower() == ".parquet":
            check_expansion(path, expands_to(pl.scan_parquet(io.BytesIO(data))), len(data))
            return pl.read_parquet(io.BytesIO(data))
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        frame = pl.read_csv(_BOM + data.removeprefix(_BOM), separator=separator, infer_schema_length=None)
        return frame.with_columns(_numbers_beside_nan(frame))
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); name a file that is there.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise DatasetError(f"{path} is no table that can be read ({reason}); repair it.") from None


def _numbers_beside_nan(frame: pl.DataFrame) -> Iterator[pl.Series]:
    """Columns of numbers that Polars takes for text, because some are `nan` or `inf`."""
    for column in frame.select(pl.col(pl.String)):
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count() == column.null_count() and not numbers.is_finite().all():
            yield numbers
