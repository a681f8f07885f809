"""`analytic_mlp`, `analytic_cnn`: NNGP and NTK of networks of infinite width, in closed form.

Every layer of a network in NTK parametrisation computes √(c_w / fan_in) · (weights ∗ activations) + bias, with weights
from N(0, 1) and biases at zero. As its width grows, a layer's pre-activations u become independent Gaussian processes
over the inputs, with a covariance Σ that follows from the layer before. With the duals

    φ̂ = E[φ(u) φ(u′)],   φ̂′ = E[φ′(u) φ′(u′)],   (u, u′) ~ N(0, [[q, k], [k, q′]]),

the layers' kernels are (Jacot et al. 2018, arXiv:1806.07572)

    Σ⁰ = c_w ⟨x, x′⟩ / inputs,   Σˡ⁺¹ = c_w A[φ̂(Σˡ)],
    Θ⁰ = Σ⁰ + 1,                 Θˡ⁺¹ = Σˡ⁺¹ + 1 + c_w A[φ̂′(Σˡ) Θˡ],

where 1 is the bias's part and A, the identity in dense layers, averages over the kernel's window in convolutions, for
every pair of positions (Arora et al. 2019, arXiv:1904.11955).
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from relin._core import check as _check
from relin._core.compiler import check_sums

_CNN_STRIDES = (1, 2, 2)
_STRIDE = math.prod(_CNN_STRIDES)
_BLOCK_NUMBERS = 2**20


class AnalyticKernel(NamedTuple):
    """Kernels of a network of infinite width; every output has the same ones, and different outputs share none.

    - `nngp`: covariance of one output over initialisations (neural network Gaussian process), shape `(N1, N2)`.
    - `ntk`: Θ_∞, of shape `(N1, N2)`; the full kernel is Θ_∞ ⊗ I_C, hence Θ_∞ is also its mean over outputs.
    """

    nngp: Float[Array, "N1 N2"]
    ntk: Float[Array, "N1 N2"]


class _Activation(NamedTuple):
    gain: float  # c_w of `relin.models`: 2 for ReLU, which halves the second moment, 1 otherwise
    duals: Callable[[Array, Array, Array], tuple[Array, Array]]  # (q, q′, k) ↦ φ̂, φ̂′
    second_moment: Callable[[Array], Array]  # q ↦ E[φ(u)²]


def analytic_mlp(
    x1: Float[Array, "N1 ..."],
    x2: Float[Array, "N2 ..."] | None = None,
    *,
    depth: int = 2,
    activation: str = "relu",
) -> AnalyticKernel:
    """Kernels of `relin.models.MLP` with `parametrisation="ntk"` in the limit of infinite width.

    The empirical kernel at initialisation deviates from Θ_∞ by O(1/√width) (Jacot et al. 2018, arXiv:1806.07572).
    Where pre-activations of a ReLU network are zero whatever the weights, as for an example of zeros, its derivative
    counts as 0, as in `jax.nn.relu`. Correlations that rounding cannot tell from ±1 count as ±1.

    **Arguments:**

    - `x1`, `x2`: floating-point arrays with a leading batch axis; the rest is flattened. `x2=None` means `x1`.
    - `depth`: number of hidden layers; at 0, the kernels are those of a linear model.
    - `activation`: `"relu"` (Cho & Saul 2009, *Kernel methods for deep learning*) or `"erf"` (Williams 1997,
      *Computing with infinite networks*).

    **Returns:** an `AnalyticKernel`. It can be traced by `jax.jit` and `jax.vmap`.

    **Raises:** `TypeError` or `ValueError` for inputs, a depth or an activation that it does not take.
    """
    _check_activation(activation)
    _check.count(depth, "depth", "pass the number of hidden layers", least=0)
    x1, x2 = _checked(x1, x2, ranks=None, layout="(batch, …)")
    flat = [None if x is None else x.reshape(len(x), -1) for x in (x1, x2)]
    return _mlp(*flat, depth, activation)


def analytic_cnn(
    x1: Float[Array, "N1 *positions channels"],
    x2: Float[Array, "N2 *positions channels"] | None = None,
    *,
    kernel_size: int | None = None,
    activation: str = "relu",
    batch_size: int | None = None,
) -> AnalyticKernel:
    """Kernels of `relin.models.CNN` with `parametrisation="ntk"` in the limit of infinite width.

    Follows the covariance of every pair of positions that global average pooling brings together (Arora et al. 2019,
    arXiv:1904.11955, section 4 and appendix), with zero padding and strides. ReLU at pre-activations of zero and
    correlations near ±1 are treated as in `analytic_mlp`.

    **Arguments:**

    - `x1`, `x2`: floating-point arrays of shape `(batch, length, channels)` or `(batch, height, width, channels)`.
      `x2=None` means `x1`, computes half as much, and gives exactly symmetric kernels.
    - `kernel_size`: of the convolutions, along every dimension; by default 5 for sequences and 3 for images.
    - `activation`: `"relu"` or `"erf"`, as in `analytic_mlp`.
    - `batch_size`: examples of `x1` and of `x2` in one block of the kernel; sizes need not divide. A block takes some
      ten arrays of batch_size² · positions numbers, where positions is length or height · width; by default, one such
      array has about a million numbers.

    **Returns:** an `AnalyticKernel`. It can be traced by `jax.jit` and `jax.vmap`.

    **Raises:** `TypeError` or `ValueError` for inputs or options that it does not take.
    """
    _check_activation(activation)
    x1, x2 = _checked(x1, x2, ranks=(3, 4), layout="(batch, length, channels) or (batch, height, width, channels)")
    if kernel_size is None:
        kernel_size = 5 if x1.ndim == 3 else 3
    if batch_size is None:
        batch_size = max(1, math.isqrt(_BLOCK_NUMBERS // math.prod(x1.shape[1:-1])))
    _check.count(kernel_size, "kernel_size", "pass the width of the convolutions' window")
    _check.count(batch_size, "batch_size", "leave it out for one chosen by size")
    return _cnn(x1, x2, kernel_size, activation, batch_size)


def relu_duals(q1: Array, q2: Array, k: Array) -> tuple[Array, Array]:
    """φ̂ and φ̂′ of ReLU: the arc-cosine kernels of degrees 1 and 0, halved (Cho & Saul 2009).

    With cos θ = k / √(q₁ q₂): φ̂ = √(q₁ q₂) (sin θ + (π − θ) cos θ) / 2π and φ̂′ = (π − θ) / 2π. Both are 0 where a
    variance is 0.
    """
    deviations = jnp.sqrt(q1) * jnp.sqrt(q2)
    positive = deviations > 0
    correlation = jnp.where(positive, k / jnp.where(positive, deviations, 1), 0)
    # θ is about √(2 (1 − cos θ)) near 1: rounding of the correlation would show in half the digits of φ̂′.
    rounding = 16 * jnp.finfo(correlation.dtype).eps
    correlation = jnp.where(jnp.abs(correlation) >= 1 - rounding, jnp.sign(correlation), correlation)
    _, angle = arcsin_arccos(correlation)
    sine = jnp.sqrt((1 - correlation) * (1 + correlation))
    value = deviations * (sine + (jnp.pi - angle) * correlation) / (2 * jnp.pi)
    return value, jnp.where(positive, (jnp.pi - angle) / (2 * jnp.pi), 0)


def erf_duals(q1: Array, q2: Array, k: Array) -> tuple[Array, Array]:
    """φ̂ and φ̂′ of erf (Williams 1997).

    With D = (1 + 2 q₁)(1 + 2 q₂): φ̂ = (2/π) arcsin(2k / √D) and φ̂′ = (4/π) / √(D − 4k²), where D − 4k² is written as
    1 + 2 (q₁ + q₂) + 4 (q₁ q₂ − k²), in which nothing large cancels where k² = q₁ q₂.
    """
    rest = 1 + 2 * (q1 + q2) + 4 * jnp.maximum(q1 * q2 - k * k, 0)
    angle, _ = arcsin_arccos(2 * k / jnp.sqrt(rest + 4 * k * k))
    return 2 / jnp.pi * angle, 4 / jnp.pi / jnp.sqrt(rest)


def arcsin_arccos(x: Array) -> tuple[Array, Array]:
    """Both angles of numbers in [−1, 1], to rounding.

    XLA's own go through arctan2, take longer on CPU.
    Here arcsin(√z) / √z is its power series for z up to ¼, and arccos |x| = 2 arcsin √((1 − |x|) / 2) brings |x| > ½
    there.
    """
    size = jnp.abs(x)
    large = size > 0.5
    z = jnp.where(large, (1 - size) / 2, size * size)
    root = jnp.where(large, jnp.sqrt(z), size)
    ratio = jnp.full_like(z, _ARCSINE[-1])
    for coefficient in _ARCSINE[-2::-1]:
        ratio = ratio * z + coefficient
    angle = root * ratio
    arcsine = jnp.where(large, jnp.pi / 2 - 2 * angle, angle)
    arccosine = jnp.where(large, 2 * angle, jnp.pi / 2 - angle)
    return jnp.sign(x) * arcsine, jnp.where(x < 0, jnp.pi - arccosine, arccosine)


# Of the power series of arcsin(√z) / √z, whose remainder at z = ¼ is below 10⁻¹⁷ after this many terms.
_ARCSINE = [math.comb(2 * n, n) / (4**n * (2 * n + 1)) for n in range(25)]
_ACTIVATIONS = {
    "relu": _Activation(2.0, relu_duals, lambda q: q / 2),
    "erf": _Activation(1.0, erf_duals, lambda q: erf_duals(q, q, q)[0]),
}


@functools.partial(jax.jit, static_argnums=(2, 3))
def _mlp(x1: Array, x2: Array | None, depth: int, activation: str) -> AnalyticKernel:
    gain, duals, second_moment = _ACTIVATIONS[activation]
    x2 = x1 if x2 is None else x2
    inputs = x1.shape[1]
    # The products of a kernel are never rounded to TF32 or bfloat16.
    covariance = gain / inputs * jnp.matmul(x1, x2.T, precision=lax.Precision.HIGHEST)
    rows, columns = (gain / inputs * jnp.square(x).sum(axis=1) for x in (x1, x2))
    ntk = covariance + 1
    for _ in range(depth):
        grid = (jnp.broadcast_to(q, covariance.shape) for q in (rows[:, None], columns[None]))
        value, slope = duals(*grid, covariance)
        covariance = gain * value
        ntk = covariance + 1 + gain * slope * ntk
        rows, columns = gain * second_moment(rows), gain * second_moment(columns)
    return AnalyticKernel(covariance, ntk)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _cnn(x1: Array, x2: Array | None, kernel_size: int, activation: str, batch_size: int) -> AnalyticKernel:
    positions, dual = x1.shape[1:-1], _ACTIVATIONS[activation]
    last = _sizes(positions)[-1]
    rotations, weights = _rotations(last, half=x2 is None)
    scan = functools.partial(
        _sums,
        positions=positions,
        kernel_size=kernel_size,
        activation=dual,
        rotations=jnp.asarray(rotations),
        weights=jnp.asarray(weights, x1.dtype),
    )
    padding = [(0, n * _STRIDE - m) for n, m in zip(last, positions, strict=True)]

    def blocks(x):
        x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
        variances = jax.vmap(functools.partial(_variances, positions=positions, kernel_size=kernel_size, dual=dual))
        return jax.tree.map(lambda a: _blocks(a, batch_size), (x, variances(x)))

    first = blocks(x1)
    second = first if x2 is None else blocks(x2)
    block = jax.vmap(jax.vmap(scan, in_axes=(None, 0)), in_axes=(0, None))
    sums = lax.map(lambda rows: lax.map(lambda columns: block(rows, columns), second), first)
    n1, n2 = len(x1), len(x1 if x2 is None else x2)
    values, slopes = (a.swapaxes(1, 2).reshape(a.shape[0] * a.shape[2], -1)[:n1, :n2] for a in sums)
    if x2 is None:
        values, slopes = values + values.T, slopes + slopes.T
    scale = dual.gain / math.prod(last) ** 2  # global average pooling: the mean over pairs of positions
    return AnalyticKernel(scale * values, scale * (values + slopes) + 1)


def _variances(x: Array, *, positions: Sequence[int], kernel_size: int, dual: _Activation) -> list[Array]:
    """q at every position, for the pre-activations of each convolution."""
    moments, variances = jnp.square(x).mean(axis=-1), []
    for windows in _windows(positions, kernel_size, jnp.zeros(len(positions), int), x.dtype):
        variances.append(dual.gain * _window_mean(moments, windows))
        moments = dual.second_moment(variances[-1])
    return variances


def _sums(
    first: tuple[Array, list[Array]],
    second: tuple[Array, list[Array]],
    *,
    positions: Sequence[int],
    kernel_size: int,
    activation: _Activation,
    rotations: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """Sums of φ̂ and of φ̂′ Θ over pairs of positions of two examples, after the last convolution.

    A convolution's windows pair positions that lie as far apart as its outputs, times its stride. So the last layer's
    pairs (i, i − δ) follow from pairs at distances of one multiple of δ in all layers before: for each δ, the recursion
    runs over images, and pairs at other distances, most of them where strides are above 1, are never computed. Rotating
    the second image treats δ ≥ 0 and δ − L < 0 in one: along an axis of L positions, they split it at δ.
    """
    (x1, variances1), (x2, variances2) = first, second
    axes = tuple(range(len(positions)))

    def add(sums, rotated):
        rotation, weight = rotated
        value = (x1 * jnp.roll(x2, rotation * _STRIDE, axes)).mean(axis=-1)
        slope = jnp.zeros_like(value)
        layers = _windows(positions, kernel_size, rotation, x1.dtype)
        for windows, remaining, q1, q2 in zip(layers, _remaining_strides()[1:], variances1, variances2, strict=True):
            covariance = activation.gain * _window_mean(value, windows)
            ntk = covariance + 1 + activation.gain * _window_mean(slope, windows)
            value, derivatives = activation.duals(q1, jnp.roll(q2, rotation * remaining, axes), covariance)
            slope = derivatives * ntk
        return (sums[0] + weight * value.sum(), sums[1] + weight * slope.sum()), None

    zero = jnp.zeros((), x1.dtype)
    return lax.scan(add, (zero, zero), (rotations, weights))[0]


def _rotations(last: Sequence[int], *, half: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rotations of the last layer's positions, and their weights.

    Opposite rotations pair an example's positions with another's as the other's with its own. Where the kernel is to be
    added to its transpose, `half` of them do: one of each two, and ½ of those that are their own opposite.
    """
    rotations = list(itertools.product(*map(range, last)))
    opposite = [tuple(-r % n for r, n in zip(rotation, last, strict=True)) for rotation in rotations]
    if not half:
        return np.array(rotations), np.ones(len(rotations))
    kept = [(r, 0.5 if r == o else 1.0) for r, o in zip(rotations, opposite, strict=True) if r <= o]
    return np.array([r for r, _ in kept]), np.array([weight for _, weight in kept])


def _sizes(positions: Sequence[int]) -> list[tuple[int, ...]]:
    """Positions along every axis, of the inputs and after each convolution.

    Arrays are longer where a number of positions is no multiple of the strides still to come: each has those of the
    last layer times these strides.
    """
    sizes = [tuple(positions)]
    for stride in _CNN_STRIDES:
        sizes.append(tuple(-(-n // stride) for n in sizes[-1]))
    return sizes


def _remaining_strides() -> list[int]:
    """For the inputs and after each convolution, the product of the strides still to come."""
    return [math.prod(_CNN_STRIDES[layer:]) for layer in range(len(_CNN_STRIDES) + 1)]


def _blocks(x: Array, batch_size: int) -> Array:
    """Blocks of at most `batch_size` examples, of equal sizes, the last one filled with zeros."""
    count = -(-len(x) // batch_size)
    size = -(-len(x) // count)
    padded = jnp.pad(x, [(0, count * size - len(x)), *((0, 0),) * (x.ndim - 1)])
    return padded.reshape(count, size, *x.shape[1:])


def _windows(positions: Sequence[int], size: int, rotation: Array, dtype: Any) -> list[list[Array]]:
    """For each convolution and axis, the matrix that averages over the windows of "SAME" padding.

    Position i stands for the pair (i, i − δ), where δ is the rotation times the remaining strides. What is no position
    in one of the two counts as 0, and so does what lies on the other side of the split at δ than the window's centre:
    there, one of the two would have left the image.
    """
    sizes, remaining, layers = _sizes(positions), _remaining_strides(), []
    for layer, stride in enumerate(_CNN_STRIDES):
        matrices = []
        for axis, n in enumerate(sizes[layer]):
            length, split = sizes[-1][axis] * remaining[layer], rotation[axis] * remaining[layer]
            i = jnp.arange(length)[None]
            centre = jnp.arange(0, length, stride)[:, None]
            missing = max((sizes[layer + 1][axis] - 1) * stride + size - n, 0)
            offset = i - centre + missing // 2  # as XLA splits the padding
            counts = (offset >= 0) & (offset < size) & ((i >= split) == (centre >= split))
            counts &= (i < n) & ((i - split) % length < n)
            matrices.append(jnp.where(counts, 1 / size, 0).astype(dtype))
        layers.append(matrices)
    return layers


def _window_mean(image: Array, windows: Sequence[Array]) -> Array:
    # Matrix products: sums of slices take longer, because XLA fuses the duals into each.
    for axis, matrix in enumerate(windows):
        product = jnp.tensordot(image, matrix, axes=(axis, 1), precision=lax.Precision.HIGHEST)
        image = jnp.moveaxis(product, -1, axis)
    return image


def _check_activation(activation: Any) -> None:
    if activation not in tuple(_ACTIVATIONS):
        raise ValueError(
            f"`activation` must be 'relu' or 'erf', got {activation!r}; for others there is the empirical kernel of a "
            "wide network."
        )


def _checked(x1: Any, x2: Any, *, ranks: Sequence[int] | None, layout: str) -> tuple[Array, Array | None]:
    """Both inputs in their common dtype."""
    check_sums()
    arrays = [jnp.asarray(x) for x in (x1, x2) if x is not None]
    for name, x in zip(("x1", "x2"), arrays, strict=False):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"`{name}` must be a floating-point array, got {x.dtype}; convert and scale it as for training."
            )
        if x.ndim < 2 if ranks is None else x.ndim not in ranks:
            raise ValueError(f"`{name}` must have shape {layout}, got {x.shape}; pass a batch of examples.")
        if 0 in x.shape:
            raise ValueError(f"`{name}` must hold at least one number, got shape {x.shape}; check how it was selected.")
    if len({x.shape[1:] for x in arrays}) > 1:
        raise ValueError(
            f"`x1` and `x2` must hold examples of one shape, got {arrays[0].shape[1:]} and {arrays[1].shape[1:]}; "
            "pass inputs of the same network."
        )
    dtype = jnp.result_type(*arrays)
    converted = [x.astype(dtype) for x in arrays]
    return converted[0], converted[1] if x2 is not None else None
