"""IDX files, the format of MNIST and Fashion-MNIST, gzipped or not.

A file is a big-endian header (two zero bytes, the element type 8 for bytes, the number of axes, then the
length of each axis as a 32-bit integer) followed by the bytes, last axis fastest.
"""

import gzip
import math
import zlib

import numpy as np

from relin.datasets._errors import DatasetError
from relin.datasets._labels import check_labels

_IMAGES, _LABELS = 2051, 2049
_KINDS = {_IMAGES: "images", _LABELS: "labels"}


def read_images(where: str, data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """The images of an IDX file as uint8 (N, height, width, 1); `where` names the file."""
    pixels = _read(where, data, _IMAGES)
    if pixels.shape[1:] != shape[:2]:
        raise DatasetError(
            f"{where} holds images of {pixels.shape[1]}×{pixels.shape[2]} pixels where {shape[0]}×{shape[1]} "
            "are expected, so it belongs to another dataset; replace it with the official file."
        )
    return pixels[..., None]


def read_labels(where: str, data: bytes, num_classes: int) -> np.ndarray:
    """The labels of an IDX file as int32 (N); `where` names the file."""
    labels = _read(where, data, _LABELS)
    check_labels(where, labels, num_classes)
    return labels.astype(np.int32)


def _read(where: str, data: bytes, magic: int) -> np.ndarray:
    data = _decompress(where, data)
    found = int.from_bytes(data[:4], "big")
    if len(data) < 4 or found != magic:
        raise DatasetError(_not_idx(where, magic, found, len(data)))
    axes = magic % 256
    header = 4 + 4 * axes
    if len(data) < header:
        raise DatasetError(
            f"{where} is truncated: it ends after {len(data)} bytes, inside its header of {header}; replace "
            "it with a fresh copy."
        )
    shape = tuple(int(length) for length in np.frombuffer(data, ">u4", axes, offset=4))
    announced, follows = math.prod(shape), len(data) - header
    if announced != follows:
        raise DatasetError(
            f"{where} is {'truncated' if follows < announced else 'too long'}: its header announces "
            f"{'×'.join(map(str, shape))} = {announced} bytes of {_KINDS[magic]} but {follows} follow; "
            "replace it with a fresh copy."
        )
    if announced == 0:
        raise DatasetError(f"{where} holds no {_KINDS[magic]} at all; replace it with a fresh copy.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _decompress(where: str, data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"{where} is a truncated or damaged gzip file ({error}); replace it with a fresh copy."
        ) from error


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
