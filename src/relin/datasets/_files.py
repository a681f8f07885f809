"""Reading the located files of a dataset into arrays."""

import gzip
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from relin._words import listed
from relin.datasets import _cifar, _idx
from relin.datasets._dataset import RawExamples
from relin.datasets._errors import DatasetError
from relin.datasets._labels import check_counts
from relin.datasets._locate import Found
from relin.datasets._sources import SOURCES, Source

# What reading a damaged archive can raise.
_ARCHIVE_FAULTS = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error)


def read_files(source: Source, found: Found) -> tuple[RawExamples, RawExamples]:
    """The published training and test sets: uint8 images (N, height, width, channels), int32 labels (N)."""
    layout = found.layout
    if found.archive is None:
        contents = {name: (str(path), _read(path)) for name, path in found.files.items()}
    else:
        contents = _read_archive(found.archive, layout.files)
    parts = [_decode(source, layout.reader, (contents.pop(n) for n in names)) for names in (layout.train, layout.test)]
    train, test = parts
    _check_identity(source, train.y, found)
    return train, test


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); make it readable or replace it.") from error


def _read_archive(path: Path, names: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    contents = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isfile() and name in names else None
                if file is not None:
                    contents[name] = (f"{path}:{member.name}", file.read())
            # Only at the end of the stream is its checksum compared.
            stream = archive.fileobj
            while stream is not None and stream.read(1 << 20):
                pass
    except _ARCHIVE_FAULTS as error:
        raise DatasetError(
            f"{path} is a truncated or damaged archive ({error}); replace it with a fresh copy."
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); make it readable or replace it.") from error
    absent = [name for name in names if name not in contents]
    if absent:
        raise DatasetError(
            f"{path} lacks {listed(absent)}, so it is truncated or another archive; replace it with a fresh copy."
        )
    return contents


def _decode(source: Source, reader: str, files: Iterable[tuple[str, bytes]]) -> RawExamples:
    if reader == "idx":
        (images_at, images_data), (labels_at, labels_data) = files
        images = _idx.read_images(images_at, images_data, source.image_shape)
        labels = _idx.read_labels(labels_at, labels_data, source.num_classes)
        check_counts(images_at, len(images), labels_at, len(labels))
        return RawExamples(images, labels)
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
