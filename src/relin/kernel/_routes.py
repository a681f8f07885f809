"""By which route each parameter tensor's part of the kernel is made, from counted floating-point operations."""

import math
from typing import Literal, NamedTuple

from relin.kernel._structure import Place, Program, find_place

Route = Literal["products", "gradients", "jacobian", "unused"]

_PARTNERS = 64
"""With how many others an example is taken to be paired: what is done once for each is divided by it."""
_SMALL_PRODUCTS = 3
"""How many times longer an operation takes in the many small products over pairs of positions of the full kernel."""

_LARGE, _FROM_MEMORY = 2**18, 4
"""From how many numbers on an example's gradient leaves the cache, and how many times longer its products then take."""


class Planned(NamedTuple):
    """A tensor's route; `place` is there unless the route is ``"jacobian"`` or ``"unused"``.

    - ``"products"``: (a·a′)(b·b′), a the inputs of the layer and b the cotangents of its outputs, summed over pairs
      of positions;
    - ``"gradients"``: J = Σ a bᵀ over positions, then J J′ᵀ;
    - ``"jacobian"``: J by reverse mode, then J J′ᵀ;
    - ``"unused"``: the outputs do not depend on the tensor.
    """

    route: Route
    place: Place | None = None


def plan(program: Program | None, num_tensors: int, num_outputs: int, pairs: int) -> list[Planned]:
    """The routes of the first `num_tensors` inputs of a program, for kernels of so many pairs of outputs an example."""
    if program is None:
        return [Planned("jacobian")] * num_tensors
    places = [find_place(program, slot) for slot in program.inputs[:num_tensors]]
    weighted = {place.site for place in places if place and place.step.name not in ("add", "sub")}
    planned = []
    for slot, place in zip(program.inputs[:num_tensors], places, strict=True):
        if not program.used(slot):
            planned.append(Planned("unused"))
        elif place is None or (place.step.name in ("add", "sub") and place.site not in weighted):
            planned.append(Planned("jacobian"))
        else:
            size = math.prod(program.shapes[slot])
            planned.append(Planned(_cheaper(place, size // place.features, num_outputs, pairs), place))
    return planned


def _cheaper(place: Place, num_inputs: int, num_outputs: int, pairs: int) -> Route:
    """The route with fewer operations for a pair of examples."""
    positions, features = place.positions, place.features
    if positions == 1:
        return "products"
    embedding = place.step.name == "gather"  # compares its inputs, and sums rows instead of multiplying
    by_products = positions**2 * ((1 if embedding else num_inputs) + num_outputs * features)
    by_products += pairs * positions * features
    if pairs > num_outputs:
        by_products *= _SMALL_PRODUCTS
    by_gradients = pairs * num_inputs * features
    by_gradients += num_outputs * positions * features * (1 if embedding else num_inputs) / _PARTNERS
    if num_outputs * num_inputs * features > _LARGE:
        by_gradients *= _FROM_MEMORY
    return "products" if by_products < by_gradients else "gradients"
