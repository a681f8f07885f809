"""What Optax's optimisers are given, which of them cannot train here, and what of their states outlives an anchor."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from relin._core import tree as _tree
from relin._core.tree import is_key
from relin._core.types import Params, Scalar


class GradientBound(NamedTuple):
    """Of the gradient's norm, as `preset.sparse` clips it: the same for the whole run."""

    bound: Array
    """Infinite where nothing is to be clipped."""


LIVING_ON = (
    optax.ScaleByScheduleState,
    optax.contrib.ReduceLROnPlateauState,
    optax.AddNoiseState,
    optax.contrib.HutchinsonState,
    GradientBound,
)
"""States that no re-linearisation begins anew: courses of learning rates; random keys, whose numbers would come again;
and a bound, which is no moment."""
WITHOUT_MOMENTS = (
    optax.ScaleByLBFGSState,
    optax.ScaleByZoomLinesearchState,
    optax.ScaleByBacktrackingLinesearchState,
)
"""States whose numbers mean nothing when shrunk: L-BFGS's differences, a line search's last step size and loss."""
_INNER = {
    optax.MultiStepsState: "inner_opt_state",
    optax.ApplyIfFiniteState: "inner_state",
    optax.ConditionallyTransformState: "inner_state",
    optax.ConditionallyMaskState: "inner_state",
}
"""Of states that count steps, or gather gradients of several, and hold that of an optimiser: its field."""

_NUMBER, _NORM, _WEIGHT = 3e-3, 0.1, 1e-6
"""What an optimiser is shown to find whether its step grows with the gradient: a gradient's number in each parameter,
far above what is added to roots of second moments, such as 10⁻⁸; the most of its norm, below what most clip at; and
the parameters' own numbers, of which a decay is smaller."""
_LONGER = 1.7
"""Times that a step of twice the gradient is longer: 2 of SGD, 1 of Adam."""
_LONGEST_WAIT = 128
"""Steps without an update."""


def inner(state: Any) -> str | None:
    """The field of an optimiser's state with all that may be begun anew; `None` where that is the state itself."""
    if hasattr(state, "hyperparams") and hasattr(state, "inner_state"):  # optax.inject_hyperparams
        return "inner_state"
    return _INNER.get(type(state))


def updated(
    optimiser: optax.GradientTransformation,
    gradient: Params,
    state: Any,
    params: Params,
    value: Scalar,
    value_fn: Callable[[Params], Scalar],
) -> tuple[Params, Any]:
    """An optimiser's update and new state; raises `TypeError` for one that needs more than it is given.

    Keywords that it does not take, as `optax.contrib.sam` takes no `value`, are left out; those that Optax's line
    searches would refuse are for Optax's own alone that ask for them.
    """
    update = optax.with_extra_args_support(optimiser).update
    given: dict[str, Any] = {"value": value, "grad": gradient, "value_fn": value_fn}
    if parts(state, optax.contrib.SAMState):
        given["grad_fn"] = lambda p, _: jax.grad(value_fn)(p)
    if parts(state, optax.contrib.HutchinsonState):
        given["obj_fn"] = value_fn
    while True:
        try:
            return update(gradient, state, params, **given)
        except TypeError as error:
            refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if refused and refused[1] in given:
                del given[refused[1]]
                continue
            if "argument" not in str(error):
                raise
            raise TypeError(
                "An optimiser is given gradients, state, parameters and the keywords `value`, `grad` and `value_fn`, "
                f"got one that needs more ({str(error).splitlines()[0]}); wrap it so that it needs no others."
            ) from error


def updates_of(
    optimiser: optax.GradientTransformation,
    params: Params,
    gradients: Sequence[Params],
    steps: Sequence[int] | None = None,
) -> list[Params]:
    """An optimiser's updates of gradients in a row, at parameters that move with them; of these steps of a run if
    given, else of the first ones."""
    state, made, zero = optimiser.init(params), [], jnp.zeros(())
    for number, gradient in enumerate(gradients):
        state = state if steps is None else _at_step(state, steps[number])
        update, state = updated(optimiser, gradient, state, params, zero, lambda _: zero)
        params = _tree.add(params, update)
        made.append(update)
    return made


def grows_with_gradient(optimiser: optax.GradientTransformation, params: Params) -> Bool[Array, ""]:
    """Whether an optimiser's step is longer where the gradient is, as that of SGD and not of Adam, for any parameter.
    May be traced. Of the parameters only structure, types and axes count: it is shown a few small ones."""
    leaves, structure = jax.tree.flatten(params)
    number = min(_NUMBER, _NORM / len(leaves) ** 0.5)
    few = [tuple(min(axis, 2) for axis in leaf.shape) for leaf in leaves]
    for shapes in (few, [leaf.shape for leaf in leaves]):  # the second for one that holds arrays of their shapes
        at = [jnp.full(shape, _WEIGHT, leaf.dtype) for shape, leaf in zip(shapes, leaves, strict=True)]
        try:
            return _grows(optimiser, jax.tree.unflatten(structure, at), number)
        except (TypeError, ValueError):
            if shapes is not few:
                raise
    raise AssertionError


def _grows(optimiser: optax.GradientTransformation, params: Params, number: float) -> Bool[Array, ""]:
    """Shows no gradient, a small one and its double, of one number in each parameter, until one is moved: an optimiser
    may gather gradients, and rates warm up. What it does without a gradient, as decaying and adding noise, is left
    out."""
    begun = jax.tree.map(jnp.asarray, optimiser.init(params))

    def shown(factor: int, state: Any) -> tuple[Params, Any]:
        gradient = jax.tree.map(lambda a: _with_first(jnp.zeros_like(a), factor * number), params)

        def loss(p: Params) -> Scalar:
            return jnp.asarray(optax.tree.vdot(gradient, p))

        update, after = updated(optimiser, gradient, state, params, loss(params), loss)
        return update, jax.tree.map(lambda new, old: new if is_key(new) else jnp.asarray(new, old.dtype), after, state)

    def turn(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        states, _, count = carry
        (none, *made), states = zip(*map(shown, range(3), states), strict=True)
        none = jax.tree.map(jnp.nan_to_num, none)  # of an optimiser that divides by the gradient's norm
        return states, jnp.stack([_largest_of_each(_tree.subtract(update, none)) for update in made]), count + 1

    def waits(carry: tuple[Any, Array, Array]) -> Array:
        return jnp.all(carry[1] == 0) & (carry[2] < _LONGEST_WAIT)

    start = turn((3 * (begun,), jnp.zeros(()), jnp.zeros((), jnp.int32)))
    one, two = jax.lax.while_loop(waits, turn, start)[1]
    return jnp.any(~(two <= _LONGER * one)) | jnp.all(one == 0)


def _with_first(leaf: Array, number: float) -> Array:
    return leaf.reshape(-1).at[:1].set(number).reshape(leaf.shape)


def _largest_of_each(tree: Params) -> Float[Array, " leaves"]:
    leaves = jax.tree.leaves(tree)
    return jnp.stack([jnp.max(jnp.abs(leaf), initial=0).astype(_tree.dtype_of(tree)) for leaf in leaves])


def _at_step(state: Any, step: int | Array) -> Any:
    """An optimiser's state with another number of steps taken, where it counts them as Optax's do."""

    def each(path: Any, leaf: Any) -> Any:
        counts = jax.tree_util.keystr(path[-1:], simple=True) == "count" and jnp.ndim(leaf) == 0
        return jnp.asarray(step, jnp.int32) if counts and jnp.issubdtype(jnp.result_type(leaf), jnp.integer) else leaf

    return jax.tree_util.tree_map_with_path(each, state)


class _Unsuited(NamedTuple):
    """A kind of state, by which an optimiser is known, its name, and what is wrong with it, with the way out."""

    kind: type
    name: str
    why: str
    but: Callable[[Any], bool] = lambda state: False
    """Of which states nothing is wrong."""


_UNSUITED = (
    _Unsuited(
        optax.contrib.ScheduleFreeState,
        "optax.contrib.schedule_free",
        "which computes gradients at one point and is evaluated at another, an average that relin does not look at; "
        "pass its base optimiser, with a schedule of the learning rate",
    ),
    _Unsuited(
        optax.LookaheadState,
        "optax.lookahead",
        "which trains a pair of fast and slow parameters; pass its fast optimiser",
    ),
    _Unsuited(
        optax.contrib.SAMState,
        "optax.contrib.sam without opaque_mode",
        "which leaves them at a step of ascent, where they would be recorded and linearised; pass opaque_mode=True, "
        "with which each step is a whole one",
        but=lambda state: state.cache is None,
    ),
    _Unsuited(
        optax.contrib.DifferentiallyPrivateAggregateState,
        "optax.contrib.differentially_private_aggregate",
        "which needs the gradient of each example, where relin has the batch's; train with it in a loop of your own",
    ),
)


def check_optimiser(optimiser: optax.GradientTransformation, params: Params) -> None:
    """Raises unless each step of an optimiser goes from these parameters to better ones, and asks for no more than it
    is given; nothing is computed."""
    state = jax.eval_shape(optimiser.init, params)
    for unsuited in _UNSUITED:
        if not all(map(unsuited.but, parts(state, unsuited.kind))):
            raise ValueError(
                "`optimiser` must update the parameters themselves at every step, by the gradient of the batch's loss, "
                f"got {unsuited.name}, {unsuited.why}."
            )
    made = jax.eval_shape(lambda p, s: updated(optimiser, p, s, p, _some_loss(p), _some_loss)[0], params, state)
    if _shapes(made) != _shapes(params):
        raise ValueError(
            "`optimiser` must return an update of each parameter, got updates of another structure or of other shapes; "
            "return a PyTree like that of the gradients."
        )


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, tree)


def _some_loss(params: Params) -> Scalar:
    return jnp.asarray(optax.tree.sum(params))


def parts(state: Any, kind: type) -> list[Any]:
    """The parts of an optimiser's state that are of a kind."""
    leaves = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def scheduled(state: Any) -> bool:
    """Whether an optimiser has schedules of its learning rate or of other numbers."""
    injected = parts(state, optax.InjectStatefulHyperparamsState)
    return bool(parts(state, optax.ScaleByScheduleState)) or any(part.hyperparams_states for part in injected)


def forgiving(state: Any) -> bool:
    """Whether an optimiser passes over gradients that are not finite, and counts them: `optax.apply_if_finite`."""
    return bool(parts(state, optax.ApplyIfFiniteState))


def stuck(state: Any) -> str:
    """What is wrong with an optimiser's last state where it passed over all that came in the end; nothing if it did
    not. One gradient more or less is nothing."""
    count = max((int(part.notfinite_count) for part in parts(state, optax.ApplyIfFiniteState)), default=0)
    return "" if count < 2 else (
        f"the last {count} gradients were not finite, and optax.apply_if_finite passed over them; lower the learning "
        "rate, or look for what is not finite in the data"
    )  # fmt: skip


def all_finite(params: Params) -> Bool[Array, ""]:
    """Whether all numbers are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(params)]))
