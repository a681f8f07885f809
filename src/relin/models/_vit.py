"""The vision transformer."""

from collections.abc import Sequence

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_count, check_example, check_input_shape
from relin.models._initial import Initial, initialise, ready
from relin.models._layers import Dense, LayerNorm
from relin.models._transformer import Block, Key, make_blocks, through

_POSITIONS = 0.02


class ViT(AbstractModel):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) for small images, tiny as it stands.

    The image is cut into patches, each mapped to `width` channels, to which a learned position is added. After the
    blocks the mean over the patches is read out, in place of a class token (Beyer et al. 2022, arXiv:2205.01580).

    **Arguments:**

    - `input_shape`: `(height, width, channels)`; both sizes multiples of `patch`.
    - `num_classes`: C, the number of outputs.
    - `patch`: the side of a patch.
    - `width`, `depth`, `num_heads`: 192, 12 and 3 are ViT-Ti (Touvron et al. 2020, arXiv:2012.12877): 5.4 million
      parameters for 32×32×3.
    - `dropout`: of both branches of every block; above 0 the network is trained with a key, see `relin.from_equinox`.
    - `key`: of the initial weights.
    """

    patches: Dense
    positions: Float[Array, "positions width"] | Initial
    blocks: tuple[Block, ...]
    norm: LayerNorm
    readout: Dense
    input_shape: tuple[int, ...] = eqx.field(static=True)
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        patch: int = 4,
        width: int = 192,
        depth: int = 12,
        num_heads: int = 3,
        dropout: float = 0.0,
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape("ViT", input_shape, (3,), "(height, width, channels)")
        self.patch = check_count("patch", patch)
        rows, columns, channels = self.input_shape
        if rows % patch or columns % patch:
            raise ValueError(
                f"ViT takes images whose sides are multiples of `patch`, {patch}, got input_shape={self.input_shape}; "
                "pass another patch, for example 7 for 28×28."
            )
        blocks, norm = make_blocks(width, depth, num_heads, dropout, causal=False)
        positions = Initial((rows // patch * (columns // patch), width), _POSITIONS)
        readout = Dense(width, check_count("num_classes", num_classes))
        layers = (Dense(patch * patch * channels, width), positions, blocks, norm, readout)
        self.patches, self.positions, self.blocks, self.norm, self.readout = initialise(layers, key)

    def __call__(self, x: Float[Array, "*input_shape"], *, key: Key = None) -> Float[Array, " C"]:
        check_example("ViT", x.shape, self.input_shape)
        rows, columns, channels = (x.shape[0] // self.patch, x.shape[1] // self.patch, x.shape[2])
        cut = x.reshape(rows, self.patch, columns, self.patch, channels).swapaxes(1, 2)
        x = self.patches(cut.reshape(rows * columns, -1)) + ready(self.positions)
        return self.readout(self.norm(through(self.blocks, x, key)).mean(axis=0))
