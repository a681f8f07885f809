"""CIFAR-10 and CIFAR-100 in their two official layouts.

Binary: records of 1 label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then 3072 pixel
bytes, 1024 red, 1024 green, 1024 blue, each row by row. Python: pickled dicts with `data` (N, 3072), pixels
in the same order, and `labels` or `fine_labels`.
"""

import numpy as np

from relin.datasets._errors import DatasetError
from relin.datasets._labels import check_counts, check_labels
from relin.datasets._unpickle import unpickle

_PIXELS = 3 * 32 * 32
_COARSE_CLASSES = 20


def read_binary(where: str, data: bytes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 32, 32, 3) sharing the file's memory, and labels, int32 (N), of a binary file."""
    label_bytes = 1 if num_classes == 10 else 2
    record = label_bytes + _PIXELS
    if len(data) == 0 or len(data) % record:
        raise DatasetError(
            f"{where} holds {len(data)} bytes where a multiple of {record}, the size of a record of "
            f"CIFAR-{num_classes}'s binary layout, is expected, so it is truncated or something else; "
            "replace it with a fresh copy."
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    if label_bytes == 2:
        check_labels(where, records[:, 0], _COARSE_CLASSES, kind="coarse label")
    labels = records[:, label_bytes - 1]
    check_labels(where, labels, num_classes)
    return _channels_last(records[:, label_bytes:]), labels.astype(np.int32)


def read_pickle(where: str, data: bytes, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 32, 32, 3), and labels, int32 (N), of a file of the Python layout."""
    content = unpickle(where, data)
    key = "labels" if num_classes == 10 else "fine_labels"
    pixels, labels = content.get("data"), content.get(key)
    if pixels is None or labels is None:
        missing = "data" if pixels is None else key
        raise DatasetError(
            f"{where} has no entry {missing!r}, so it is not a file of CIFAR-{num_classes}'s Python layout; "
            "replace it with the official one."
        )
    is_table = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2
    if not is_table or pixels.shape[1] != _PIXELS or len(pixels) == 0:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DatasetError(
            f"{where} has {got} as its entry 'data' where uint8 (N, {_PIXELS}) is expected; replace it with "
            "the official file."
        )
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        # Python integers of any size: an oversized one is to be refused below, not wrapped here.
        labels = np.array(labels, dtype=object)
    if not (isinstance(labels, np.ndarray) and labels.ndim == 1):
        raise DatasetError(
            f"{where} has something other than a list of integers as its entry {key!r}; replace it with the "
            "official file."
        )
    check_counts(f"the entry 'data' of {where}", len(pixels), f"its entry {key!r}", len(labels))
    check_labels(where, labels, num_classes)
    return _channels_last(pixels), labels.astype(np.int32)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
