"""The convolutional network."""

import itertools
from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._convolution import Convolution, Form
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense, global_average_pool

_STRIDES = (1, 2, 2)


class CNN(AbstractModel):
    """Three convolutions of `width`, 2 `width` and 4 `width` channels, global average pooling and a linear read-out.

    The convolutions have zero padding ("SAME") and strides 1, 2, 2. Sequences `(length, channels)` are
    convolved in one dimension, images `(height, width, channels)` in two. Initialisation and parametrisation
    are those of `MLP`, with fan_in = kernel size × channels.

    **Arguments:**

    - `input_shape`: of one example, channels last, for example `(40, 1)` or `(28, 28, 1)`.
    - `num_classes`: C, the number of outputs.
    - `width`: channels of the first convolution.
    - `kernel_size`: along every dimension; by default 5 for sequences and 3 for images.
    - `activation`: `"relu"`, `"erf"`, `"tanh"` or `"gelu"`.
    - `parametrisation`: `"standard"` or `"ntk"`.
    - `convolution`: `"auto"`, `"patches"` or `"lax"`, see `Convolution`.
    - `key`: of the initial weights.
    """

    convolutions: tuple[Convolution, ...]
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 16,
        kernel_size: int | None = None,
        activation: str = "relu",
        parametrisation: str = "standard",
        convolution: Form = "auto",
        key: PRNGKeyArray,
    ):
        layout = "(length, channels) or (height, width, channels)"
        self.input_shape = check_input_shape("CNN", input_shape, (2, 3), layout)
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        dimensions = len(self.input_shape) - 1
        if kernel_size is None:
            kernel_size = 5 if dimensions == 1 else 3
        kernel = (check_count("kernel_size", kernel_size),) * dimensions
        width = check_count("width", width)
        channels = (self.input_shape[-1], width, 2 * width, 4 * width)
        convolutions = tuple(
            Convolution(
                inputs,
                outputs,
                kernel,
                stride=stride,
                c_w=gain(activation),
                parametrisation=parametrisation,
                convolution=convolution,
            )
            for (inputs, outputs), stride in zip(itertools.pairwise(channels), _STRIDES, strict=True)
        )
        readout = Dense(
            channels[-1],
            check_count("num_classes", num_classes),
            c_w=readout_gain(activation, parametrisation),
            parametrisation=parametrisation,
        )
        self.convolutions, self.readout = initialise((convolutions, readout), key)

    def __call__(self, x: Float[Array, "*input_shape"]) -> Float[Array, " C"]:
        check_example("CNN", x.shape, self.input_shape)
        for layer in self.convolutions:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.readout(global_average_pool(x))
