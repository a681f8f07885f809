"""What a kernel in a file takes: operations and bytes of its blocks, counted, and seconds that follow from rates."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from relin.kernel import _sizes
from relin.kernel._blocks import Request, _one
from relin.kernel._contract import Features, Gradients, num_outputs
from relin.kernel._features import features_of_one
from relin.kernel._file_blocks import list_blocks
from relin.kernel._to_disk import _SHARE, block_sizes


class Work(NamedTuple):
    """Of all blocks of a mean kernel."""

    blocks: int
    passes: float
    """How often the features of an example are made, in the mean."""
    features: float
    """Floating-point operations of making features."""
    pairs: float
    """Those of multiplying them."""
    read: float
    """Bytes of features that are multiplied, as often as they are read."""
    written: float
    """Bytes on the disk."""

    def seconds(self, rates: "Rates") -> float:
        """Making features, multiplying them or reading them, whichever takes longer, and writing."""
        multiplying = max(self.pairs / rates.pairs, self.read / rates.memory)
        return self.features / rates.features + multiplying + self.written / rates.disk


class Rates(NamedTuple):
    """Operations and bytes a second."""

    features: float
    pairs: float
    memory: float
    disk: float


class Example(NamedTuple):
    """What one example's features are, and the operations of their forward pass and of one backward pass."""

    one: Features
    backward: int
    forward_flops: float
    backward_flops: float


def example(apply: Callable, params: Any, shape: tuple[int, ...]) -> Example:
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    request = Request(apply, "mean", per_layer=False, symmetric=True)
    one, backward = eqx.filter_eval_shape(_one, request, params, x, None)
    outputs = num_outputs(one)

    def flops(number: int) -> float:
        def made(params: Any, x: Any, cotangents: Any) -> Any:
            return features_of_one(apply, "mean", False, params, x, cotangents)[0]

        cotangents = jax.ShapeDtypeStruct((number, outputs), jnp.float32)
        return float(jax.jit(made).lower(params, x, cotangents).cost_analysis()["flops"])

    one_pass = (flops(outputs) - flops(1)) / max(1, outputs - 1)
    return Example(one, backward, flops(1) - one_pass, one_pass)


def work(given: Example, number: int, working_set: int) -> Work:
    """Of the kernel of so many examples."""
    rows, columns, high, wide = sizes = block_sizes(number, number, 4, working_set)
    total = dict.fromkeys(("examples", "features", "pairs", "read"), 0.0)
    blocks = list_blocks(sizes, symmetric=True)
    for block in blocks:
        sides = _sizes.Sides(high, wide, not block.mirrored)
        left = working_set - working_set // _SHARE
        for name, count in _of_block(given, sides, left).items():
            total[name] += count
    written = 4.0 * rows * columns
    return Work(len(blocks), total["examples"] / number, total["features"], total["pairs"], total["read"], written)


def _of_block(given: Example, sides: _sizes.Sides, working_set: int) -> dict[str, float]:
    chosen = _sizes.chosen("mean", given.one, given.backward, sides, None, working_set, some=True)
    outputs = num_outputs(given.one)
    groups = math.ceil(outputs / chosen.outputs)
    later = range(chosen.held * chosen.chunk, sides.rows, chosen.held * chosen.chunk)
    if sides.symmetric:
        past = sum(max(0, sides.rows - start - chosen.chunk) for start in later)
        pairs = sides.rows * (sides.rows + chosen.block) / 2
    else:
        past, pairs = (len(later) + 1) * sides.columns, float(sides.rows * sides.columns)
    examples = groups * (sides.rows + past)
    return {
        "examples": examples,
        "features": examples * (given.forward_flops + chosen.outputs * given.backward_flops),
        "pairs": pairs * groups * _pair_flops(given.one, chosen.outputs),
        "read": pairs * groups * 2 * _sizes._bytes(given.one, chosen.outputs) / chosen.block,
    }


def _pair_flops(one: Features, outputs: int) -> float:
    """Of the mean over some outputs, for a pair of examples."""
    count = 0.0
    for feature in one:
        if isinstance(feature, Gradients):
            count += 2 * outputs * feature.value.shape[1]
            continue
        positions = max(leaf.shape[0] for leaf in jax.tree.leaves(feature.inputs))
        count += sum(2 * positions**2 * leaf.shape[-1] for leaf in jax.tree.leaves(feature.inputs))
        if feature.cotangents is not None:
            count += 2 * positions**2 * (outputs * feature.cotangents.shape[2] + 1)
    return count
