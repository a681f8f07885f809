"""The kernel Θ = J Jᵀ and the features J as lineax operators, never formed."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from relin._core import check as _check, forward_mode as _forward, tree as _tree
from relin._core.repr import one_line, short
from relin._core.types import Inputs, Outputs, Params
from relin.kernel._arguments import as_arrays, check_inputs, check_result, check_size
from relin.kernel._independence import may_be_coupled, refuse_coupled

Apply = Callable[[Params, Inputs], Outputs]

_EXAMPLES_AT_ONCE = 32  # whose Jacobians are made together where no smaller batch size is set


class FeatureOperator(lx.AbstractLinearOperator):
    """The Jacobian J: a PyTree like `params` → `(N, C)`, or its transpose; see `features`, which makes one.

    **Arguments:**

    - `apply`, `params`, `x`, `batch_size`: as for `features`.
    - `outputs`: shape and type of the outputs, `(N, C)`.
    - `transposed`: whether this is Jᵀ.
    - `coupled`: whether an example's outputs may depend on the others, so that all go through the network together.
    """

    apply: Apply
    params: Params
    x: Inputs
    batch_size: int | None = eqx.field(static=True)
    outputs: jax.ShapeDtypeStruct = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    coupled: bool = eqx.field(static=True)
    """Whether an example's outputs may depend on the others, so that all go through the network together."""

    def __repr__(self) -> str:
        return one_line(self)

    def mv(self, vector: Any) -> Any:
        """J v, `(N, C)`, of a PyTree like `params`; transposed: Jᵀ c, such a PyTree, of c `(N, C)`."""
        return self.pullback(vector) if self.transposed else self.pushforward(vector)

    def pushforward(self, tangent: Params) -> Outputs:
        """J v, `(N, C)`: one forward-mode derivative of each batch."""

        def jvp(x: Inputs) -> Outputs:
            return _forward.jvp(partial(self.network, x), self.params, tangent, self._rules(x))[1]

        starts, size = self._batches()
        if size == self.outputs.shape[0]:
            return jvp(self.x)
        pieces = jax.lax.map(lambda start: jvp(self._piece(self.x, start[0], size)), starts)
        rest = self.outputs.shape[0] - (len(starts) - 1) * size
        return jnp.concatenate([pieces[:-1].reshape(-1, self.outputs.shape[1]), pieces[-1, size - rest :]])

    def pullback(self, cotangent: Outputs) -> Params:
        """Jᵀ c, a PyTree like `params`: one reverse-mode derivative of each batch."""

        def vjp(x: Inputs, c: Outputs) -> Params:
            return jax.vjp(partial(self.network, x), self.params)[1](c)[0]

        starts, size = self._batches()
        if size == self.outputs.shape[0]:
            return vjp(self.x, cotangent)

        def add(total: Params, start: Array) -> tuple[Params, None]:
            first, wanted = start
            new = jnp.arange(size)[:, None] + first >= wanted  # the last piece repeats rows of the one before
            c = jnp.where(new, self._piece(cotangent, first, size), 0)
            return _tree.add(total, vjp(self._piece(self.x, first, size), c)), None

        return jax.lax.scan(add, _tree.zeros_like(self.params), starts)[0]

    def per_example(self, function: Callable[[Params], Any], at_once: int) -> Any:
        """`function` of each example's Jacobian, a PyTree like `params` with a leading axis C, stacked over N."""
        if self.coupled:
            return self._per_row(function)

        def one(example: Inputs) -> Any:
            x = jax.tree.map(lambda a: a[None], example)
            return function(jax.jacrev(lambda p: self.network(x, p)[0])(self.params))

        return jax.lax.map(one, self.x, batch_size=min(at_once, self.batch_size or at_once))

    def _per_row(self, function: Callable[[Params], Any]) -> Any:
        """The same, by a pass of all examples for each output of each."""
        (num_examples, num_outputs), kind = self.outputs.shape, self.outputs.dtype

        def row(n: Array, c: Array) -> Params:
            return self.pullback(jnp.zeros((num_examples, num_outputs), kind).at[n, c].set(1))

        def one(n: Array) -> Any:
            return function(jax.lax.map(partial(row, n), jnp.arange(num_outputs)))

        return jax.lax.map(one, jnp.arange(num_examples))

    def as_matrix(self) -> Float[Array, "a b"]:
        return lx.materialise(self).as_matrix()

    def transpose(self) -> "FeatureOperator":
        return FeatureOperator(
            self.apply, self.params, self.x, self.batch_size, self.outputs, not self.transposed, self.coupled
        )

    def in_structure(self) -> Any:
        return self.outputs if self.transposed else self._parameters()

    def out_structure(self) -> Any:
        return self._parameters() if self.transposed else self.outputs

    def _parameters(self) -> Any:
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), self.params)

    def network(self, x: Inputs, params: Params) -> Outputs:
        """The outputs, `(batch, C)`, without TF32, where the network's own products do not ask for it."""
        with jax.default_matmul_precision("highest"):
            outputs = self.apply(params, x)
        return outputs.reshape(outputs.shape[0], -1)

    def _rules(self, x: Inputs) -> _forward.Rules:
        return _forward.rules_in_the_way(self.apply, self.params, x)

    def _batches(self) -> tuple[Array, int]:
        """Where each piece of the examples starts and which of its rows is the first wanted, and a piece's size."""
        num_examples = self.outputs.shape[0]
        count = math.ceil(num_examples / (self.batch_size or num_examples))
        size = math.ceil(num_examples / count)
        wanted = np.arange(math.ceil(num_examples / size)) * size
        return jnp.stack([np.minimum(wanted, num_examples - size), wanted], axis=1), size

    def _piece(self, tree: Any, start: Array, size: int) -> Any:
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), tree)


def features(apply: Apply, params: Params, x: Inputs, *, batch_size: int | None = None) -> FeatureOperator:
    """The Jacobian J as a lineax operator from parameters to outputs, `(N, C)`; `.T` is its transpose.

    **Arguments:**

    - `apply`: `apply(params, x) -> outputs` of shape `(N, C)`, or `(N, …)` with C over all further axes. Where examples
      depend on each other, J is that of all N as one batch.
    - `params`: a PyTree of floating-point arrays.
    - `x`: inputs, a PyTree of arrays with a leading axis of N examples.
    - `batch_size`: at most so many examples are in the network at once, which bounds the memory; it need not divide N.
      By default all.

    **Raises:** `TypeError` or `ValueError` if the network does not return one floating-point array `(N, …)`, the
    parameters are not floating-point arrays, the batch size is not a positive integer, or there is one though examples
    depend on each other.
    """
    _check.params(params)
    batch_size = check_size(batch_size, "batch_size", "all examples at once")
    num_examples = check_inputs(x, "x")
    params, x = as_arrays(params, x)
    outputs = eqx.filter_eval_shape(apply, params, x)
    check_result(outputs, num_examples)
    structure = jax.ShapeDtypeStruct((num_examples, outputs.size // num_examples), outputs.dtype)
    coupled = may_be_coupled(apply, params, x)
    if coupled and batch_size is not None and batch_size < num_examples:
        remedy = "leave `batch_size` out, so that all examples are one batch"
        params, coupled = refuse_coupled(apply, params, x, "An operator with `batch_size`", remedy), False
    return FeatureOperator(apply, params, x, batch_size, structure, transposed=False, coupled=coupled)


class NTKOperator(lx.AbstractLinearOperator):
    """The empirical NTK Θ = J Jᵀ of a set of examples with itself, `(N, C)` → `(N, C)`, never formed.

    A product takes one reverse-mode and one forward-mode derivative: about three evaluations of the network. It is
    tagged symmetric and positive semidefinite, so that `lineax.linear_solve(operator, y, lineax.CG(...))` works.
    `lineax.linearise` keeps the network's intermediate values for further products if there is one batch, and returns
    the operator itself if there are more.

    **Arguments:**

    - `apply`: `apply(params, x) -> outputs` of shape `(N, C)`, or `(N, …)` with C over all further axes. Where examples
      depend on each other, J is that of all N as one batch.
    - `params`: a PyTree of floating-point arrays.
    - `x`: inputs, a PyTree of arrays with a leading axis of N examples.
    - `batch_size`: at most so many examples are in the network at once, which bounds the memory; it need not divide N.
      By default all.

    `as_matrix()` is the NC × NC matrix, whose rows run through the outputs of the first example, then of the second;
    it takes N·C forward-mode derivatives, so for dense kernels `ntk` is better. `lineax.diagonal` is cheap.

    **Raises:** as `features`.
    """

    features: FeatureOperator

    def __repr__(self) -> str:
        examples, outputs = self.features.outputs.shape
        return f"NTKOperator({short(self.features.apply)}, {examples} examples of {outputs} outputs)"

    def __init__(self, apply: Apply, params: Params, x: Inputs, *, batch_size: int | None = None):
        self.features = features(apply, params, x, batch_size=batch_size)

    def mv(self, vector: Outputs) -> Outputs:
        """Θ v, `(N, C)`."""
        return self.features.pushforward(self.features.pullback(vector))

    def as_matrix(self) -> Float[Array, "NC NC"]:
        return lx.materialise(self).as_matrix()

    def transpose(self) -> "NTKOperator":
        return self

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return self.features.outputs

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.features.outputs


_POSITIVE = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})


@lx.linearise.register(FeatureOperator)
def _(operator: FeatureOperator) -> lx.AbstractLinearOperator:
    return operator


@lx.linearise.register(NTKOperator)
def _(operator: NTKOperator) -> lx.AbstractLinearOperator:
    parts = operator.features
    if parts.batch_size is not None and parts.batch_size < parts.outputs.shape[0]:
        return operator
    network = partial(parts.network, parts.x)
    pushforward = _forward.linearize(network, parts.params, parts._rules(parts.x))[1]
    pullback = _forward.pullback(pushforward, parts.params)
    return lx.FunctionLinearOperator(lambda v: pushforward(*pullback(v)), operator.in_structure(), _POSITIVE)


@lx.materialise.register(FeatureOperator)
def _(operator: FeatureOperator) -> lx.AbstractLinearOperator:
    jacobian = operator.per_example(lambda rows: rows, _EXAMPLES_AT_ONCE)
    dense = lx.PyTreeLinearOperator(jacobian, operator.outputs)
    return dense.transpose() if operator.transposed else dense


@lx.materialise.register(NTKOperator)
def _(operator: NTKOperator) -> lx.AbstractLinearOperator:
    rows = operator.features.per_example(jax.vmap(operator.features.pushforward), at_once=1)
    return lx.PyTreeLinearOperator(rows, operator.out_structure(), _POSITIVE)


@lx.diagonal.register(FeatureOperator)
def _(operator: FeatureOperator) -> Array:
    return jnp.diag(operator.as_matrix())


@lx.diagonal.register(NTKOperator)
def _(operator: NTKOperator) -> Array:
    outputs = operator.features.outputs

    def squares(jacobian: Params) -> Array:
        rows = [leaf.reshape(outputs.shape[1], -1) for leaf in jax.tree.leaves(jacobian)]
        return sum((jnp.sum(jnp.square(a), axis=1) for a in rows), start=jnp.zeros((), outputs.dtype))

    return operator.features.per_example(squares, _EXAMPLES_AT_ONCE).reshape(-1)


@lx.conj.register(FeatureOperator)
@lx.conj.register(NTKOperator)
def _(operator: Any) -> Any:
    return operator  # real


@lx.is_symmetric.register(NTKOperator)
@lx.is_positive_semidefinite.register(NTKOperator)
def _(operator: NTKOperator) -> bool:
    return True


def _no(operator: Any) -> bool:
    return False


def has_no_other_structure(kind: type[lx.AbstractLinearOperator]) -> None:
    """Answers no, for a class, to whether lineax may take its operators as negative, diagonal, triangular and so on."""
    for query in (
        lx.is_negative_semidefinite,
        lx.is_diagonal,
        lx.is_tridiagonal,
        lx.has_unit_diagonal,
        lx.is_lower_triangular,
        lx.is_upper_triangular,
    ):
        query.register(kind)(_no)


for _query in (lx.is_symmetric, lx.is_positive_semidefinite):
    _query.register(FeatureOperator)(_no)
has_no_other_structure(FeatureOperator)
has_no_other_structure(NTKOperator)
