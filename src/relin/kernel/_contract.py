"""The kernel as a sum of products of features.

A *feature* of an example is what its part of the kernel with other examples is made of: the Jacobian of the outputs
with respect to a parameter tensor, or the inputs of a layer and the cotangents of its outputs, of which it is the
product.
"""

import functools
import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Kind = Literal["full", "mean", "diagonal"]
_EXACT = jax.lax.Precision.HIGHEST  # no TF32 on GPUs
_PIECE, _MANY = 4096, 8  # of long vectors on CPU, and from how many pieces on they are cut


class Gradients(eqx.Module):
    """J of one parameter tensor, or of several joined."""

    value: Float[Array, "N C size"]
    path: str = eqx.field(static=True)

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def parts(self, other: "Gradients", kind: Kind, per_layer: bool) -> dict[str, Array]:
        return {self.path if per_layer else "": _cotangent_products(self.value, other.value, kind)}


class Rows(eqx.Module):
    """The inputs of an embedding, one-hot vectors: which row is taken at each position, and with which weight."""

    index: Int[Array, "N p"]
    weight: Float[Array, "N p"]


class Products(eqx.Module):
    """J = Σ_p a_p b_pᵀ of every tensor that is tapped at one place: inputs a of each, and their common cotangents b.

    `cotangents` is `None` for a read-out, where b is the identity.
    """

    inputs: tuple[Float[Array, "N p in"] | Rows, ...]
    cotangents: Float[Array, "N C p out"] | None
    paths: tuple[str, ...] = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)

    def parts(self, other: "Products", kind: Kind, per_layer: bool) -> dict[str, Array]:
        grams = {path: _gram(a1, a2) for path, a1, a2 in zip(self.paths, self.inputs, other.inputs, strict=True)}
        if not per_layer:
            grams = {"": functools.reduce(jnp.add, grams.values())}
        if self.cotangents is None or other.cotangents is None:
            return {path: _repeated(gram[:, 0, :, 0], self.num_outputs, kind) for path, gram in grams.items()}
        b1, b2 = self.cotangents, other.cotangents
        if b1.shape[2] == 1:
            products = _cotangent_products(b1[:, :, 0], b2[:, :, 0], kind)
            return {path: _beside_outputs(gram[:, 0, :, 0], kind) * products for path, gram in grams.items()}
        return {path: _over_positions(gram, b1, b2, kind) for path, gram in grams.items()}


Features = tuple[Gradients | Products, ...]


def contract(first: Features, second: Features, kind: Kind, per_layer: bool) -> dict[str, Array]:
    """The kernel between two blocks of examples: one entry a tensor, or their sum under the key ``""``.

    Axes are those of the matrix product, `(N1, C, N2, C)`, in the full kernel, so that they are moved but once, by
    `in_order`; and the kernel's own in the other kinds.
    """
    parts: dict[str, Array] = {}
    for one, two in zip(first, second, strict=True):
        for path, part in one.parts(two, kind, per_layer).items():  # pyright: ignore[reportArgumentType]
            parts[path] = parts[path] + part if path in parts else part
    return parts


def in_order(parts: dict[str, Array], kind: Kind) -> dict[str, Array]:
    """The axes `(N1, N2, …)` of kernels."""
    return {path: jnp.swapaxes(part, 1, 2) if kind == "full" else part for path, part in parts.items()}


def num_outputs(one: Features) -> int:
    """Of how many outputs these are, given the features of one example (without the axis N)."""
    first = one[0]
    return first.num_outputs if isinstance(first, Products) else first.value.shape[0]


def pair_bytes(one: Features, kind: Kind) -> int:
    """What the products of one pair's features need, given the features of one example (without the axis N).

    XLA makes those of all tensors before it adds them up, and copies most of them into another order.
    """
    count = 0
    for feature in one:
        if isinstance(feature, Products) and feature.cotangents is not None and feature.cotangents.shape[1] > 1:
            outputs, positions, width = feature.cotangents.shape
            others = {"full": outputs * width, "mean": 1, "diagonal": outputs * positions}[kind]
            count += 2 * positions * (2 * positions + others)
    outputs = num_outputs(one)
    itemsize = max(leaf.dtype.itemsize for leaf in jax.tree.leaves(one))
    return itemsize * (count + 3 * {"full": outputs**2, "mean": 1, "diagonal": outputs}[kind])


def _gram(a1: Array | Rows, a2: Array | Rows) -> Float[Array, "N1 p N2 q"]:
    """a·a′ for all pairs of examples and positions."""
    if isinstance(a1, Rows) and isinstance(a2, Rows):
        same = a1.index[:, :, None, None] == a2.index[None, None]
        return jnp.where(same, a1.weight[:, :, None, None] * a2.weight[None, None], 0.0)
    return jnp.einsum("npi,mqi->npmq", a1, a2, precision=_EXACT)


def _cotangent_products(b1: Array, b2: Array, kind: Kind) -> Array:
    """b·b′ for the pairs of outputs that the kind of kernel holds."""
    if kind == "diagonal":
        return jnp.einsum("ncx,mcx->nmc", b1, b2, precision=_EXACT)
    if kind == "mean":
        return _inner_products(*(b.reshape(len(b), math.prod(b.shape[1:])) for b in (b1, b2))) / b1.shape[1]
    products = _inner_products(*(b.reshape(math.prod(b.shape[:2]), b.shape[2]) for b in (b1, b2)))
    return products.reshape(*b1.shape[:2], *b2.shape[:2])


def _inner_products(a: Float[Array, "n size"], b: Float[Array, "m size"]) -> Float[Array, "n m"]:
    """a bᵀ. On CPU long vectors are cut: XLA copies the whole of b in another order, which should stay in the cache."""
    pieces = a.shape[1] // _PIECE
    if pieces < _MANY or jax.default_backend() != "cpu":
        return jnp.matmul(a, b.T, precision=_EXACT)

    def add(number: Array, total: Array) -> Array:
        one, two = (jax.lax.dynamic_slice_in_dim(v, number * _PIECE, _PIECE, 1) for v in (a, b))
        return total + jnp.matmul(one, two.T, precision=_EXACT)

    rest = jnp.matmul(a[:, pieces * _PIECE :], b[:, pieces * _PIECE :].T, precision=_EXACT)
    return jax.lax.fori_loop(0, pieces, add, rest)


def _over_positions(gram: Array, b1: Array, b2: Array, kind: Kind) -> Array:
    """Σ_pq (a_p·a′_q)(b_p·b′_q)."""
    if kind == "full":  # one side's cotangents first: every product is then a matrix product
        mixed = jnp.einsum("npmq,mdqo->npmdo", gram, b2, precision=_EXACT)
        return jnp.einsum("ncpo,npmdo->ncmd", b1, mixed, precision=_EXACT)
    if kind == "mean":
        products = jnp.einsum("ncpo,mcqo->npmq", b1, b2, precision=_EXACT)
        return (gram * products).sum((1, 3)) / b1.shape[1]
    products = jnp.einsum("ncpo,mcqo->cnpmq", b1, b2, precision=_EXACT)
    return jnp.einsum("npmq,cnpmq->nmc", gram, products, precision=_EXACT)


def _repeated(gram: Float[Array, "N1 N2"], num_outputs: int, kind: Kind) -> Array:
    """gram ⊗ I, for cotangents that are the identity."""
    outputs = {
        "full": jnp.eye(num_outputs, dtype=gram.dtype)[None, :, None],
        "mean": 1,
        "diagonal": jnp.ones((1, 1, num_outputs), gram.dtype),
    }[kind]
    return _beside_outputs(gram, kind) * outputs


def _beside_outputs(gram: Float[Array, "N1 N2"], kind: Kind) -> Array:
    """With axes of length 1 where `contract` has those of outputs."""
    axes = {"full": (1, 3), "mean": (), "diagonal": (2,)}[kind]
    return jnp.expand_dims(gram, axes)
