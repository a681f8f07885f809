"""VGG-11."""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._convolution import Form
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense, global_average_pool, max_pool
from relin.models._norm import NORMS, Norm, NormalisedConvolution, State, with_state

_MULTIPLES = (1, 2, 4, 4, 8, 8, 8, 8)
_POOLED_AFTER = (0, 1, 3, 5, 7)


class VGG11(AbstractModel):
    """Configuration A of Simonyan & Zisserman 2014, arXiv:1409.1556, as is usual for small images.

    Eight 3×3 convolutions of `width`, 2, 4, 4, 8, 8, 8 and 8 `width` channels, 2×2 max pooling after the first, second,
    fourth, sixth and last as long as there are two positions to pool, the mean over what is left, and a linear read-out
    in place of the three dense layers for large images.

    **Arguments:**

    - `input_shape`: `(height, width, channels)`.
    - `num_classes`: C, the number of outputs.
    - `width`: channels of the first convolution.
    - `norm`: `"batch"`, called with its state, see `relin.from_equinox`; `"group"`, or `"none"` as published.
    - `activation`, `parametrisation`, `convolution`: as for `ResNet18`.
    - `key`: of the initial weights.
    """

    convolutions: tuple[NormalisedConvolution, ...]
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 64,
        norm: Norm = "none",
        activation: str = "relu",
        parametrisation: str = "standard",
        convolution: Form = "auto",
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape("VGG11", input_shape, (3,), "(height, width, channels)")
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        check_choice("norm", norm, NORMS)
        width = check_count("width", width)
        options = {"parametrisation": parametrisation, "convolution": convolution, "c_w": gain(activation)}
        channels = [self.input_shape[-1], *(width * multiple for multiple in _MULTIPLES)]
        convolutions = tuple(
            NormalisedConvolution(inputs, outputs, 3, norm, **options)
            for inputs, outputs in itertools.pairwise(channels)
        )
        classes = check_count("num_classes", num_classes)
        c_w = readout_gain(activation, parametrisation)
        readout = Dense(channels[-1], classes, c_w=c_w, parametrisation=parametrisation)
        self.convolutions, self.readout = initialise((convolutions, readout), key)

    def __call__(self, x: Float[Array, "*input_shape"], state: State = None) -> Any:
        check_example("VGG11", x.shape, self.input_shape)
        for number, convolution in enumerate(self.convolutions):
            x, state = convolution(x, state)
            x = ACTIVATIONS[self.activation](x)
            if number in _POOLED_AFTER and min(x.shape[:2]) > 1:
                x = max_pool(x)
        return with_state(self.readout(global_average_pool(x)), state)
