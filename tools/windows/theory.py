"""Heavy-ball descent v ← β v + a x, x ← x − η v on a quadratic of curvature a (Polyak 1964)."""

import numpy as np

MOMENTUM = 0.9
LIMIT = 2 * (1 + MOMENTUM)
"""Of η λ_max: with more, the iteration grows."""


def growth(excess: float, momentum: float = MOMENTUM) -> float:
    """By what x grows a step, at a rate of `excess` times the limit: the larger root of z² − (1 + β − ηa) z + β = 0."""
    rate_times_curvature = excess * 2 * (1 + momentum)
    return float(np.abs(np.roots([1.0, rate_times_curvature - 1 - momentum, momentum])).max())
