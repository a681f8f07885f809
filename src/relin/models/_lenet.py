"""LeNet-5."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._convolution import Convolution, Form
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense, average_pool

_CLASSIC = (6, 16, 120, 84)


class LeNet5(AbstractModel):
    """Two 5×5 convolutions of 6 and 16 channels, each followed by 2×2 average pooling, then dense 120-84-C.

    After LeCun et al. 1998, *Gradient-based learning applied to document recognition*, with full connections
    between the convolutions, no weights in the pooling and a linear read-out: 61 706 parameters for ten
    classes and one channel. 28×28 inputs are padded to 32×32 by the first convolution. The original
    activation is tanh. Initialisation and parametrisation are those of `MLP`, with fan_in = kernel size ×
    channels.

    **Arguments:**

    - `input_shape`: `(28, 28, channels)` or `(32, 32, channels)`.
    - `num_classes`: C, the number of outputs.
    - `width`: channels of the first convolution, 6 in the classic network; the other layers grow in
      proportion.
    - `activation`: `"relu"`, `"erf"`, `"tanh"` or `"gelu"`.
    - `parametrisation`: `"standard"` or `"ntk"`.
    - `convolution`: `"auto"`, `"patches"` or `"lax"`, see `Convolution`.
    - `key`: of the initial weights.
    """

    convolutions: tuple[Convolution, Convolution]
    dense: tuple[Dense, Dense]
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 6,
        activation: str = "relu",
        parametrisation: str = "standard",
        convolution: Form = "auto",
        key: PRNGKeyArray,
    ):
        layout = "(28, 28, channels) or (32, 32, channels)"
        self.input_shape = check_input_shape("LeNet5", input_shape, (3,), layout)
        if self.input_shape[:2] not in ((28, 28), (32, 32)):
            raise ValueError(
                f"LeNet5 takes inputs of shape {layout}, got input_shape={self.input_shape}; use CNN for other sizes."
            )
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        width = check_count("width", width)
        first, second, *hidden = (max(1, round(n * width / _CLASSIC[0])) for n in _CLASSIC)
        options = {"c_w": gain(activation), "parametrisation": parametrisation}
        padding = "SAME" if self.input_shape[0] == 28 else "VALID"
        kernel, channels = (5, 5), self.input_shape[-1]
        convolutions = (
            Convolution(channels, first, kernel, padding=padding, convolution=convolution, **options),
            Convolution(first, second, kernel, padding="VALID", convolution=convolution, **options),
        )
        dense = (
            Dense(5 * 5 * second, hidden[0], **options),
            Dense(hidden[0], hidden[1], **options),
        )
        c_w = readout_gain(activation, parametrisation)
        classes = check_count("num_classes", num_classes)
        readout = Dense(hidden[1], classes, c_w=c_w, parametrisation=parametrisation)
        self.convolutions, self.dense, self.readout = initialise((convolutions, dense, readout), key)

    def __call__(self, x: Float[Array, "*input_shape"]) -> Float[Array, " C"]:
        check_example("LeNet5", x.shape, self.input_shape)
        activation = ACTIVATIONS[self.activation]
        for convolution in self.convolutions:
            x = average_pool(activation(convolution(x)))
        x = x.reshape(-1)
        for layer in self.dense:
            x = activation(layer(x))
        return self.readout(x)
