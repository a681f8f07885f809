"""Convolution in one and two dimensions, in the form that the backend runs well."""

import itertools
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from relin.models._checks import check_choice
from relin.models._initial import Initial, initial_weight, ready
from relin.models._layers import affine

FORMS = ("auto", "patches", "lax")
Form = Literal["auto", "patches", "lax"]
Padding = Literal["SAME", "VALID"]


class Convolution(eqx.Module):
    """Cross-correlation of one example, channels last, over all its axes but the last, plus a bias.

    `convolution` is the form of the computation: `"lax"` is XLA's convolution; `"patches"` gathers the
    kernel's windows by slices and multiplies them with the kernel in one matrix product; `"auto"` takes
    patches on CPU and XLA's convolution elsewhere. On CPU, XLA leaves its fast convolution inside any loop,
    which costs about a factor of ten, while patches run at full speed there. Mapped over a batch, patches are
    one product `(batch · positions, k · k · inputs) × (k · k · inputs, outputs)`; summing one product for
    each kernel offset instead saves memory but was measured slower, and far slower for few input channels
    with a wide output.

    **Arguments:**

    - `inputs`, `outputs`: numbers of channels.
    - `kernel_shape`: the window, one size for each dimension; its length says whether inputs are
      `(length, inputs)` or `(height, width, inputs)`.
    - `stride`: the same in every dimension.
    - `padding`: `"SAME"` (⌈n / stride⌉ positions, zeros split as XLA does) or `"VALID"`.
    - `c_w`, `parametrisation`: as `Dense`, with fan_in = kernel size × inputs.
    - `use_bias`: whether there is a bias, which starts at zero.

    Its arrays are drawn by `initialise`.
    """

    weight: Float[Array, "*kernel inputs outputs"] | Initial
    bias: Float[Array, " outputs"] | Initial | None
    scale: float = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    convolution: Form = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_shape: Sequence[int],
        *,
        stride: int = 1,
        padding: Padding = "SAME",
        c_w: float = 1.0,
        parametrisation: str = "standard",
        use_bias: bool = True,
        convolution: Form = "auto",
    ):
        check_choice("convolution", convolution, FORMS)
        check_choice("padding", padding, ("SAME", "VALID"))
        shape = (*kernel_shape, inputs, outputs)
        self.weight, self.scale = initial_weight(shape, c_w, parametrisation)
        self.bias = Initial((outputs,)) if use_bias else None
        self.stride = stride
        self.padding = padding
        self.convolution = convolution

    def __call__(self, x: Float[Array, "*positions inputs"]) -> Float[Array, "*strided outputs"]:
        form = self.convolution
        if form == "auto":
            form = "patches" if jax.default_backend() == "cpu" else "lax"
        correlate = _by_patches if form == "patches" else _by_lax
        return affine(correlate(x, ready(self.weight), self.stride, self.padding), self.scale, self.bias)


def _by_lax(x: Array, weight: Array, stride: int, padding: Padding) -> Array:
    axes = "HW"[: x.ndim - 1]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    strides = (stride,) * len(axes)
    return lax.conv_general_dilated(x[None], weight, strides, padding, dimension_numbers=layout)[0]


def _by_patches(x: Array, weight: Array, stride: int, padding: Padding) -> Array:
    kernel, positions = weight.shape[:-2], x.shape[:-1]
    if padding == "SAME":
        strided = [-(-n // stride) for n in positions]
        missing = [max((m - 1) * stride + k - n, 0) for m, k, n in zip(strided, kernel, positions, strict=True)]
        x = jnp.pad(x, [*((p // 2, p - p // 2) for p in missing), (0, 0)])
    else:
        strided = [(n - k) // stride + 1 for k, n in zip(kernel, positions, strict=True)]
    channels = x.shape[-1]
    windows = [
        lax.slice(
            x,
            (*offset, 0),
            (*(o + (m - 1) * stride + 1 for o, m in zip(offset, strided, strict=True)), channels),
            (*(stride for _ in offset), 1),
        )
        for offset in itertools.product(*(range(k) for k in kernel))
    ]
    # Offsets run as the kernel's own axes do, so that its flattening meets the patches' channels in order.
    patches = windows[0] if len(windows) == 1 else jnp.concatenate(windows, axis=-1)
    return patches @ weight.reshape(-1, weight.shape[-1])
