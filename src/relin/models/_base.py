"""What the networks have in common."""

import math
from dataclasses import fields

import equinox as eqx
import jax


class AbstractModel(eqx.Module):
    """A network of one example."""

    def __repr__(self) -> str:
        settings = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.metadata.get("static")]
        arrays = [leaf for leaf in jax.tree.leaves(self) if eqx.is_inexact_array(leaf)]
        count = sum(math.prod(array.shape) for array in arrays)
        return f"{type(self).__name__}({', '.join([*settings, f'{count:,} parameters'])})"
