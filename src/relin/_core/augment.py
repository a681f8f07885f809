"""Random augmentation of a batch of images, inside the compiled step."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from relin._core.types import Key

Images = Float[Array, "batch height width channels"]


class AbstractAugmentation(eqx.Module):
    """Changes a batch of inputs at random; the same key gives the same change.

    Called with a key and the inputs of a batch, usually images `(batch, height, width, channels)`;
    targets stay as they are.
    """

    @abc.abstractmethod
    def __call__(self, key: Key, x: Images) -> Images:
        """The augmented batch, of the same shape."""


class Flip(AbstractAugmentation):
    """Mirrors each image left to right with probability ½.

    **Raises:** `ValueError` when it is called, for inputs that are not `(batch, height, width, channels)`.
    """

    def __call__(self, key: Key, x: Images) -> Images:
        _check_images(x)
        flip = jax.random.bernoulli(key, shape=(x.shape[0],))
        return jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)


class PaddedCrop(AbstractAugmentation):
    """Pads each image by `padding` zeros on every side and cuts out its original size at a random place.

    **Arguments:**

    - `padding`: pixels, a whole number from 0.

    **Raises:** `ValueError` for another number, and when it is called, for inputs that are not `(batch, height, width,
    channels)`.
    """

    padding: int = 4

    def __check_init__(self):
        if not (isinstance(self.padding, int) and self.padding >= 0):
            raise ValueError(f"`padding` must be a whole number of at least 0, got {self.padding!r}; 4 is usual.")

    def __call__(self, key: Key, x: Images) -> Images:
        _check_images(x)
        batch, height, width, channels = x.shape
        pad = ((0, 0), (self.padding, self.padding), (self.padding, self.padding), (0, 0))
        corners = jax.random.randint(key, (batch, 2), 0, 2 * self.padding + 1)

        def crop(image, corner):
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

        return jax.vmap(crop)(jnp.pad(x, pad), corners)


class Chain(AbstractAugmentation):
    """Several augmentations in order, each with a key of its own.

    **Arguments:**

    - `parts`: augmentations, the first one first.
    """

    parts: tuple[AbstractAugmentation, ...]

    def __init__(self, *parts: AbstractAugmentation):
        self.parts = parts

    def __call__(self, key: Key, x: Images) -> Images:
        for part, part_key in zip(self.parts, jax.random.split(key, len(self.parts)), strict=True):
            x = part(part_key, x)
        return x


def _check_images(x: Images) -> None:
    if x.ndim != 4:
        raise ValueError(
            f"Images to augment must have shape (batch, height, width, channels), got {x.shape}; reshape the inputs, "
            "or leave `augment` out."
        )
