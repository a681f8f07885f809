"""The decoder-only transformer."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relin.models._base import AbstractModel
from relin.models._checks import check_count, check_example, check_input_shape
from relin.models._initial import Initial, initialise, ready
from relin.models._layers import LayerNorm
from relin.models._transformer import Block, Key, make_blocks, through

_POSITIONS = 0.02


class GPT(AbstractModel):
    """A decoder-only transformer in the style of GPT-2 (Radford et al. 2019) that predicts every next token.

    Token embeddings, which the read-out shares, plus learned positions; blocks with causal attention; a last
    normalisation. Its C = length · vocabulary outputs are the logits of the token after each position, one position
    after the other, as `CrossEntropy` takes them for targets of shape `(batch, length)`.

    **Arguments:**

    - `input_shape`: `(length,)`, the context; inputs are integer tokens from 0.
    - `num_classes`: the size of the vocabulary.
    - `width`, `depth`, `num_heads`: of the blocks.
    - `dropout`: of both branches of every block; above 0 the network is trained with a key, see `relin.from_equinox`.
    - `key`: of the initial weights.
    """

    tokens: Float[Array, "vocabulary width"] | Initial
    positions: Float[Array, "length width"] | Initial
    blocks: tuple[Block, ...]
    norm: LayerNorm
    input_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        width: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        dropout: float = 0.0,
        key: PRNGKeyArray,
    ):
        self.input_shape = check_input_shape("GPT", input_shape, (1,), "(length,), integer tokens")
        blocks, norm = make_blocks(width, depth, num_heads, dropout, causal=True)
        tokens = Initial((check_count("num_classes", num_classes), width), width**-0.5)
        positions = Initial((*self.input_shape, width), _POSITIONS)
        self.tokens, self.positions, self.blocks, self.norm = initialise((tokens, positions, blocks, norm), key)

    def __call__(self, x: Int[Array, " length"], *, key: Key = None) -> Float[Array, " C"]:
        check_example("GPT", x.shape, self.input_shape)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"GPT takes integer tokens, got {x.dtype}; use a text dataset, or cast the inputs.")
        tokens = ready(self.tokens)
        hidden = through(self.blocks, tokens[x] + ready(self.positions), key)
        return (self.norm(hidden) @ tokens.T).reshape(-1)
