"""Reading the located files of a dataset into arrays."""

import contextlib
import gzip
import math
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from relin._common.files import open_file
from relin._common.words import listed
from relin.datasets import _cifar, _idx
from relin.datasets._dataset import RawExamples
from relin.datasets._errors import DatasetError
from relin.datasets._labels import check_counts
from relin.datasets._locate import Found
from relin.datasets._sources import SOURCES, Source

# What reading a damaged archive can raise.
_ARCHIVE_FAULTS = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)
_BESIDE, _HEADERS = 256, 1 << 20
"""Bytes of an example beside its pixels, its label and its file name, and of all else in CIFAR's files, at most."""


def read_files(source: Source, found: Found) -> tuple[RawExamples, RawExamples]:
    """The published training and test sets: uint8 images (N, height, width, channels), int32 labels (N).

    Files are read, and archives decompressed, up to what was published or what their headers announce.
    """
    layout = found.layout
    if layout.reader == "idx":
        parts = [_read_idx(source, [found.files[name] for name in names]) for names in (layout.train, layout.test)]
    else:
        contents = _read_cifar(source, found)
        parts = [
            _decode(source, layout.reader, (contents.pop(name) for name in names))
            for names in (layout.train, layout.test)
        ]
    train, test = parts
    _check_identity(source, train.y, found)
    return train, test


def _read_idx(source: Source, paths: list[Path]) -> RawExamples:
    images_at, labels_at = paths
    with _opened(images_at) as file:
        images = _idx.read_images(str(images_at), file, source.image_shape)
    with _opened(labels_at) as file:
        labels = _idx.read_labels(str(labels_at), file, source.num_classes)
    check_counts(str(images_at), len(images), str(labels_at), len(labels))
    return RawExamples(images, labels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open_file(path) as file:
            yield file
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read ({error.strerror or error}); make it readable or replace it."
        ) from error


def _read_cifar(source: Source, found: Found) -> dict[str, tuple[str, bytes]]:
    """The files of a layout by their official names, each with where it is."""
    most = (source.num_train + source.num_test) * (math.prod(source.image_shape) + _BESIDE) + _HEADERS
    if found.archive is not None:
        return _read_archive(found.archive, found.layout.files, most)
    contents = {}
    for name, path in found.files.items():
        with _opened(path) as file:
            contents[name] = str(path), _Limited(path, file, most).read()
    return contents


class _Limited:
    """A file of which no more is read than was published, however much it expands to."""

    def __init__(self, path: Path, file: BinaryIO | gzip.GzipFile, most: int):
        self.path, self.file, self.left = path, file, most

    def read(self, size: int = -1) -> bytes:
        limit = self.left + 1
        data = self.file.read(limit if size < 0 else min(size, limit))
        self.left -= len(data)
        if self.left < 0:
            raise DatasetError(
                f"{self.path} holds more than the dataset it is named after; replace it with the official file."
            )
        return data


def _read_archive(path: Path, names: tuple[str, ...], most: int) -> dict[str, tuple[str, bytes]]:
    contents = {}
    with _opened(path) as file:
        try:
            stream = _Limited(path, gzip.GzipFile(fileobj=file), most)
            with tarfile.open(fileobj=stream, mode="r|") as archive:  # pyright: ignore[reportCallIssue, reportArgumentType]
                for member in archive:
                    name = PurePosixPath(member.name).name
                    # The holes of a sparse member take no room in the archive, and any room in memory.
                    plain = member.isfile() and not member.issparse()
                    inner = archive.extractfile(member) if plain and name in names else None
                    if inner is not None:
                        contents[name] = (f"{path}:{member.name}", inner.read())
            # Only at the end of the stream is its checksum compared.
            while stream.read(1 << 20):
                pass
        except _ARCHIVE_FAULTS as error:
            raise DatasetError(
                f"{path} is a truncated or damaged archive ({error}); replace it with a fresh copy."
            ) from error
    absent = [name for name in names if name not in contents]
    if absent:
        raise DatasetError(
            f"{path} lacks {listed(absent)}, so it is truncated or another archive; replace it with a fresh copy."
        )
    return contents


def _decode(source: Source, reader: str, files: Iterable[tuple[str, bytes]]) -> RawExamples:
    read = _cifar.read_binary if reader == "cifar-binary" else _cifar.read_pickle
    images, labels = zip(*(read(where, data, source.num_classes) for where, data in files), strict=True)
    return RawExamples(np.concatenate(images), np.concatenate(labels))


def _check_identity(source: Source, labels: np.ndarray, found: Found) -> None:
    """Refuse the files of another dataset whose official names are the same."""
    for other in SOURCES.values():
        first = other.first_labels
        if other.name != source.name and first and source.first_labels and tuple(labels[: len(first)]) == first:
            raise DatasetError(
                f"{found.where} holds the files of {other.name} (their names are the same as those of "
                f"{source.name}); pass the folder of {source.name} as data_dir, or load {other.name!r}."
            )
