"""What k steps of gradient descent do along an eigenvector, and its Chebyshev coefficients; in float64 on the host."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

_ROUNDING = 1e-14
"""What the coefficients are computed to, relative to the filter's largest value."""

Values = Float[np.ndarray, " a"]


class Descent(NamedTuple):
    """Gradient descent δ ← δ − η v, v ← β v + g; or, where it is `flow`, dδ/dt = −g for time η a step."""

    rate: float
    momentum: float = 0.0
    flow: bool = False

    def growth(self, eigenvalue: float) -> float:
        """The logarithm of the factor by which a step multiplies what is left along an eigenvector, in the long run."""
        if self.flow:
            return -self.rate * eigenvalue
        radius = np.abs(np.linalg.eigvals(self._matrices(np.array([eigenvalue]))[0, :2, :2])).max()
        return math.log(radius) if radius > 0 else -math.inf

    def filters(self, eigenvalues: Values, count: int | float) -> Float[np.ndarray, "2 2 a"]:
        """The filters of `count` steps: of the change of displacement and of the velocity after them (first axis), as
        functions of the gradient and the velocity before them (second axis), at eigenvalues a of G.

        Of the displacement's change in the gradient this is −q_k(a); with momentum it comes from the k-th power of the
        recurrence of (gradient, velocity, displacement).
        """
        a = np.asarray(eigenvalues, np.float64)
        if math.isinf(count):
            return self._limits(a)
        if self.momentum:
            power = np.linalg.matrix_power(self._matrices(a), int(count))
            return power[:, [2, 1], :2].transpose(1, 2, 0)
        found = np.zeros((2, 2, a.size))
        if self.flow:
            decayed = -np.expm1(-a * self.rate * count)
        else:  # 1 − (1 − ηa)^k, without cancellation for small ηa
            step = 1 - self.rate * a
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                small = -np.expm1(count * np.log1p(-np.minimum(self.rate * a, 0.5)))
                decayed = np.where(self.rate * a < 0.5, small, 1 - np.sign(step) ** count * np.abs(step) ** count)
        positive = a > 0
        found[0, 0] = -np.where(positive, decayed / np.where(positive, a, 1.0), self.rate * count)
        return found

    def _limits(self, a: Values) -> Float[np.ndarray, "2 2 a"]:
        """As k → ∞, below the stability limit: the minimum-norm solution; where a = 0, the velocity's way to rest."""
        found = np.zeros((2, 2, a.size))
        positive = a > 0
        found[0, 0] = -np.where(positive, 1 / np.where(positive, a, 1.0), 0.0)
        found[0, 1] = np.where(positive, 0.0, -self.rate * self.momentum / (1 - self.momentum))
        return found

    def _matrices(self, a: Values) -> Float[np.ndarray, "a 3 3"]:
        """One step of (gradient, velocity, displacement) along an eigenvector of eigenvalue a."""
        eta, beta = self.rate, self.momentum
        matrices = np.zeros((a.size, 3, 3))
        matrices[:, 0, 0], matrices[:, 0, 1] = 1 - eta * a, -eta * beta * a
        matrices[:, 1, 0], matrices[:, 1, 1] = 1, beta
        matrices[:, 2] = [-eta, -eta * beta, 1]
        return matrices


class Expansion(NamedTuple):
    """Filters as sums of Chebyshev polynomials on [0, bound]: c_0 + Σ c_j T_j(2a/bound − 1)."""

    coefficients: Float[np.ndarray, "2 inputs degree"]
    error: float
    """What the sum leaves out in the root of the mean square, relative to each filter's largest value."""


def expand(descent: Descent, count: int, bound: float, tolerance: float, with_velocity: bool) -> Expansion:
    """The shortest expansion whose tail is below `tolerance`, relative to the filter's largest value.

    The degree grows as √(ηλk log 1/tolerance) (Trefethen 2019, *Approximation Theory and Approximation Practice*).
    """
    inputs, tolerance = 2 if with_velocity else 1, max(tolerance, _ROUNDING)
    rate = min(descent.rate * bound, 4.0)
    nodes = 64 + 2 * math.ceil(math.sqrt(2 * rate * count * math.log(1 / tolerance)))
    while True:
        angles = (np.arange(nodes) + 0.5) * np.pi / nodes
        values = descent.filters(bound * (1 + np.cos(angles)) / 2, count)[:, :inputs]
        coefficients = np.asarray(dct(values, axis=-1)) / nodes
        coefficients[..., 0] /= 2
        largest = np.maximum(np.abs(values).max(axis=-1, keepdims=True), np.finfo(np.float64).tiny)
        tails = np.sqrt(np.cumsum(np.square(coefficients[..., ::-1] / largest), axis=-1))[..., ::-1]
        worst = tails.max(axis=(0, 1))
        degree = int(np.argmax(worst < tolerance)) if (worst < tolerance).any() else nodes
        if degree <= nodes // 2 or (nodes >= count + 2 and not descent.flow):
            break
        nodes *= 2
    if not descent.flow:
        degree = min(degree, int(count))  # k steps are polynomials of degree k − 1
    return Expansion(coefficients[..., :degree], float(worst[degree]) if degree < nodes else 0.0)
