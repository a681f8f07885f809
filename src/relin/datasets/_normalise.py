"""Normalisation by the channel statistics of the training split, for byte images and for float signals."""

from collections.abc import Iterator

import numpy as np

from relin.datasets._errors import DatasetError

# Images converted at a time, so that no temporary is as large as the dataset.
_CHUNK = 4096


class Normaliser:
    """x ↦ (x/levels − mean)/std with the mean and standard deviation of each channel (last axis) of `train`.

    **Arguments:**

    - `train`: training inputs (N, …, channels): uint8, or floats.
    - `levels`: the raw value that counts as 1 (255 for bytes); none for data without such a scale.
    - `name`: of the dataset, for the error when a channel is constant.
    """

    def __init__(self, train: np.ndarray, levels: int | None, name: str):
        self.levels = levels or 1
        self.num_examples = len(train)
        self.mean, self.std = _byte_statistics(train) if train.dtype == np.uint8 else _float_statistics(train)
        self.mean, self.std = self.mean / self.levels, self.std / self.levels
        if not np.all(self.std > 0):
            raise DatasetError(
                f"{name} cannot be normalised because channel {int(np.argmin(self.std))} of its training "
                "images has the same value everywhere, so its files hold no images; replace them with the "
                "official ones."
            )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Normalise inputs (N, …, channels) of the training data's type into float32 of the same shape."""
        if x.dtype != np.uint8:
            return ((x / self.levels - self.mean) / self.std).astype(np.float32)
        values = np.arange(256)[:, None]
        table = ((values / self.levels - self.mean) / self.std).astype(np.float32)
        out = np.empty(x.shape, np.float32)
        for part in _chunks(len(x)):
            for channel in range(x.shape[-1]):
                out[part, ..., channel] = table[:, channel][x[part, ..., channel]]
        return out

    def describe(self) -> str:
        """The formula with its numbers."""
        value = "x" if self.levels == 1 else f"x/{self.levels}"
        return (
            f"({value} − m)/s per channel with m = {_numbers(self.mean)} and s = {_numbers(self.std)}, the "
            f"mean and standard deviation of the {self.num_examples} training examples"
        )


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))


def _byte_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Histograms make the sums exact, whatever the number of pixels.
    channels = x.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for part in _chunks(len(x)):
        for channel in range(channels):
            counts[channel] += np.bincount(x[part, ..., channel].ravel(), minlength=256)
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256)[None, :]
    mean = (frequencies * values).sum(axis=1)
    variance = (frequencies * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(variance)


def _float_statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return flat.mean(axis=0), flat.std(axis=0)


def _numbers(values: np.ndarray) -> str:
    text = ", ".join(f"{value:.6g}" for value in values)
    return text if len(values) == 1 else f"({text})"
