"""Whether a program's outputs for one example depend on the other examples of the batch, read from the program.

Labels say which example each element depends on (`_labels.py`). The program of the batch is also compared with that of
one example: where the two differ in more than sizes, as in a division by the number of examples, nothing is known.
What is found to be independent is so; what is not may still be, as where a mask keeps examples apart.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from relin._core.programs import inner_programs
from relin.kernel import _indexed as indexed, _labels as rules
from relin.kernel._indexed import Known
from relin.kernel._labels import JOINED, UNCLEAR, Labels, everything, full, merged


class Value(NamedTuple):
    """What is known of an array: its labels, the equation where they first told of several examples, its integers."""

    labels: Labels = None
    origin: Any = None
    known: Known = None


def dependence(batch: Any, one: Any, num_inputs: int, num_examples: int) -> tuple[Any, bool] | None:
    """The equation where examples meet, and whether it is one that is known to join them; `None` if none do.

    **Arguments:** the programs of the batch and of one example as JAX traces them, whose last `num_inputs` arguments
    are the inputs, with a leading axis of examples, as every result has.
    """
    odd = _differences(batch, one)
    if not isinstance(odd, dict):
        return odd, False
    variables = batch.jaxpr.invars
    first = len(variables) - num_inputs
    values = [Value()] * first
    for variable in variables[first:]:
        rows = np.arange(1, num_examples + 1, dtype=np.int32)
        values.append(Value(rows.reshape(-1, *(1,) * (len(variable.aval.shape) - 1))))
    for value in _Reader(odd).program(batch.jaxpr, batch.consts, values):
        if value.labels is None:
            continue
        rows = np.arange(1, num_examples + 1).reshape(-1, *(1,) * (value.labels.ndim - 1))
        labels = np.broadcast_to(value.labels, np.broadcast_shapes(value.labels.shape, rows.shape))
        wrong = labels[(labels != 0) & (labels != rows)]
        if wrong.size:
            return value.origin, bool((wrong != UNCLEAR).any())
    return None


_names = str.split
_MOVES = frozenset(
    _names(
        "reshape squeeze expand_dims broadcast_in_dim transpose copy copy_p slice concatenate pad rev split "
        "stack unstack tile jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call "
        "custom_vjp_call stop_gradient"
    )
)
"""What only moves elements, and may be left out for one example; and calls."""
_BY_SHAPE = frozenset(("iota", "random_bits", "rng_bit_generator", "rng_uniform", "random_split"))
"""What makes arrays of nothing but a shape, whose elements differ by their position."""
_FIXED = ("axes", "axis", "dimension", "new_dtype", "reverse", "y")
"""Parameters that tell what is computed, and are the same for any number of examples."""


def _differences(batch: Any, one: Any) -> dict[int, Any] | Any:
    """The equations that give other numbers for one example than for it within the batch, by identity; or the first one
    that has no counterpart, where the programs differ in their operations."""
    found: tuple[list[_Operation], list[_Operation]] = [], []
    results = [
        _gather(program.jaxpr, _numbered("input", program.jaxpr.invars), into)
        for program, into in zip((batch, one), found, strict=True)
    ]
    odd: dict[int, Any] = {}
    for (many, read), (few, alone) in zip(*found, strict=False):
        fixed = [(a.primitive.name, [a.params.get(key) for key in _FIXED]) for a in (many, few)]
        loops = many.primitive.name == "scan" and many.params["num_carry"] > 0
        if fixed[0] != fixed[1] or read != alone or (loops and many.params["length"] != few.params["length"]):
            return many
        by_shape = many.primitive.name in _BY_SHAPE and many.params.get("shape") != few.params.get("shape")
        if by_shape or _literals(many) != _literals(few):
            odd[id(many)] = many
    if len(found[0]) != len(found[1]) or results[0] != results[1] or len(batch.consts) != len(one.consts):
        return found[0][-1][0] if found[0] else None
    for variable, many, few in zip(batch.jaxpr.constvars, batch.consts, one.consts, strict=True):
        if np.shape(many) != np.shape(few):
            odd[id(variable)] = None
    return odd


_Operation = tuple[Any, list[Any]]
"""An equation, and names of what it reads, which are the same in both programs."""


def _gather(jaxpr: Any, inputs: Sequence[Any], into: list[_Operation]) -> list[Any]:
    """Appends all equations but those that move elements, nested ones included; returns the names of the results."""
    names = dict(
        zip((*jaxpr.constvars, *jaxpr.invars), (*_numbered("constant", jaxpr.constvars), *inputs), strict=True)
    )

    def read(atom: Any) -> Any:
        return "literal" if hasattr(atom, "val") else names[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        inner = [getattr(part, "jaxpr", part) for part in inner_programs(equation)]
        if equation.primitive.name in _MOVES and len(inner) == 1:
            results = _gather(inner[0], operands, into)
        elif equation.primitive.name in _MOVES and operands != ["literal"]:
            results = _numbered(operands[0] if len(operands) == 1 else tuple(operands), equation.outvars)
        else:
            results = _numbered(len(into), equation.outvars)
            into.append((equation, operands))
            for part in inner:
                _gather(part, _numbered(len(into), part.invars), into)
        names.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _numbered(name: Any, variables: Sequence[Any]) -> list[Any]:
    return [name] if len(variables) == 1 else [(name, number) for number in range(len(variables))]


def _literals(equation: Any) -> list[bytes]:
    return [np.asarray(atom.val).tobytes() for atom in equation.invars if hasattr(atom, "val")]


_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class _Reader:
    """Goes through a program equation by equation; `odd` are those whose results differ between batch and example."""

    def __init__(self, odd: dict[int, Any]):
        self.odd = odd

    def program(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, constants, strict=True):
            unclear = full(UNCLEAR, len(variable.aval.shape)) if id(variable) in self.odd else None
            values[variable] = Value(unclear, None, _integers(constant))

        def read(atom: Any) -> Value:
            return Value(known=_integers(atom.val)) if hasattr(atom, "val") else values[atom]

        for equation in jaxpr.eqns:
            results = self.equation(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, operands: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if name in _LOOPS:
            return _LOOPS[name](self, equation, operands)
        inner = next((equation.params[key] for key in _CALLS if key in equation.params), None)
        if inner is not None and name in _MOVES:
            return self.program(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
        known = indexed.known_result(equation, [value.known for value in operands])
        if all(value.labels is None for value in operands) and id(equation) not in self.odd:
            return [Value(known=known)] + [Value()] * (len(equation.outvars) - 1)
        made = self._labels(equation, operands)
        if id(equation) in self.odd:
            made = [merged([labels, full(UNCLEAR, _rank(v))]) for labels, v in zip(made, equation.outvars, strict=True)]
        origin = next((value.origin for value in operands if value.origin is not None), None)
        return [
            Value(labels, origin if origin is not None or not _tells(labels) else equation, known) for labels in made
        ]

    def _labels(self, equation: Any, operands: list[Value]) -> list[Labels]:
        name, labels = equation.primitive.name, [value.labels for value in operands]
        try:
            if name in _PLACES:
                made = _PLACES[name](equation, labels, [value.known for value in operands])
            elif name in _RULES or name in _ELEMENTWISE:
                made = _RULES.get(name, rules.elementwise)(equation, labels)
            else:
                return _unclear(equation, labels)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # of another version of JAX
            return _unclear(equation, labels)
        return made if isinstance(made, list) else [made] * len(equation.outvars)

    def scan(self, equation: Any, operands: list[Value]) -> list[Value]:
        """Carried labels grow until they stay. A loop over examples is followed where it carries none of them."""
        params, body = equation.params, equation.params["jaxpr"]
        fixed, carried = _taken(operands, params["num_consts"], params["num_carry"])
        over_time = operands[params["num_consts"] + params["num_carry"] :]
        steps = _steps(over_time)
        if steps is not None and (steps < 1).any() | any(v.labels is not None for v in (*fixed, *carried)):
            return _unclear_values(equation, operands)
        sliced = [_one_step(value, steps) for value in over_time]
        while True:
            results = self.program(body.jaxpr, body.consts, [*fixed, *carried, *sliced])
            grown = [_either(old, new) for old, new in zip(carried, results, strict=False)]
            if all(_same(old, new) for old, new in zip(carried, grown, strict=True)):
                break
            if steps is not None:
                return _unclear_values(equation, operands)
            carried = grown
        return [*carried, *(_stacked(value, steps) for value in results[len(carried) :])]

    def while_(self, equation: Any, operands: list[Value]) -> list[Value]:
        params = equation.params
        tests, rest = operands[: params["cond_nconsts"]], operands[params["cond_nconsts"] :]
        fixed, carried = _taken(rest, params["body_nconsts"], len(rest) - params["body_nconsts"])
        while True:
            test, body = params["cond_jaxpr"], params["body_jaxpr"]
            (goes_on,) = self.program(test.jaxpr, test.consts, [*tests, *carried])
            results = self.program(body.jaxpr, body.consts, [*fixed, *carried])
            results = [_decided(equation, *pair, goes_on) for pair in zip(equation.outvars, results, strict=True)]
            grown = [_either(old, new) for old, new in zip(carried, results, strict=True)]
            if all(_same(old, new) for old, new in zip(carried, grown, strict=True)):
                return grown
            carried = grown

    def cond(self, equation: Any, operands: list[Value]) -> list[Value]:
        index, *rest = operands
        branches = [self.program(branch.jaxpr, branch.consts, rest) for branch in equation.params["branches"]]
        results = []
        for number in range(len(equation.outvars)):
            value = branches[0][number]
            for branch in branches[1:]:
                value = _either(value, branch[number])
            results.append(_decided(equation, equation.outvars[number], value, index))
        return results


def _decided(equation: Any, variable: Any, value: Value, by: Value) -> Value:
    """A result of a branch or a loop. Whether examples that decide together share more than that is not known: under
    `vmap` each keeps its own."""
    if by.labels is None:
        return value
    label = everything([by.labels])
    made = merged([value.labels, full(UNCLEAR if label < 0 else label, _rank(variable))])
    return Value(made, value.origin or by.origin or (equation if _tells(made) else None))


def _unclear(equation: Any, labels: Sequence[Labels]) -> list[Labels]:
    """Of an operation without a rule: all results depend on all of the operands."""
    label = everything(labels)
    label = UNCLEAR if label == JOINED and not any(_tells(a) for a in labels) else label
    return [full(label, _rank(variable)) for variable in equation.outvars]


def _rank(variable: Any) -> int:
    return len(getattr(variable.aval, "shape", ()))


def _tells(labels: Labels) -> bool:
    """Whether something depends on several examples."""
    return labels is not None and bool((labels < 0).any())


def _integers(constant: Any) -> Known:
    if isinstance(constant, np.ndarray | np.generic | int) and np.asarray(constant).dtype.kind in "iu":
        return np.ma.asarray(constant)
    return None


def _either(a: Value, b: Value) -> Value:
    return Value(merged([a.labels, b.labels]), a.origin or b.origin)


def _same(a: Value, b: Value) -> bool:
    if a.labels is None or b.labels is None:
        return a.labels is b.labels
    first, second = np.broadcast_arrays(a.labels, b.labels)
    return np.array_equal(first, second)


def _taken(operands: list[Value], num_fixed: int, num_carried: int) -> tuple[list[Value], list[Value]]:
    """What stays through a loop, and what is carried, whose numbers change."""
    carried = operands[num_fixed : num_fixed + num_carried]
    return operands[:num_fixed], [Value(value.labels, value.origin) for value in carried]


def _steps(over_time: Sequence[Value]) -> np.ndarray | None:
    """The label of each step of a loop over examples, 0 where a step sees several; `None` where all see the same."""
    varying = [value.labels for value in over_time if value.labels is not None and value.labels.shape[0] > 1]
    if not varying:
        return None
    steps = varying[0].reshape(len(varying[0]), -1)[:, 0]
    alike = all((labels == steps.reshape(-1, *(1,) * (labels.ndim - 1))).all() for labels in varying)
    return steps if alike and all(v.labels is None or v.labels.shape[0] > 1 for v in over_time) else 0 * steps


def _one_step(value: Value, steps: np.ndarray | None) -> Value:
    if value.labels is None:
        return Value()
    return Value(value.labels[0], value.origin) if steps is None else Value(full(1, value.labels.ndim - 1))


def _stacked(value: Value, steps: np.ndarray | None) -> Value:
    if value.labels is None:
        return Value()
    labels = value.labels[None]
    if steps is not None:
        labels = np.where(labels == 1, steps.reshape(-1, *(1,) * value.labels.ndim), labels)
    return Value(labels, value.origin)


def _unclear_values(equation: Any, operands: Sequence[Value]) -> list[Value]:
    return [Value(labels, equation) for labels in _unclear(equation, [value.labels for value in operands])]


_LOOPS: dict[str, Callable[[_Reader, Any, list[Value]], list[Value]]] = {
    "scan": _Reader.scan,
    "while": _Reader.while_,
    "cond": _Reader.cond,
}
_ELEMENTWISE = frozenset(
    _names(
        "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e "
        "bitcast_convert_type cbrt ceil clamp clz complex conj convert_element_type copy copy_p cos cosh "
        "digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag "
        "integer_pow is_finite le le_to lgamma log log1p logistic lt lt_to max min mul mulhi name ne neg "
        "nextafter not or polygamma population_count pow real reduce_precision regularized_incomplete_beta "
        "rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sharding_constraint "
        "sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta"
    )
)
_RULES: dict[str, Callable[[Any, Sequence[Labels]], Labels | list[Labels]]] = {
    **dict.fromkeys(
        _names("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin reduce"),
        rules.reduced,
    ),
    **dict.fromkeys(_names("cumsum cumprod cummax cummin cumlogsumexp"), rules.along("axis")),
    **dict.fromkeys(_names("reduce_window_max reduce_window_min reduce_window_sum"), rules.windowed),
    **dict.fromkeys(_names("cholesky triangular_solve lu eigh svd qr householder_product"), rules.last(2)),
    "sort": rules.along("dimension"),
    "fft": rules.last("fft_lengths"),
    "top_k": rules.along("axis"),
    **dict.fromkeys(_names("random_bits random_split random_unwrap"), rules.with_more_axes),
    "random_wrap": rules.with_fewer_axes,
    "random_fold_in": rules.elementwise,
    "random_seed": rules.elementwise,
    "tile": rules.tiled,
    "stack": rules.stacked,
    "optimization_barrier": lambda equation, operands: list(operands),
    "reshape": rules.reshaped,
    "broadcast_in_dim": rules.broadcast,
    "squeeze": rules.squeezed,
    "transpose": rules.transposed,
    "rev": rules.reversed_,
    "slice": rules.sliced,
    "pad": rules.padded,
    "concatenate": rules.concatenated,
    "split": rules.split,
    "dot_general": rules.product,
    "conv_general_dilated": rules.convolved,
    "select_and_gather_add": rules.windowed,
}
_PLACES: dict[str, Callable[[Any, Sequence[Labels], Sequence[Known]], Labels]] = {
    "gather": indexed.gathered,
    **dict.fromkeys(_names("scatter scatter-add scatter-mul scatter-min scatter-max scatter-sub"), indexed.scattered),
    "dynamic_slice": indexed.slice_at,
    "dynamic_update_slice": indexed.updated_at,
}
