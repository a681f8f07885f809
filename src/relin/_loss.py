"""Losses ℓ(f, y), with their gradient and Hessian in output space."""

import abc
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Shaped

from relin._types import Outputs, Scalar, Targets


class AbstractLoss(eqx.Module):
    """A loss of the outputs. Subclasses give `__call__`; its derivatives follow.

    `L`, the quantity that is trained, is `mean`: the mean of ℓ over the batch.
    """

    @abc.abstractmethod
    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        """ℓ(f, y) of each example.

        **Arguments:** `outputs` of shape `(batch, C)`; `targets` with leading axis `batch`.

        **Returns:** an array of shape `(batch,)`.
        """

    @abc.abstractmethod
    def correct(self, outputs: Outputs, targets: Targets) -> Shaped[Array, " batch"] | None:
        """Whether each example is classified correctly, or at which share of its positions; `None` where the targets
        are no classes."""

    def mean(self, outputs: Outputs, targets: Targets) -> Scalar:
        """L: the mean of ℓ over the batch."""
        return jnp.mean(self(outputs, targets))

    def gradient(self, outputs: Outputs, targets: Targets) -> Float[Array, "batch C"]:
        """∂ℓ/∂f of each example, shape `(batch, C)` (not divided by the batch size)."""
        return jax.grad(lambda f: jnp.sum(self(f, targets)))(outputs)

    def hessian_product(
        self, outputs: Outputs, targets: Targets, vector: Float[Array, "batch C"]
    ) -> Float[Array, "batch C"]:
        """H v with H = ∂²ℓ/∂f² of each example, shape `(batch, C)`."""
        return jax.jvp(lambda f: self.gradient(f, targets), (outputs,), (vector,))[1]


class CrossEntropy(AbstractLoss):
    """Softmax cross-entropy of logits.

    **Arguments:**

    - `label_smoothing`: α in [0, 1); the target distribution becomes (1 − α) y + α/C
      (Szegedy et al. 2016, arXiv:1512.00567).

    Targets are integer classes of shape `(batch,)`, or distributions (one-hot or soft) of shape `(batch, C)`; or
    integer classes of shape `(batch, length)`, such as next tokens: then C = length · classes, the logits of one
    position after the other, and ℓ is the mean over the positions. A wrong shape raises `ValueError`.
    """

    label_smoothing: float = 0.0

    def __check_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must be at least 0 and less than 1, got {self.label_smoothing}; pass 0 for none."
            )

    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        if _are_positions(outputs, targets):
            return jnp.mean(self(*_position_by_position(outputs, targets)).reshape(targets.shape), axis=1)
        classes = _are_classes(outputs, targets)
        if classes and self.label_smoothing == 0:
            return cast(Array, optax.losses.softmax_cross_entropy_with_integer_labels(outputs, targets))
        num_classes = outputs.shape[-1]
        soft = jax.nn.one_hot(targets, num_classes, dtype=outputs.dtype) if classes else targets.astype(outputs.dtype)
        soft = optax.losses.smooth_labels(soft, self.label_smoothing) if self.label_smoothing else soft
        return cast(Array, optax.losses.softmax_cross_entropy(outputs, soft))

    def correct(self, outputs: Outputs, targets: Targets) -> Shaped[Array, " batch"]:
        if _are_positions(outputs, targets):
            agrees = _argmax_agrees(*_position_by_position(outputs, targets))
            return jnp.mean(agrees.reshape(targets.shape), axis=1, dtype=outputs.dtype)
        return _argmax_agrees(outputs, targets)


class SquaredError(AbstractLoss):
    """½‖f − y‖², summed over the outputs.

    Targets have the outputs' shape `(batch, C)`; integer classes of shape `(batch,)` stand for their one-hot vectors
    when there is more than one output. A wrong shape raises `ValueError`.
    """

    def __call__(self, outputs: Outputs, targets: Targets) -> Float[Array, " batch"]:
        if _are_classes(outputs, targets):
            targets = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        return 0.5 * jnp.sum(jnp.square(outputs - targets), axis=-1)

    def correct(self, outputs: Outputs, targets: Targets) -> Bool[Array, " batch"] | None:
        if _are_classes(outputs, targets):
            return _argmax_agrees(outputs, targets)
        return None


def _are_positions(outputs: Outputs, targets: Targets) -> bool:
    """Whether `targets` are integer classes at several positions of each example."""
    if outputs.ndim != 2 or targets.ndim != 2 or not jnp.issubdtype(targets.dtype, jnp.integer):
        return False
    batch, length = targets.shape
    return outputs.shape[0] == batch and length < outputs.shape[1] and outputs.shape[1] % length == 0


def _position_by_position(
    outputs: Outputs, targets: Targets
) -> tuple[Float[Array, "positions classes"], Shaped[Array, " positions"]]:
    """Every position as an example of its own."""
    return outputs.reshape(targets.size, -1), targets.reshape(-1)


def _are_classes(outputs: Outputs, targets: Targets) -> bool:
    """Whether `targets` are integer classes; raises if they fit the outputs in neither form."""
    if outputs.ndim != 2:
        raise ValueError(
            f"The network must return outputs of shape (batch, C), got {outputs.shape}; "
            "reshape its outputs, for example to (batch, 1) for one regression value."
        )
    if targets.shape == outputs.shape:
        return False
    if targets.shape == outputs.shape[:1] and outputs.shape[1] > 1:
        if jnp.issubdtype(targets.dtype, jnp.integer):
            return True
        raise ValueError(
            f"Targets of shape {targets.shape} must be integer classes, got {targets.dtype}; "
            "cast them to an integer type, or pass one row of C values per example."
        )
    classes = f"{outputs.shape[:1]} (integer classes) or " if outputs.shape[1] > 1 else ""
    raise ValueError(
        f"Targets must have shape {classes}{outputs.shape}, got {targets.shape}; reshape the targets or the outputs."
    )


def _argmax_agrees(outputs: Outputs, targets: Targets) -> Bool[Array, " batch"]:
    wanted = targets if targets.ndim == 1 else jnp.argmax(targets, axis=-1)
    return jnp.argmax(outputs, axis=-1) == wanted
