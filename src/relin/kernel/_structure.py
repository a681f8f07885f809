"""Where each parameter tensor enters a network, read from its traced program.

A tensor is followed from the parameters through *views*, maps V of tensors with V Vᵀ = s² (transposition, reshaping,
slicing, multiplication by a constant), to the one equation that uses it. Where that equation is linear in the tensor
and of a known form, the tensor's Jacobian is made of the equation's other operand and of the cotangent of its output,
to which a *tap*, a zero that is added, gives access. A tensor that is used twice, or in any other way, has no place.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from relin._core.programs import can_run_equations, evaluate, is_literal

Slot = int  # the number of a value in a program

_INLINED = frozenset({"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"})
_RESHAPES = frozenset({"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "copy", "copy_p", "neg"})
_VIEWS = _RESHAPES | {"transpose", "slice", "rev"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One equation of a program, its variables numbered."""

    jaxpr: Any
    equation: Any
    reads: tuple[Slot, ...]
    writes: tuple[Slot, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    def evaluate(self, values: list[Array]) -> list[Array]:
        """The equation's results, computed as a program of this one equation."""
        return evaluate(self.jaxpr, self.equation, values)


@dataclasses.dataclass(frozen=True)
class Scale:
    """A factor: the value of a slot, or one over it."""

    slot: Slot
    inverse: bool


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor is used: by which step, as which operand, and where the cotangent of the result is tapped.

    `scales` is what the tensor's gradient there is multiplied with. The cotangent, in row-major order of the step's
    result, becomes `(positions, features)` by `permutation` of that result's axes, if any.
    """

    step: Step
    operand: int
    scales: tuple[Scale, ...]
    tap: Slot
    permutation: tuple[int, ...] | None
    positions: int
    features: int

    @property
    def site(self) -> tuple:
        """Places with equal sites have the same cotangents."""
        shape = None if self.permutation is None else self.step.equation.outvars[0].aval.shape
        return self.tap, shape, self.permutation, self.positions, self.features

    def arrange(self, cotangent: Array) -> Array:
        """The tapped cotangents `(C, …)` as `(C, positions, features)`."""
        if self.permutation is not None:
            shape = self.step.equation.outvars[0].aval.shape
            axes = (0, *(axis + 1 for axis in self.permutation))
            cotangent = cotangent.reshape(-1, *shape).transpose(axes)
        return cotangent.reshape(-1, self.positions, self.features)


class Program:
    """A traced function as a flat list of steps; calls are inlined, and what the result does not need is left out."""

    def __init__(self, closed: Any):
        self.shapes: list[tuple[int, ...]] = []
        self.dtypes: list[Any] = []
        self.constants: dict[Slot, Any] = {}
        self.steps: list[Step] = []
        self.inputs = [self._new(variable) for variable in closed.jaxpr.invars]
        (self.output,) = self._inline(closed.jaxpr, closed.consts, self.inputs)
        self._drop_unused()
        self.readers: dict[Slot, list[tuple[Step, int]]] = {}
        for step in self.steps:
            for operand, slot in enumerate(step.reads):
                self.readers.setdefault(slot, []).append((step, operand))
        self.constant = set(self.constants)
        for step in self.steps:
            if self.constant.issuperset(step.reads):
                self.constant.update(step.writes)

    def evaluate(self, inputs: list[Array], taps: dict[Slot, Array]) -> dict[Slot, Array]:
        """The value of every slot, `taps` added to those of theirs."""
        values = dict(self.constants) | dict(zip(self.inputs, inputs, strict=True))
        for step in self.steps:
            results = step.evaluate([values[slot] for slot in step.reads])
            for slot, result in zip(step.writes, results, strict=True):
                values[slot] = result + taps[slot] if slot in taps else result
        return values

    def sole_reader(self, slot: Slot) -> tuple[Step, int] | None:
        """The only step that reads a value, and as which operand; `None` where there are more or none."""
        readers = self.readers.get(slot, [])
        return readers[0] if len(readers) == 1 and slot != self.output else None

    def used(self, slot: Slot) -> bool:
        return slot in self.readers or slot == self.output

    def is_result(self, slot: Slot) -> bool:
        """Whether a value is the program's result, and nothing else depends on it."""
        return slot == self.output and slot not in self.readers

    def _new(self, variable: Any) -> Slot:
        self.shapes.append(tuple(variable.aval.shape))
        self.dtypes.append(variable.aval.dtype)
        return len(self.shapes) - 1

    def _inline(self, jaxpr: Any, constants: Any, inputs: list[Slot]) -> list[Slot]:
        slots = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, value in zip(jaxpr.constvars, constants, strict=True):
            slots[variable] = self._new(variable)
            self.constants[slots[variable]] = value

        def read(atom: Any) -> Slot:
            if not is_literal(atom):
                return slots[atom]
            slot = self._new(atom)
            self.constants[slot] = np.asarray(atom.val, atom.aval.dtype)
            return slot

        for equation in jaxpr.eqns:
            reads = [read(atom) for atom in equation.invars]
            if equation.primitive.name in _INLINED:
                inner = equation.params["jaxpr"] if "jaxpr" in equation.params else equation.params["call_jaxpr"]
                writes = self._inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), reads)
            else:
                writes = [self._new(variable) for variable in equation.outvars]
                self.steps.append(Step(jaxpr, equation, tuple(reads), tuple(writes)))
            slots.update(zip(equation.outvars, writes, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _drop_unused(self) -> None:
        needed, kept = {self.output}, []
        for step in reversed(self.steps):
            if not needed.isdisjoint(step.writes):
                needed.update(step.reads)
                kept.append(step)
        self.steps = kept[::-1]


def find_place(program: Program, slot: Slot) -> Place | None:
    """The place of the tensor that starts as `slot`; `None` where it has none that is known."""
    scales: list[Scale] = []
    while (reader := program.sole_reader(slot)) is not None:
        step, operand = reader
        scale = _scaled_by(program, step, operand)
        if scale is not None or _is_view(program, step, _VIEWS):
            scales += [scale] if scale else []
            (slot,) = step.writes
            continue
        layout = _LAYOUTS.get(step.name, lambda *_: None)(program, step, operand)
        if layout is None:
            return None
        tap, more = _downstream(program, step.writes[0])
        return Place(step, operand, (*scales, *more), tap, *_canonical(program.shapes[step.writes[0]], *layout))
    return None


def _downstream(program: Program, slot: Slot) -> tuple[Slot, list[Scale]]:
    """The last value that has the same cotangent as `slot`, up to shape, sign and the returned factors.

    So a product with a weight and the addition of its bias share one tap, and so do branches that are added.
    """
    scales: list[Scale] = []
    while (reader := program.sole_reader(slot)) is not None:
        step, operand = reader
        scale = _scaled_by(program, step, operand)
        sums = step.name in ("add", "sub", "add_any") and _same_type(program, step, operand)
        if scale is None and not sums and not _is_view(program, step, _RESHAPES):
            break
        scales += [scale] if scale else []
        (slot,) = step.writes
    return slot, scales


def _same_type(program: Program, step: Step, operand: int) -> bool:
    read, written = step.reads[operand], step.writes[0]
    return program.shapes[read] == program.shapes[written] and program.dtypes[read] == program.dtypes[written]


def _scaled_by(program: Program, step: Step, operand: int) -> Scale | None:
    """The constant scalar that a step multiplies an operand with."""
    if step.name not in ("mul", "div") or not _same_type(program, step, operand):
        return None
    if step.name == "div" and operand == 1:
        return None
    other = step.reads[1 - operand]
    if other not in program.constant or math.prod(program.shapes[other]) != 1:
        return None
    return Scale(other, step.name == "div")


def _is_view(program: Program, step: Step, names: frozenset[str]) -> bool:
    read, written = step.reads[0], step.writes[0]
    if program.dtypes[read] != program.dtypes[written] or len(step.reads) != 1:
        return False
    if step.name == "convert_element_type":
        return True
    sizes = [math.prod(program.shapes[slot]) for slot in (read, written)]
    return step.name in names and (step.name != "broadcast_in_dim" or sizes[0] == sizes[1])


Layout = tuple[tuple[int, ...], int]  # axes of the result, those of positions first, and how many these are


def _dense(program: Program, step: Step, operand: int) -> Layout | None:
    contracted, batched = step.equation.params["dimension_numbers"]
    if any(batched) or not _one_type(program, step):
        return None
    free = [len(program.shapes[read]) - len(axes) for read, axes in zip(step.reads, contracted, strict=True)]
    left, right = tuple(range(free[0])), tuple(range(free[0], sum(free)))
    return (left + right, free[0]) if operand == 1 else (right + left, free[1])


def _convolution(program: Program, step: Step, operand: int) -> Layout | None:
    params = step.equation.params
    if operand != 1 or params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return None
    batch, features, *space = params["dimension_numbers"].out_spec
    return ((batch, *space, features), 1 + len(space)) if _one_type(program, step) else None


def _embedding(program: Program, step: Step, operand: int) -> Layout | None:
    numbers, sizes = step.equation.params["dimension_numbers"], step.equation.params["slice_sizes"]
    rows = numbers.collapsed_slice_dims == (0,) and numbers.start_index_map == (0,)
    if operand != 0 or not rows or numbers.operand_batching_dims or sizes[1:] != program.shapes[step.reads[0]][1:]:
        return None
    axes = range(len(program.shapes[step.writes[0]]))
    positions = tuple(axis for axis in axes if axis not in numbers.offset_dims)
    return positions + tuple(numbers.offset_dims), len(positions)


def _bias(program: Program, step: Step, operand: int) -> Layout | None:
    axes = range(len(program.shapes[step.writes[0]]))
    return (tuple(axes), 0) if _same_type(program, step, operand) else None


_LAYOUTS: dict[str, Callable[[Program, Step, int], Layout | None]] = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _embedding,
    "add": _bias,
    "sub": _bias,
}


def _one_type(program: Program, step: Step) -> bool:
    return len({program.dtypes[slot] for slot in (*step.reads, *step.writes)}) == 1


def _canonical(shape: tuple[int, ...], axes: tuple[int, ...], num_positions: int) -> tuple[Any, int, int]:
    """(permutation, positions, features), without a permutation that moves nothing."""
    positions = math.prod(shape[axis] for axis in axes[:num_positions])
    features = math.prod(shape[axis] for axis in axes[num_positions:])
    long = [axis for axis in axes if shape[axis] != 1]
    return None if long == sorted(long) else axes, positions, features


def trace(network: Callable, params: Any, x: Any) -> Program | None:
    """The program of one example; `None` where its equations cannot be read."""
    if not can_run_equations():  # every tensor then takes the route without structure
        return None
    closed = jax.make_jaxpr(network)(params, x)
    try:
        return Program(closed)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
