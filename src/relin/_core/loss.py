"""Losses ℓ(f, y), with their gradient and Hessian in output space."""

import abc
import math
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Shaped

from relin._core import constant as _constant
from relin._core.types import Outputs, Scalar, Targets


class TargetCheck(NamedTuple):
    """Which targets a loss is made for, see `AbstractLoss.check_targets`."""

    values: Shaped[Array, "batch ..."]
    """The targets, or that part of them that may be wrong."""
    allowed: Bool[Array, "batch ..."]
    """Whether each of `values` is right."""
    expected: str
    """What they must be, such as "integer classes from 0 to 9"."""
    remedy: str = "check the data"
    """What to do, after "got −1 at example 3; "."""


class AbstractLoss(eqx.Module):
    """A loss of the outputs. Subclasses give `__call__` and `correct`; the derivatives follow.

    `L`, the quantity that is trained, is `mean`: the mean of ℓ over the batch. ℓ of an example may depend on that
    example's outputs and targets alone; `train` and `check` try this once before training, and the gradient with it.
    """

    @abc.abstractmethod
    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        """ℓ(f, y) of each example.

        **Arguments:** `outputs` of shape `(batch, C)`, or `(batch, …)` as the network gives them; `targets` a PyTree of
        arrays with leading axis `batch`.

        **Returns:** a floating-point array of shape `(batch,)`.
        """

    @abc.abstractmethod
    def correct(self, outputs: Outputs, targets: Targets) -> Shaped[Array, " batch"] | None:
        """Whether each example is classified correctly, or at which share of its positions; `None` where the targets
        are no classes."""

    def check_targets(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> TargetCheck | None:
        """Which targets this loss is made for; `None`, unless overridden, where any value will do.

        Asked of all targets before training, and of each batch of an iterable inside a compiled program. JAX reads a
        class below 0 as one from the end and a class of C or more as not a number, without an error of its own: a loss
        that looks classes up should say here which there are.

        **Arguments:** `outputs` their shape and type alone; `targets` as for `__call__`.
        """
        return None

    def constant_loss(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> float | None:
        """min_c mean ℓ(c, y), the loss of the best predictor whose outputs c are the same for every example; `None`,
        unless overridden, where that is not known.

        `train` asks it once, of all targets: a run whose final loss is not at least 1 % below failed to train.

        **Arguments:** `outputs` their shape and type alone; `targets` as for `__call__`, no tracers.
        """
        return None

    def mean(self, outputs: Outputs, targets: Targets) -> Scalar:
        """L: the mean of ℓ over the batch."""
        return jnp.mean(self(outputs, targets))

    def gradient(self, outputs: Outputs, targets: Targets) -> Outputs:
        """∂ℓ/∂f of each example, of the outputs' shape (not divided by the batch size)."""
        return jax.grad(lambda f: jnp.sum(self(f, targets)))(outputs)

    def hessian_product(self, outputs: Outputs, targets: Targets, vector: Outputs) -> Outputs:
        """H v with H = ∂²ℓ/∂f² of each example, of the outputs' shape."""
        return jax.jvp(lambda f: self.gradient(f, targets), (outputs,), (vector,))[1]


class CrossEntropy(AbstractLoss):
    """Softmax cross-entropy of logits.

    **Arguments:**

    - `label_smoothing`: α in [0, 1); the target distribution becomes (1 − α) y + α/C
      (Szegedy et al. 2016, arXiv:1512.00567).

    Outputs are logits of shape `(batch, C)`, or `(batch, …, C)` at several positions of each example, such as pixels or
    next tokens: ℓ is then the mean over the positions. Targets are integer classes, of the outputs' shape without its
    last axis, or distributions (one-hot or soft) of the outputs' shape. Logits of shape `(batch, length · C)`, one
    position after the other, go with integer classes of shape `(batch, length)`. A wrong shape raises `ValueError`.

    **Raises:** `ValueError` for `label_smoothing` out of range.
    """

    label_smoothing: float = 0.0

    def __check_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must be at least 0 and less than 1, got {self.label_smoothing}; pass 0 for none."
            )

    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        outputs = _by_position(outputs, targets)
        classes = _are_classes(outputs, targets)
        if classes and self.label_smoothing == 0:
            losses = optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets)
            return _mean_over_positions(cast(Array, losses))
        num_classes = outputs.shape[-1]
        soft = jax.nn.one_hot(targets, num_classes, dtype=outputs.dtype) if classes else targets.astype(outputs.dtype)
        soft = optax.losses.smooth_labels(soft, self.label_smoothing) if self.label_smoothing else soft
        return _mean_over_positions(cast(Array, optax.losses.softmax_cross_entropy(outputs, soft)))

    def correct(self, outputs: Outputs, targets: Targets) -> Shaped[Array, " batch"]:
        outputs = _by_position(outputs, targets)
        return _argmax_agrees(outputs, targets, _are_classes(outputs, targets))

    def check_targets(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> TargetCheck | None:
        return _classes_in_range(jax.eval_shape(lambda f: _by_position(f, targets), outputs), targets)

    def constant_loss(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> float | None:
        """The entropy of the mean target distribution, such as that of the class frequencies."""
        return _constant.entropy(outputs.shape, targets, self.label_smoothing)


class OneRowCrossEntropy(CrossEntropy):
    """The cross-entropy of integer classes, whose H keeps one row an example, p (1 − p) g gᵀ.

    p is the probability of the example's class,
    g = ∂m/∂f with the margin m = f_y − log Σ_{j ≠ y} exp f_j, of which ℓ = log(1 + exp(−m)); the margin's own curvature
    is left out (arXiv:2605.06081). With two classes nothing is. The loss and its gradient are the whole ones.
    """

    def hessian_product(self, outputs: Outputs, targets: Targets, vector: Outputs) -> Outputs:
        f = _by_position(outputs, targets)
        if not _are_classes(f, targets):
            raise ValueError(
                'curvature="one-row" takes integer classes, got distributions; pass classes, or curvature="whole".'
            )
        own = jax.nn.one_hot(targets, f.shape[-1], dtype=bool)
        probabilities = jax.nn.softmax(f)
        right, wrong = (jnp.sum(probabilities, axis=-1, keepdims=True, where=which) for which in (own, ~own))
        alone = jnp.all(own | (f == -jnp.inf), axis=-1, keepdims=True)  # the others are masked, and have no softmax
        others = jax.nn.softmax(jnp.where(alone, 0, jnp.where(own, -jnp.inf, f)))
        g = own - jnp.where(alone, 0, others)
        along = jnp.sum(g * vector.reshape(f.shape), axis=-1, keepdims=True)
        positions = max(1, math.prod(f.shape[1:-1]))
        return (right * wrong * g * along / positions).reshape(outputs.shape)


class SquaredError(AbstractLoss):
    """½‖f − y‖², summed over the outputs.

    Targets have the outputs' shape, `(batch, C)` or `(batch, …, C)`; integer classes of that shape without its last
    axis stand for their one-hot vectors when there is more than one output. A wrong shape raises `ValueError`.
    """

    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        if _are_classes(outputs, targets):
            targets = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        return 0.5 * jnp.sum(jnp.square(outputs - targets), axis=tuple(range(1, outputs.ndim)))

    def correct(self, outputs: Outputs, targets: Targets) -> Shaped[Array, " batch"] | None:
        return _argmax_agrees(outputs, targets, True) if _are_classes(outputs, targets) else None

    def check_targets(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> TargetCheck | None:
        return _classes_in_range(outputs, targets)

    def constant_loss(self, outputs: jax.ShapeDtypeStruct, targets: Targets) -> float | None:
        """Half the variance of the targets."""
        return _constant.half_variance(outputs.shape, targets)


def _by_position(outputs: Outputs, targets: Targets) -> Outputs:
    """The logits as `(batch, length, C)` where they are given as `(batch, length · C)` with classes at positions."""
    if outputs.ndim != 2 or not _is_integer(targets) or targets.ndim != 2:
        return outputs
    batch, length = targets.shape
    if outputs.shape[0] == batch and 0 < length < outputs.shape[1] and outputs.shape[1] % length == 0:
        return outputs.reshape(batch, length, -1)
    return outputs


def _are_classes(outputs: Outputs | jax.ShapeDtypeStruct, targets: Targets) -> bool:
    """Whether `targets` are integer classes; raises if they fit the outputs in neither form."""
    if outputs.ndim < 2:
        raise ValueError(
            f"The network must return outputs of shape (batch, C), got {outputs.shape}; "
            "reshape its outputs, for example to (batch, 1) for one regression value."
        )
    if not hasattr(targets, "shape"):
        raise TypeError(
            f"Targets must be one array, got {type(targets).__name__}; pass one, or write a loss that takes these."
        )
    if targets.shape == outputs.shape:
        return False
    if targets.shape == outputs.shape[:-1] and outputs.shape[-1] > 1:
        if _is_integer(targets):
            return True
        raise ValueError(
            f"Targets of shape {targets.shape} must be integer classes, got {targets.dtype}; "
            "cast them to an integer type, or pass one row of C values per example."
        )
    classes = f"{outputs.shape[:-1]} (integer classes) or " if outputs.shape[-1] > 1 else ""
    raise ValueError(
        f"Targets must have shape {classes}{outputs.shape}, got {targets.shape}; reshape the targets or the outputs."
    )


def _is_integer(targets: Targets) -> bool:
    return hasattr(targets, "dtype") and jnp.issubdtype(targets.dtype, jnp.integer)


def _mean_over_positions(values: Shaped[Array, "batch ..."]) -> Shaped[Array, " batch"]:
    return values if values.ndim == 1 else jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _argmax_agrees(outputs: Outputs, targets: Targets, classes: bool) -> Shaped[Array, " batch"]:
    """Whether the largest output is the class wanted; the share of the positions where there are several."""
    agrees = jnp.argmax(outputs, axis=-1) == (targets if classes else jnp.argmax(targets, axis=-1))
    return agrees if agrees.ndim == 1 else _mean_over_positions(agrees.astype(outputs.dtype))


def _classes_in_range(outputs: jax.ShapeDtypeStruct, targets: Targets) -> TargetCheck | None:
    if not _are_classes(outputs, targets):
        return None
    most = outputs.shape[-1] - 1
    expected = f"integer classes from 0 to {most}, as many as the network has outputs"
    remedy = "relabel them, or give the network more outputs"
    return TargetCheck(targets, (targets >= 0) & (targets <= most), expected, remedy)
