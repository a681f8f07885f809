"""Wide residual networks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_choice, check_count, check_example, check_input_shape
from relin.models._convolution import Convolution, Form
from relin.models._initial import gain, initialise, readout_gain
from relin.models._layers import ACTIVATIONS, Dense, GroupNorm, global_average_pool
from relin.models._norm import NORMS, BatchNorm, Norm, State, make_norm, normalise, with_state


class _Block(eqx.Module):
    """shortcut + branch, the branch being normalisation, φ and a 3×3 convolution, twice."""

    norms: tuple[BatchNorm | GroupNorm | None, BatchNorm | GroupNorm | None]
    convolutions: tuple[Convolution, Convolution]
    shortcut: Convolution | None
    branch_scale: float = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Norm, activation: str, branch_scale: float, **options: Any
    ):
        use_bias, c_w = norm == "none", gain(activation)
        self.norms = make_norm(norm, inputs), make_norm(norm, outputs)
        self.convolutions = (
            Convolution(inputs, outputs, (3, 3), stride=stride, use_bias=use_bias, c_w=c_w, **options),
            Convolution(outputs, outputs, (3, 3), use_bias=use_bias, c_w=c_w, **options),
        )
        project = stride != 1 or inputs != outputs
        self.shortcut = None
        if project:
            self.shortcut = Convolution(inputs, outputs, (1, 1), stride=stride, use_bias=use_bias, **options)
        self.branch_scale, self.activation = branch_scale, activation

    def __call__(
        self, x: Float[Array, "height width inputs"], state: State
    ) -> tuple[Float[Array, "rows columns outputs"], State]:
        activation = ACTIVATIONS[self.activation]
        branch = x
        for number, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            branch, state = normalise(norm, branch, state)
            branch = activation(branch)
            if number == 0 and self.shortcut is not None:
                x = self.shortcut(branch)  # where the shape changes the whole block is activated first
            branch = convolution(branch)
        return x + self.branch_scale * branch, state


class WideResNet(AbstractModel):
    """A wide residual network, WRN-depth-widen (Zagoruyko & Komodakis 2016, arXiv:1605.07146), without dropout.

    A 3×3 convolution of 16 channels, three stages of (depth − 4)/6 blocks with 16, 32 and 64 times `widen` channels,
    normalisation, global average pooling and a linear read-out. Normalisation and activation come before the
    convolutions. With `norm="none"` branches are multiplied by 1/√L, as in `ResNet18`.

    **Arguments:**

    - `input_shape`: `(height, width, channels)`.
    - `num_classes`: C, the number of outputs.
    - `depth`: 6 n + 4, n blocks a stage; 16 or 28 is usual.
    - `widen`: k, 4 to 10 is usual.
    - `norm`: `"batch"`, called with its state, see `relin.from_equinox`; `"group"` or `"none"`.
    - `activation`, `parametrisation`, `convolution`: as for `ResNet18`.
    - `key`: of the initial weights.
    """

    stem: Convolution
    blocks: tuple[_Block, ...]
    norm: BatchNorm | GroupNorm | None
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        depth: int = 16,
        widen: int = 4,
        norm: Norm = "batch",
        activation: str = "relu",
        parametrisation: str = "standard",
        convolution: Form = "auto",
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape("WideResNet", input_shape, (3,), "(height, width, channels)")
        self.activation = check_choice("activation", activation, tuple(ACTIVATIONS))
        check_choice("norm", norm, NORMS)
        widen, depth = check_count("widen", widen), check_count("depth", depth, least=10)
        if depth % 6 != 4:
            raise ValueError(f"`depth` must be 6 n + 4 for n blocks a stage, got {depth}; pass, for example, 16 or 28.")
        blocks_a_stage = (depth - 4) // 6
        options: dict[str, Any] = {"parametrisation": parametrisation, "convolution": convolution}
        channels = [16, *(16 * widen * 2**stage for stage in range(3) for _ in range(blocks_a_stage))]
        strides = [2 if stage and not block else 1 for stage in range(3) for block in range(blocks_a_stage)]
        branch_scale = 1.0 if norm != "none" else 1 / math.sqrt(len(strides))
        blocks = tuple(
            _Block(inputs, outputs, stride, norm, activation, branch_scale, **options)
            for (inputs, outputs), stride in zip(itertools.pairwise(channels), strides, strict=True)
        )
        stem = Convolution(self.input_shape[-1], 16, (3, 3), use_bias=norm == "none", **options)
        classes = check_count("num_classes", num_classes)
        c_w = readout_gain(activation, parametrisation)
        readout = Dense(channels[-1], classes, c_w=c_w, parametrisation=parametrisation)
        layers = (stem, blocks, make_norm(norm, channels[-1]), readout)
        self.stem, self.blocks, self.norm, self.readout = initialise(layers, key)

    def __call__(self, x: Float[Array, "*input_shape"], state: State = None) -> Any:
        check_example("WideResNet", x.shape, self.input_shape)
        x = self.stem(x)
        for block in self.blocks:
            x, state = block(x, state)
        x, state = normalise(self.norm, x, state)
        return with_state(self.readout(global_average_pool(ACTIVATIONS[self.activation](x))), state)
