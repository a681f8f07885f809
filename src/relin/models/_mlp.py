"""The multilayer perceptron."""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense


class MLP(AbstractModel):
    """`depth` hidden layers of `width` units and a linear read-out, of the flattened example.

    Weights start at N(0, c_w / fan_in), where c_w is 2 for ReLU (He) and 1 otherwise (LeCun), and 1 in the
    read-out; biases at zero. In NTK parametrisation, weights start at N(0, 1) and every layer, the read-out
    included, computes √(c_w / fan_in) x W + b.

    **Arguments:**

    - `input_shape`: of one example, any number of axes, for example `(28, 28, 1)`.
    - `num_classes`: C, the number of outputs.
    - `width`, `depth`: of the hidden layers; `depth=0` is a linear model.
    - `activation`: `"relu"`, `"erf"`, `"tanh"` or `"gelu"`.
    - `parametrisation`: `"standard"` or `"ntk"`.
    - `key`: of the initial weights.
    """

    layers: tuple[Dense, ...]
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 256,
        depth: int = 2,
        activation: str = "relu",
        parametrisation: str = "standard",
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape(
            "MLP", input_shape, range(1, 9), "(features,) or (height, width, channels)"
        )
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        hidden = [check_count("width", width)] * check_count("depth", depth, least=0)
        sizes = [math.prod(self.input_shape), *hidden, check_count("num_classes", num_classes)]
        gains = [gain(activation)] * len(hidden) + [readout_gain(activation, parametrisation)]
        layers = tuple(
            Dense(inputs, outputs, c_w=c_w, parametrisation=parametrisation)
            for (inputs, outputs), c_w in zip(itertools.pairwise(sizes), gains, strict=True)
        )
        self.layers = initialise(layers, key)

    def __call__(self, x: Float[Array, "*input_shape"]) -> Float[Array, " C"]:
        check_example("MLP", x.shape, self.input_shape)
        x = x.reshape(-1)
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.layers[-1](x)
