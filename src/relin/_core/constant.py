"""The loss of the best constant predictor, min_c mean ℓ(c, y), of the losses that relin brings; in float64."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Shape = tuple[int, ...]


def entropy(shape: Shape, targets: Any, label_smoothing: float) -> float | None:
    """Of cross-entropy: the entropy of the mean target distribution, its mean over positions.

    For outputs c that are the same for every example, mean ℓ = −Σ p̄ log softmax(c) is least, by Gibbs' inequality,
    where softmax(c) is p̄, the mean of the target distributions: of integer classes their frequencies.

    **Arguments:** `shape` the outputs', whose first axis is that of the examples.
    """
    shares = _mean_distributions(shape, targets)
    if shares is None:
        return None
    shares = (1 - label_smoothing) * shares + label_smoothing / shares.shape[-1]
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return float(-np.sum(shares * logs) / len(shares))


def half_variance(shape: Shape, targets: Any) -> float | None:
    """Of the squared error: half the targets' variance, summed over the outputs; the best constant is their mean.

    **Arguments:** `shape` the outputs', whose first axis is that of the examples.
    """
    if np.shape(targets) == shape:
        values = np.asarray(targets, np.float64).reshape(shape[0], -1)
        if not np.isfinite(values).all():
            return None
        return 0.5 * float(np.sum(np.var(values, axis=0)))
    shares = _mean_distributions(shape, targets)
    return None if shares is None else 0.5 * float(np.sum(shares * (1 - shares)))  # of one-hot vectors


def _mean_distributions(shape: Shape, targets: Any) -> Float[np.ndarray, "positions C"] | None:
    """Frequencies of integer classes, or means of distributions, at each position; none of targets that are neither."""
    values = np.asarray(targets)
    if values.shape == shape:
        means = np.mean(values.astype(np.float64), axis=0).reshape(-1, shape[-1])
        return means if np.all((means >= 0) & np.isfinite(means)) else None
    length = math.prod(values.shape[1:])
    whole = np.issubdtype(values.dtype, np.integer) and values.shape[0] == shape[0]
    if not whole or length == 0 or math.prod(shape[1:]) % length:
        return None
    return _frequencies(values.reshape(shape[0], length), math.prod(shape[1:]) // length)


def _frequencies(classes: Int[np.ndarray, "N positions"], num_classes: int) -> Float[np.ndarray, "positions C"] | None:
    if classes.min() < 0 or classes.max() >= num_classes:
        return None
    places = classes + num_classes * np.arange(classes.shape[1])
    counts = np.bincount(places.ravel(), minlength=num_classes * classes.shape[1])
    return counts.reshape(classes.shape[1], num_classes) / len(classes)


def best_outputs(shape: Shape, targets: Any, logits: bool) -> Float[np.ndarray, "..."] | None:
    """The outputs of the best constant predictor for an example, of the outputs' shape without its first axis.

    The mean of the targets, or the frequencies of their classes; with `logits` the logarithms of these, a class without
    an example at −69. None of targets that are neither.

    **Arguments:** `shape` the outputs', whose first axis is that of the examples of `targets`.
    """
    values = np.asarray(targets)
    if not logits and values.shape == shape:
        return np.asarray(np.mean(values, axis=0, dtype=np.float64))
    shares = _mean_distributions(shape, targets)
    if shares is None:
        return None
    return (np.log(np.maximum(shares, 1e-30)) if logits else shares).reshape(shape[1:])
