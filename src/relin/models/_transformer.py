"""The blocks of transformers."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from relin.models._checks import check_count
from relin.models._layers import ACTIVATIONS, Dense, LayerNorm

Key = PRNGKeyArray | None


class Block(eqx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)) (Vaswani et al. 2017, arXiv:1706.03762, normalised before).

    The last matrices of both branches start 1/√(2 · depth) smaller, as in GPT-2. Attention is JAX's own in XLA, which
    has both derivatives; fused ones often have no forward-mode derivative.
    """

    norms: tuple[LayerNorm, LayerNorm]
    queries_keys_values: Dense
    attended: Dense
    hidden: Dense
    projected: Dense
    dropout: eqx.nn.Dropout
    num_heads: int = eqx.field(static=True)
    causal: bool = eqx.field(static=True)

    def __init__(self, width: int, num_heads: int, depth: int, dropout: float, causal: bool):
        smaller = 1 / (2 * depth)
        self.norms = LayerNorm(width), LayerNorm(width)
        self.queries_keys_values, self.attended = Dense(width, 3 * width), Dense(width, width, c_w=smaller)
        self.hidden, self.projected = Dense(width, 4 * width), Dense(4 * width, width, c_w=smaller)
        self.dropout = eqx.nn.Dropout(dropout)
        self.num_heads, self.causal = num_heads, causal

    def __call__(self, x: Float[Array, "positions width"], key: Key) -> Float[Array, "positions width"]:
        first, second = (None, None) if key is None else jax.random.split(key)
        x = x + self.dropout(self._attention(self.norms[0](x)), key=first)
        hidden = ACTIVATIONS["gelu"](self.hidden(self.norms[1](x)))
        return x + self.dropout(self.projected(hidden), key=second)

    def _attention(self, x: Float[Array, "positions width"]) -> Float[Array, "positions width"]:
        positions, width = x.shape
        heads = self.queries_keys_values(x).reshape(positions, 3, self.num_heads, width // self.num_heads)
        queries, keys, values = (heads[:, part] for part in range(3))
        mixed = jax.nn.dot_product_attention(queries, keys, values, is_causal=self.causal, implementation="xla")
        return self.attended(mixed.reshape(positions, width))


def make_blocks(
    width: int, depth: int, num_heads: int, dropout: float, *, causal: bool
) -> tuple[tuple[Block, ...], LayerNorm]:
    """The blocks, and the normalisation after them.

    **Raises:** `ValueError` for sizes that do not go together, or a dropout that is no probability.
    """
    width, depth, num_heads = (
        check_count(name, value) for name, value in (("width", width), ("depth", depth), ("num_heads", num_heads))
    )
    if width % num_heads:
        raise ValueError(f"`width` must be a multiple of `num_heads`, got {width} and {num_heads}; change one of them.")
    if not (isinstance(dropout, int | float) and 0 <= dropout < 1):
        raise ValueError(f"`dropout` must be at least 0 and less than 1, got {dropout!r}; pass 0 for none.")
    return tuple(Block(width, num_heads, depth, float(dropout), causal) for _ in range(depth)), LayerNorm(width)


def through(blocks: tuple[Block, ...], x: Any, key: Key) -> Float[Array, "positions width"]:
    keys = [None] * len(blocks) if key is None else jax.random.split(key, len(blocks))
    for block, own in zip(blocks, keys, strict=True):
        x = block(x, own)
    return x
