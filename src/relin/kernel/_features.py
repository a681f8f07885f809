"""The features of one example: one forward pass, and one backward pass for each output."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from relin._core.types import Inputs, Params
from relin.kernel._arguments import one_example
from relin.kernel._contract import Features, Gradients, Products, Rows
from relin.kernel._routes import Planned, plan
from relin.kernel._structure import Place, Program, Slot, trace

_EXACT = lax.Precision.HIGHEST
_SMALL = 2**14  # entries of an example's gradient up to which joining several is worth a copy


def features_of_one(
    apply: Callable,
    outputs: str | int,
    per_layer: bool,
    params: Params,
    x: Inputs,
    cotangents: Float[Array, "some C"] | None = None,
) -> tuple[Features, int]:
    """The features of one example, whose arrays lack the leading axis N, and the bytes its backward passes take.

    `cotangents` are those of the outputs to go back from; by default the identity, or the row of the one output.
    """
    network = one_example(apply, outputs)
    named, structure = jax.tree_util.tree_flatten_with_path(params)
    names, leaves = [jax.tree_util.keystr(path) for path, _ in named], [jnp.asarray(leaf) for _, leaf in named]
    (num_outputs,) = jax.eval_shape(network, params, x).shape
    program = trace(network, params, x)
    planned = planned_routes(program, len(leaves), num_outputs, outputs)

    def run(taps: dict[Slot, Array], direct: dict[int, Any]) -> tuple[Array, dict[Slot, Array]]:
        tensors = [direct.get(i, leaf) for i, leaf in enumerate(leaves)]
        if program is None:
            return network(jax.tree.unflatten(structure, tensors), x), {}
        values = program.evaluate([*tensors, *jax.tree.leaves(x)], taps)
        return values[program.output], values

    taps = {}
    if program is not None:
        taps = {
            place.tap: jnp.zeros(program.shapes[place.tap], program.dtypes[place.tap])
            for place in (tensor.place for tensor in planned)
            if place is not None
        }
    direct = {i: leaf for i, leaf in enumerate(leaves) if planned[i].route == "jacobian"}
    result, pullback, values = jax.vjp(run, taps, direct, has_aux=True)
    identity = cotangents is None
    if cotangents is None:
        cotangents = jnp.eye(num_outputs, dtype=result.dtype)
        cotangents = cotangents if isinstance(outputs, str) else cotangents[outputs : outputs + 1]
    tapped, jacobians = jax.vmap(pullback)(cotangents.astype(result.dtype))
    features = (
        *_gradients(names, planned, values, tapped, jacobians, per_layer, cotangents),
        *_products(names, planned, values, tapped, program, identity),
    )
    return features, 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tapped))


def planned_routes(program: Program | None, num_tensors: int, num_outputs: int, outputs: str | int) -> list[Planned]:
    """The route of every tensor, for the kernel of these outputs."""
    backward = num_outputs if isinstance(outputs, str) else 1
    return plan(program, num_tensors, backward, backward**2 if outputs == "full" else backward)


def _gradients(
    names: list[str],
    planned: list[Planned],
    values: dict[Slot, Array],
    tapped: dict[Slot, Array],
    jacobians: dict[int, Array],
    per_layer: bool,
    cotangents: Array,
) -> list[Gradients]:
    """J of every tensor on the routes ``"gradients"`` and ``"jacobian"``; small ones are joined where they may be."""
    num_outputs, dtype = len(cotangents), cotangents.dtype
    made: list[Gradients] = []
    joined: list[Array] = []
    for i, (name, (route, place)) in enumerate(zip(names, planned, strict=True)):
        if route == "products":
            continue
        if route == "gradients" and place is not None:
            gradient = _gradient(place, values, place.arrange(tapped[place.tap]))
        elif route == "unused":
            gradient = jnp.zeros((num_outputs, 0), dtype)
        else:
            gradient = jacobians[i].reshape(num_outputs, -1)
        if not per_layer and gradient.shape[1] <= _SMALL:
            joined.append(gradient)
        else:
            made.append(Gradients(gradient, name))
    if joined:
        made.append(Gradients(jnp.concatenate(joined, axis=1), ""))
    return made


def _products(
    names: list[str],
    planned: list[Planned],
    values: dict[Slot, Array],
    tapped: dict[Slot, Array],
    program: Program | None,
    identity: bool,
) -> list[Products]:
    """The factors of the tensors on the route ``"products"``, those with the same cotangents together."""
    sites: dict[tuple, list[tuple[str, Place]]] = {}
    for name, (route, place) in zip(names, planned, strict=True):
        if route == "products" and place is not None:
            sites.setdefault(place.site, []).append((name, place))
    made = []
    for members in sites.values():
        place = members[0][1]
        read_out = program is not None and program.is_result(place.tap) and place.positions == 1
        made.append(
            Products(
                tuple(_inputs(member, values) for _, member in members),
                None if identity and read_out else place.arrange(tapped[place.tap]),
                tuple(name for name, _ in members),
                tapped[place.tap].shape[0],
            )
        )
    return made


def _gradient(place: Place, values: dict[Slot, Array], b: Float[Array, "C p out"]) -> Float[Array, "C size"]:
    """Σ_p a_p b_pᵀ, the gradient at a place by outputs."""
    a = _inputs(place, values)
    if isinstance(a, Rows):
        rows = values[place.step.reads[0]].shape[0]
        zeros = jnp.zeros((b.shape[0], rows, b.shape[2]), b.dtype)
        gradient = zeros.at[:, a.index].add(a.weight[None, :, None] * b)
    else:
        gradient = jnp.einsum("pi,cpo->coi", a, b, precision=_EXACT)
    return gradient.reshape(b.shape[0], -1)


def _inputs(place: Place, values: dict[Slot, Array]) -> Array | Rows:
    """a, the scaled inputs `(positions, in)` of the layer at a place, or the rows that an embedding takes."""
    step = place.step
    scale = _scale(place, values)
    if step.name == "gather":
        table, indices = (values[slot] for slot in step.reads)
        return _rows(step.equation.params, table, indices, scale)
    if step.name in ("add", "sub"):
        return scale.reshape(1, 1)
    other = values[step.reads[1 - place.operand]]
    if step.name == "dot_general":
        contracted = step.equation.params["dimension_numbers"][0][1 - place.operand]
        free = [axis for axis in range(other.ndim) if axis not in contracted]
        return scale * other.transpose(*free, *contracted).reshape(place.positions, -1)
    return scale * _patches(step.equation.params, other, values[step.reads[1]].shape).reshape(place.positions, -1)


def _scale(place: Place, values: dict[Slot, Array]) -> Float[Array, ""]:
    """The product of a place's scales."""
    scale = jnp.ones((), values[place.tap].dtype)
    for slot, inverse in ((scale.slot, scale.inverse) for scale in place.scales):
        factor = jnp.reshape(values[slot], ())
        scale = scale / factor if inverse else scale * factor
    return scale


def _rows(params: dict[str, Any], table: Array, indices: Array, scale: Array) -> Rows:
    """The rows that a gather takes; one that lies outside the table weighs nothing, unless it is clipped."""
    rows = indices.reshape(-1)
    inside = jnp.clip(rows, 0, table.shape[0] - 1)
    taken = (rows == inside) | (params["mode"] == lax.GatherScatterMode.CLIP)
    return Rows(inside, jnp.where(taken, scale, 0.0))


def _patches(params: dict[str, Any], image: Array, kernel_shape: tuple[int, ...]) -> Array:
    """The windows that a convolution multiplies with its kernel, `(batch, *positions, window · channels)`.

    By slices: XLA's own patches are a convolution with an identity, which is slow on CPU.
    """
    numbers = params["dimension_numbers"]
    image = image.transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    spread = [(low, high, by - 1) for (low, high), by in zip(params["padding"], params["lhs_dilation"], strict=True)]
    image = lax.pad(image, jnp.zeros((), image.dtype), [(0, 0, 0), *spread, (0, 0, 0)])
    window = [kernel_shape[axis] for axis in numbers.rhs_spec[2:]]
    strides, dilations = params["window_strides"], params["rhs_dilation"]
    spans = [
        size - (length - 1) * apart for size, length, apart in zip(image.shape[1:-1], window, dilations, strict=True)
    ]
    pieces = []
    for number in range(math.prod(window)):
        offset, rest = [], number
        for length, apart in zip(reversed(window), reversed(dilations), strict=True):
            offset.insert(0, rest % length * apart)
            rest //= length
        stops = [start + span for start, span in zip(offset, spans, strict=True)]
        pieces.append(lax.slice(image, (0, *offset, 0), (image.shape[0], *stops, image.shape[-1]), (1, *strides, 1)))
    return jnp.concatenate(pieces, axis=-1)
