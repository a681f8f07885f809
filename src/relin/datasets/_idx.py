"""IDX files, the format of MNIST and Fashion-MNIST, gzipped or not.

A file is a big-endian header (two zero bytes, the element type 8 for bytes, the number of axes, then the
length of each axis as a 32-bit integer) followed by the bytes, last axis fastest.
"""

import gzip
import math
import zlib
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from relin.datasets._errors import DatasetError
from relin.datasets._labels import check_labels

_IMAGES, _LABELS = 2051, 2049
_PIECE = 1 << 20
_KINDS = {_IMAGES: "images", _LABELS: "labels"}


def read_images(where: str, file: BinaryIO, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of an IDX file as uint8 (N, height, width, 1); `where` names the file."""

    def check(found: tuple[int, ...]) -> None:
        if found[1:] != shape[:2]:
            raise DatasetError(
                f"{where} holds images of {found[1]}×{found[2]} pixels where {shape[0]}×{shape[1]} "
                "are expected, so it belongs to another dataset; replace it with the official file."
            )

    return _read(where, file, _IMAGES, check)[..., None]


def read_labels(where: str, file: BinaryIO, num_classes: int) -> np.ndarray:
    """The labels of an IDX file as int32 (N); `where` names the file."""
    labels = _read(where, file, _LABELS)
    check_labels(where, labels, num_classes)
    return labels.astype(np.int32)


def _read(
    where: str, file: BinaryIO, magic: int, check: Callable[[tuple[int, ...]], None] = lambda shape: None
) -> np.ndarray:
    """What the header announces; no more is decompressed, whatever follows."""
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    try:
        return _content(where, gzip.GzipFile(fileobj=file) if packed else file, magic, check)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(
            f"{where} is a truncated or damaged gzip file ({error}); replace it with a fresh copy."
        ) from error


def _content(
    where: str, file: BinaryIO | gzip.GzipFile, magic: int, check: Callable[[tuple[int, ...]], None]
) -> np.ndarray:
    axes = magic % 256
    size = 4 + 4 * axes
    header = file.read(size)
    found = int.from_bytes(header[:4], "big")
    if len(header) < 4 or found != magic:
        raise DatasetError(_not_idx(where, magic, found, len(header)))
    if len(header) < size:
        raise DatasetError(
            f"{where} is truncated: it ends after {len(header)} bytes, inside its header of {size}; replace "
            "it with a fresh copy."
        )
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", axes, offset=4))
    announced = math.prod(shape)
    if announced == 0:
        raise DatasetError(f"{where} holds no {_KINDS[magic]} at all; replace it with a fresh copy.")
    check(shape)
    data = _at_most(file, announced)
    more = len(data) == announced and file.read(1)  # at its end a gzip file's checksum is compared
    if more or len(data) < announced:
        raise DatasetError(
            f"{where} is {'too long' if more else 'truncated'}: its header announces "
            f"{'×'.join(map(str, shape))} = {announced} bytes of {_KINDS[magic]} but "
            f"{'more' if more else len(data)} follow; replace it with a fresh copy."
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _at_most(file: BinaryIO | gzip.GzipFile, size: int) -> bytearray:
    """Up to `size` bytes, in pieces: a header may announce what no memory holds."""
    data = bytearray()
    while len(data) < size and (piece := file.read(min(size - len(data), _PIECE))):
        data += piece
    return data


def _not_idx(where: str, magic: int, found: int, length: int) -> str:
    expected = f"{where} should be an IDX file of {_KINDS[magic]} (magic number {magic})"
    if length < 4:
        return f"{expected} but is only {length} bytes long; replace it with a fresh copy."
    if found in _KINDS:
        return (
            f"{expected} but holds {_KINDS[found]} (magic number {found}), so images and labels were "
            "swapped; give the files their official names back."
        )
    return f"{expected} but begins with the number {found}; replace it with a fresh copy."
