"""Datasets that need no files: scikit-learn's digits and the generated MNIST-1D."""

import contextlib
import hashlib
import importlib.metadata
import io
import math
import zipfile
from pathlib import Path

import numpy as np

from relin._common.files import open_file, write_atomically
from relin._common.random_states import random_states_kept
from relin.datasets._dataset import RawExamples
from relin.datasets._errors import DatasetError
from relin.datasets._locate import cache_folder
from relin.datasets._split import stratified

_DIGITS_TRAIN, _DIGITS_VALIDATION = 1200, 297
_ARRAYS = ("x", "y", "x_test", "y_test")


def digits() -> tuple[RawExamples, RawExamples, RawExamples]:
    """The 1797 digits of scikit-learn (UCI's optdigits test set), uint8 (N, 8, 8, 1) of 0 to 16, in 3 parts.

    The order is a fixed one in which every prefix is stratified. The file's own order would give training and test
    different writers.
    """
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images = pixels.astype(np.uint8).reshape(-1, 8, 8, 1)
    parts = np.split(stratified(labels, 0), [_DIGITS_TRAIN, _DIGITS_TRAIN + _DIGITS_VALIDATION])
    train, validation, test = (RawExamples(images[part], labels[part].astype(np.int32)) for part in parts)
    return train, validation, test


def mnist1d() -> tuple[RawExamples, RawExamples]:
    """MNIST-1D's official training (4000) and test (1000) sets, float64 (N, 40, 1).

    Made by the published generator with its default arguments (Greydanus, arXiv:2011.14439) and kept in the
    cache, as that takes seconds.
    """
    path = mnist1d_cache()
    arrays = _read_cache(path) if path.is_file() else None
    if arrays is None:
        arrays = _generate_mnist1d()
        # A cache that cannot be written costs time, not the data.
        with contextlib.suppress(OSError):
            _write_cache(path, arrays)
    x, y, x_test, y_test = arrays
    return RawExamples(x[..., None], y.astype(np.int32)), RawExamples(x_test[..., None], y_test.astype(np.int32))


def mnist1d_cache() -> Path:
    """The file the generated arrays are kept in, one for each version of the generator."""
    return cache_folder() / "mnist1d" / f"mnist1d-{importlib.metadata.version('mnist1d')}.npz"


def _generate_mnist1d() -> list[np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset

    with random_states_kept():  # the generator seeds the global generators
        data = make_dataset(get_dataset_args())
    return [np.ascontiguousarray(data[name]) for name in _ARRAYS]


def _checksum(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _write_cache(path: Path, arrays: list[np.ndarray]) -> None:
    content = io.BytesIO()
    np.savez(content, sha256=np.array(_checksum(arrays)), **dict(zip(_ARRAYS, arrays, strict=True)))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getvalue())


def _check_sizes(stored: zipfile.ZipFile) -> None:
    """Refuses arrays that would take more memory than the file, before any is made."""
    for member in stored.infolist():
        with stored.open(member) as file:
            np.lib.format.read_magic(file)
            shape, _, kind = np.lib.format.read_array_header_1_0(file)
            size = math.prod(shape) * kind.itemsize + file.tell()
        if member.compress_type != zipfile.ZIP_STORED or size != member.file_size:
            raise ValueError(f"{member.filename} expands")


def _read_cache(path: Path) -> list[np.ndarray]:
    remedy = "delete it to have it generated again"
    try:
        # Opened here, because np.load leaves the file open when it is no zip file.
        with open_file(path) as file, np.load(file, allow_pickle=False) as stored:
            _check_sizes(stored.zip)
            arrays, expected = [stored[name] for name in _ARRAYS], str(stored["sha256"])
    except (OSError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"{path} is not a readable npz file of MNIST-1D ({type(error).__name__}: {error}); {remedy}."
        ) from error
    actual = _checksum(arrays)
    if actual != expected:
        raise DatasetError(
            f"{path} has arrays of SHA-256 checksum {actual} where it records {expected}, so it was changed; {remedy}."
        )
    return arrays
