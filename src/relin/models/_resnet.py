"""ResNet-18 for small images."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._convolution import Form
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense, global_average_pool
from relin.models._norm import NORMS, Norm, NormalisedConvolution, State, with_state

_STRIDES = (1, 1, 2, 1, 2, 1, 2, 1)
_MULTIPLES = (1, 1, 2, 2, 4, 4, 8, 8)


class _Block(eqx.Module):
    """φ(shortcut(x) + branch(x)), the branch being two 3×3 convolutions with φ in between."""

    first: NormalisedConvolution
    second: NormalisedConvolution
    shortcut: NormalisedConvolution | None
    branch_scale: float = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        norm: Norm,
        activation: str,
        **options: Any,
    ):
        c_w = gain(activation)
        self.first = NormalisedConvolution(inputs, outputs, 3, norm, stride=stride, c_w=c_w, **options)
        # Nothing halves the second moment after the branch's end and the shortcut: c_w = 1.
        self.second = NormalisedConvolution(outputs, outputs, 3, norm, **options)
        project = stride != 1 or inputs != outputs
        self.shortcut = NormalisedConvolution(inputs, outputs, 1, norm, stride=stride, **options) if project else None
        self.branch_scale = 1.0 if norm != "none" else 1 / math.sqrt(len(_STRIDES))
        self.activation = activation

    def __call__(
        self, x: Float[Array, "height width inputs"], state: State
    ) -> tuple[Float[Array, "rows columns outputs"], State]:
        activation = ACTIVATIONS[self.activation]
        branch, state = self.first(x, state)
        branch, state = self.second(activation(branch), state)
        shortcut, state = (x, state) if self.shortcut is None else self.shortcut(x, state)
        return activation(shortcut + self.branch_scale * branch), state


class ResNet18(AbstractModel):
    """The 18-layer residual network for small images (He et al. 2015, arXiv:1512.03385).

    As usual for CIFAR, the stem is 3×3 and not pooled. A 3×3 convolution, eight blocks in four stages of
    `width`, 2, 4 and 8 `width` channels, global average pooling and a linear read-out. A 1×1 convolution is
    the shortcut where the shape changes.

    With `norm="group"`, group normalisation in up to 32 groups follows every convolution, which has no bias; with
    `norm="batch"` batch normalisation, and the network is called with its state, see `relin.from_equinox`.
    With `norm="none"`, convolutions have a bias and each of the L = 8 branches is multiplied by 1/√L, which
    keeps outputs and kernel bounded in depth (Hayou et al. 2021, arXiv:2010.12859); branches do not start at
    zero, because then half of the convolutions would have no gradient, hence no feature, at the initial
    anchor.

    Initialisation and parametrisation are those of `MLP`, with fan_in = kernel size × channels, and c_w = 1
    in the shortcuts and the last convolutions of the branches.

    **Arguments:**

    - `input_shape`: `(height, width, channels)`.
    - `num_classes`: C, the number of outputs.
    - `width`: channels of the first stage.
    - `norm`: `"group"`, `"batch"` or `"none"`.
    - `activation`: `"relu"`, `"erf"`, `"tanh"` or `"gelu"`.
    - `parametrisation`: `"standard"` or `"ntk"`.
    - `convolution`: `"auto"`, `"patches"` or `"lax"`, see `Convolution`.
    - `key`: of the initial weights.
    """

    stem: NormalisedConvolution
    blocks: tuple[_Block, ...]
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 64,
        norm: Norm = "group",
        activation: str = "relu",
        parametrisation: str = "standard",
        convolution: Form = "auto",
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape("ResNet18", input_shape, (3,), "(height, width, channels)")
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        check_choice("norm", norm, NORMS)
        width = check_count("width", width)
        options = {"parametrisation": parametrisation, "convolution": convolution}
        inputs, c_w = self.input_shape[-1], gain(activation)
        stem = NormalisedConvolution(inputs, width, 3, norm, c_w=c_w, **options)
        channels = [width, *(width * multiple for multiple in _MULTIPLES)]
        blocks = tuple(
            _Block(inputs, outputs, stride, norm, activation, **options)
            for (inputs, outputs), stride in zip(itertools.pairwise(channels), _STRIDES, strict=True)
        )
        readout = Dense(
            channels[-1],
            check_count("num_classes", num_classes),
            c_w=readout_gain(activation, parametrisation),
            parametrisation=parametrisation,
        )
        self.stem, self.blocks, self.readout = initialise((stem, blocks, readout), key)

    def __call__(self, x: Float[Array, "*input_shape"], state: State = None) -> Any:
        check_example("ResNet18", x.shape, self.input_shape)
        x, state = self.stem(x, state)
        x = ACTIVATIONS[self.activation](x)
        for block in self.blocks:
            x, state = block(x, state)
        return with_state(self.readout(global_average_pool(x)), state)
