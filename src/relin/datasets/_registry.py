"""`load`, `names` and `status`."""

import difflib
import operator
import os
from pathlib import Path
from typing import NamedTuple, SupportsIndex

from relin._common.words import listed
from relin.datasets import _generated
from relin.datasets._array_files import read_npy, read_npz
from relin.datasets._assemble import assembled, limited as limited_to
from relin.datasets._dataset import Dataset, DatasetStatus, Examples, RawExamples
from relin.datasets._download import download as fetch, missing
from relin.datasets._errors import DatasetError
from relin.datasets._files import read_files
from relin.datasets._functions import generated
from relin.datasets._huggingface import read_folder
from relin.datasets._locate import check_data_dir, locate, places, verify
from relin.datasets._names import FORMS, FUNCTION_FORMS, KINDS, function, is_known, names, own
from relin.datasets._normalise import Normaliser
from relin.datasets._sources import SOURCES, Source
from relin.datasets._table import diabetes, table
from relin.datasets._text import text

_MNIST1D_VALIDATION = 500


class _Raw(NamedTuple):
    """A dataset before normalisation; `levels` is the raw value that counts as 1, none for floats."""

    train: RawExamples
    validation: RawExamples
    test: RawExamples
    num_classes: int
    levels: int | None
    split: str


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    limit: SupportsIndex | None = None,
) -> Dataset:
    """A dataset by name, checked, split and normalised by the statistics of its training split.

    Files are looked for in `data_dir` (in a subfolder named after the dataset, in one with its official name,
    or directly), then in relin's cache folder (which the environment variable RELIN_CACHE moves), then where
    a package of the operating system puts them; what is nowhere is downloaded into the cache, once, against
    published checksums.

    Data of your own are named by where they are:

    - `FILE.npz`: arrays x and y, or x_train, y_train, x_validation, y_validation, x_test and y_test (`train_images`,
      `val_labels` and the like are understood too); x/left and x/right are a dictionary of inputs. Nothing is
      unpickled.
    - `X.npy,Y.npy`: a pair of arrays. In either, bytes of shape (examples, height, width) get an axis of channels.
    - `FILE.csv#COLUMN`, `.tsv` or `.parquet`: a table and its target, see `table`; `table:FILE#COLUMN` is the same.
    - `huggingface:FOLDER#COLUMN`: a folder written by `save_to_disk` of Hugging Face's `datasets`, which need not be
      installed, and its target, by default the column label; splits train, validation and test are its parts.
    - `text:FOLDER`, `bytes:FOLDER`: the text files of a folder, see `text`.

    Arrays are taken as `from_arrays` takes them. In Parquet files and Hugging Face's folders columns of numbers, but
    for the target, are taken as `table` takes them; one column of lists or pictures is the input, pictures as bytes;
    several columns, some of them lists, are a dictionary of inputs, as they are. Parts that are not there are held out
    as in `from_arrays`.

    Functions of few directions of many inputs, on which theory says how many feature updates are needed, are generated
    by names such as `parity-20-3`: `parity-D-K`, `staircase-D-K`, `single-index-D-K` and `multi-index-D-K`, of D inputs
    and order K, as docs/data.md defines them.

    **Arguments:**

    - `name`: one of `names()`, or one of the above.
    - `data_dir`: a folder with the official files, extracted or as published.
    - `download`: whether files that are not on this machine may be downloaded.
    - `limit`: keep only so many training examples, the first, or of one's own arrays and tables a fixed random choice,
      of each class its share; all else, the normalisation too, stays the same.

    **Returns:** a `Dataset`; the inputs of named sets are float32 with channels last, classes are int32.

    **Raises:** `DatasetError`: an unknown name, missing, damaged or mislabelled files, data that `from_arrays` refuses,
    or a limit out of range.
    """
    check_name(name)
    folder = check_data_dir(data_dir)
    count = None if limit is None else _integer(limit)
    if (dataset := _own(name)) is not None:
        _check_limit(count, name, len(dataset.train.y))
        spread = (found := own(name)) is not None and found.kind not in ("text", "bytes")
        return dataset if count is None else limited_to(dataset, count, spread)
    raw = _raw(name, folder, download)
    _check_limit(count, name, len(raw.train.y))
    normalise = Normaliser(raw.train.x, raw.levels, name)
    kept = RawExamples(raw.train.x[:count], raw.train.y[:count])
    train, validation, test = (Examples(normalise(x), y) for x, y in (kept, raw.validation, raw.test))
    limited = "" if count is None else f" (of the training split only the first {count} are kept)"
    return Dataset(name, train, validation, test, raw.num_classes, normalise.describe(), raw.split + limited + ".")


def _own(name: str) -> Dataset | None:
    """Data of one's own, generated functions and a table, which come whole; none for the other datasets."""
    if name == "diabetes":
        return diabetes()
    if (made := function(name)) is not None:
        return generated(made)
    found = own(name)
    if found is None:
        return None
    if found.kind in ("text", "bytes"):
        return text(found.paths[0], level="byte" if found.kind == "bytes" else "char")
    if found.kind == "table":
        return table(found.paths[0], found.target or "")
    paths = [Path(path).expanduser() for path in found.paths]
    if found.kind == "npy":
        return assembled(name, read_npy(paths[0], paths[1]))
    return assembled(name, read_npz(paths[0]) if found.kind == "npz" else read_folder(paths[0], found.target))


def _check_limit(count: int | None, name: str, available: int) -> None:
    if count is not None and not 1 <= count <= available:
        raise DatasetError(
            f"limit must be from 1 to {available}, the number of training examples of {name}, got {count}; "
            "choose one in that range, or none for all."
        )


def status(data_dir: str | os.PathLike[str] | None = None) -> list[DatasetStatus]:
    """What is on this machine and how to get the rest, in the order of `names()`; reads and fetches no data.

    **Arguments:**

    - `data_dir`: a folder with official files, in which they are looked for first.

    **Returns:** a `DatasetStatus` for each data set.

    **Raises:** `DatasetError` if there is no such folder.
    """
    folder = check_data_dir(data_dir)
    cached = _generated.mnist1d_cache()
    return [
        DatasetStatus(
            name="digits",
            available=True,
            where="scikit-learn",
            num_examples=1797,
            input_shape=(8, 8, 1),
            num_classes=10,
            size=None,
            how_to_get="It comes with scikit-learn, on which relin depends.",
        ),
        DatasetStatus(
            name="mnist1d",
            available=True,
            where="mnist1d package",
            num_examples=5000,
            input_shape=(40, 1),
            num_classes=10,
            size=cached.stat().st_size if cached.is_file() else None,
            how_to_get="The mnist1d package generates it at first use, in seconds; then it is cached.",
        ),
        DatasetStatus(
            name="diabetes",
            available=True,
            where="scikit-learn",
            num_examples=442,
            input_shape=(10,),
            num_classes=1,
            size=None,
            how_to_get="It comes with scikit-learn, on which relin depends.",
        ),
        *(_file_status(source, folder) for source in SOURCES.values()),
    ]


def _file_status(source: Source, folder: Path | None) -> DatasetStatus:
    try:
        found, fault = locate(source, folder), None
    except DatasetError as error:
        found, fault = None, str(error)
    package = f", or install {source.system_package}" if source.system_package else ""
    return DatasetStatus(
        name=source.name,
        available=found is not None,
        where=str(found.where) if found else None,
        num_examples=source.num_train + source.num_test,
        input_shape=source.image_shape,
        num_classes=source.num_classes,
        size=sum(path.stat().st_size for path in found.paths) if found else None,
        how_to_get=fault
        or f"Loading it downloads {', '.join(source.downloads)} from {source.url} once; or pass the folder "
        f"that holds the official files as data_dir{package}.",
    )


def check_name(name: str) -> None:
    """Raises `DatasetError` for a name that `load` does not take."""
    if is_known(name):
        return
    if set(str(name)) & set(":/\\.#,"):
        raise DatasetError(f"Data of one's own are named {FORMS}, got {name!r}; name them so.")
    if str(name).startswith(KINDS):
        raise DatasetError(f"Generated functions are {FUNCTION_FORMS}, got {name!r}; name one so.")
    # Other spellings of the same name, FashionMNIST or cifar_10, should find it too.
    plain = {known.replace("-", ""): known for known in names()}
    spelt = "".join(filter(str.isalnum, str(name).lower()))
    close = difflib.get_close_matches(spelt, plain, n=1)
    suggestion = f"; did you mean {plain[close[0]]!r}?" if close else "; choose one of these."
    raise DatasetError(f"{name!r} is not a known dataset, the known ones being {listed(names())}{suggestion}")


def _integer(limit: SupportsIndex) -> int:
    if isinstance(limit, bool):
        raise TypeError(f"limit must be an integer, got {limit!r}; pass a number of examples, or none for all.")
    try:
        return operator.index(limit)
    except TypeError:
        raise TypeError(
            f"limit must be an integer, got {limit!r}; pass a number of examples, or none for all."
        ) from None


def _raw(name: str, folder: Path | None, download: bool) -> _Raw:
    if name == "digits":
        rule = "In a fixed stratified order the first 1200 of the digits train, 297 validate, the last 300 test"
        return _Raw(*_generated.digits(), num_classes=10, levels=16, split=rule)
    if name == "mnist1d":
        train, test = _generated.mnist1d()
        train, validation = _hold_out(train, _MNIST1D_VALIDATION)
        rule = "The official training set's first 3500 train and last 500 validate; the official 1000 test"
        return _Raw(train, validation, test, 10, None, rule)
    return _from_files(SOURCES[name], folder, download)


def _from_files(source: Source, folder: Path | None, download: bool) -> _Raw:
    found = locate(source, folder)
    if found is None:
        searched = ", ".join(map(str, places(source, folder)))
        if not download:
            raise DatasetError(missing(source, searched, "download=False forbids downloading them"))
        fetch(source, searched)
        found = locate(source, folder)
        assert found is not None  # the downloads are one complete layout
    verify(source, found)
    train, test = read_files(source, found)
    total, held = len(train.y), len(train.y) // source.held_out
    if held == 0:
        raise DatasetError(
            f"{found.where} holds {total} training images of {source.name}, too few to hold one in "
            f"{source.held_out} out for validation; use more of the official files."
        )
    train, validation = _hold_out(train, held)
    short = "" if total == source.num_train else f" (the official training set has {source.num_train})"
    rule = (
        f"The last {held} of the {total} training images in the files{short} validate, the first "
        f"{total - held} train; the {len(test.y)} test images test"
    )
    return _Raw(train, validation, test, source.num_classes, 255, rule)


def _hold_out(examples: RawExamples, count: int) -> tuple[RawExamples, RawExamples]:
    keep = len(examples.y) - count
    return RawExamples(examples.x[:keep], examples.y[:keep]), RawExamples(examples.x[keep:], examples.y[keep:])
