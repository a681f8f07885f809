"""What an Equinox module needs beside its input, and its modes."""

import inspect
from typing import Any

import equinox as eqx
import jax


def in_training(module: Any, batch_statistics: bool, dropout: bool) -> Any:
    """The module with BatchNorm and whatever else has an inference mode, dropout above all, as they are trained."""
    module = eqx.nn.inference_mode(module, value=not dropout)
    if batch_statistics == dropout:
        return module

    def norms(m: Any) -> list[Any]:
        return [node.inference for node in _nodes(m, eqx.nn.BatchNorm)]

    return eqx.tree_at(norms, module, [not batch_statistics] * len(norms(module)))


def made_state(module: Any) -> tuple[Any, eqx.nn.State | None]:
    """A module without its initial state, and that; the module as it is and `None` if there is none in it."""
    if not _nodes(module, eqx.nn.StateIndex):
        return module, None
    try:
        return eqx.nn.make_with_state(lambda: module)()
    except ValueError:  # the state was taken out before
        return module, None


def batch_axis(module: Any) -> Any:
    """The name that the batch's axis has in the module's BatchNorms."""
    names = {node.axis_name for node in _nodes(module, eqx.nn.BatchNorm)}
    if len(names) > 1:
        raise ValueError(
            f"The BatchNorms of a module must have one `axis_name`, got {', '.join(sorted(map(str, names)))}; give "
            "them the same."
        )
    return names.pop() if names else None


def takes_key(module: Any) -> bool:
    parameters = inspect.signature(module.__call__).parameters
    return "key" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def refuse(module: Any, state: Any, statistics: Any, dropout: bool, key: Any) -> None:
    """Raises `ValueError` for a module that needs more than it is given."""
    _refuse_state(module, state, statistics)
    _refuse_dropout(module, statistics, dropout, key)
    _refuse_arguments(module, state, key)


def refuse_inputs(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raises `ValueError` unless the module takes so many inputs."""
    try:
        inspect.signature(module.__call__).bind(*inputs, **named)
    except TypeError as error:
        raise ValueError(
            f"{type(module).__name__} must take the inputs of an example as its arguments: {error}; pass several "
            "inputs as a tuple, or as a dictionary by name."
        ) from None


def refuse_moved(module: Any, before: list[Any], after: Any) -> None:
    """Raises `ValueError` for a state that is frozen, with these arrays, and moves all the same."""
    if any(now is not then for then, now in zip(before, jax.tree.leaves(after), strict=True)):
        raise ValueError(
            f"A frozen state must stay as it is, got {type(module).__name__}, whose forward pass moves its own; pass "
            'statistics="batch" so that training carries it along.'
        )


def _nodes(module: Any, kinds: type | tuple[type, ...]) -> list[Any]:
    """All parts of a module that are of a kind; a part inside another one of the kind is found as well."""
    found = []
    remaining: list[Any] = [module]
    while remaining:
        top = remaining.pop()
        for node in jax.tree.leaves(top, is_leaf=lambda n, top=top: n is not top and isinstance(n, kinds)):
            if isinstance(node, kinds):
                found.append(node)
                remaining.append(node)
    return [module, *found] if isinstance(module, kinds) else found


def _refuse_state(module: Any, state: Any, statistics: Any) -> None:
    if state is not None:
        if not isinstance(state, eqx.nn.State):
            raise TypeError(
                f"`state` must be an equinox.nn.State, got {type(state).__name__}; pass that of make_with_state."
            )
        if statistics is None:
            raise ValueError(
                '`statistics` must say how a module with a state is trained, got none; pass "batch" for the statistics '
                'of each batch, or "frozen" for the running ones.'
            )
        return
    if statistics == "batch":
        raise ValueError(
            f"Batch statistics need a module with BatchNorm and its `state`, got none for {type(module).__name__}; "
            "pass that of equinox.nn.make_with_state."
        )
    for node in _nodes(module, (eqx.nn.StateIndex, eqx.nn.StatefulLayer)):
        if isinstance(node, eqx.nn.StateIndex) or node.is_stateful():
            stateful = [n for n in _nodes(module, eqx.nn.StatefulLayer) if not isinstance(n, eqx.nn.Sequential)]
            raise ValueError(
                f"`module` must be called as module(x) without a state, got {type(module).__name__} with "
                f"{type(stateful[0] if stateful else node).__name__}, which has one; pass the `state` of "
                "equinox.nn.make_with_state and `statistics`, or replace it by a layer without state such as "
                "equinox.nn.GroupNorm."
            )


def _refuse_dropout(module: Any, statistics: Any, dropout: bool, key: Any) -> None:
    if dropout and (key is None or not takes_key(module)):
        missing = "got none" if key is None else f"got {type(module).__name__}, whose call takes no `key`"
        raise ValueError(f"Dropout in training needs a `key`, {missing}; pass one such as jax.random.key(0).")
    if dropout or statistics is not None:
        return
    for node in _nodes(module, eqx.nn.Dropout):
        if not node.inference and not (isinstance(node.p, int | float) and node.p == 0):
            raise ValueError(
                f"`module` must be deterministic, got {type(module).__name__} with Dropout in training "
                "mode, which needs a key; pass equinox.nn.inference_mode(module), or dropout=True and a key."
            )


def _refuse_arguments(module: Any, state: Any, key: Any) -> None:
    parameters = inspect.signature(module.__call__).parameters.values()
    given = {name for name, value in (("state", state), ("key", key)) if value is not None}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional[1:] if p.default is p.empty and p.name in ("key", "state")]
    required += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    required = [name for name in required if name not in given]
    takes_input = positional or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if required or not takes_input:
        extra = f"needs {', '.join(f'`{name}`' for name in required)} as well" if required else "takes no input"
        raise ValueError(
            f"`module` must be called as module(x), got {type(module).__name__}, which {extra}; wrap it in "
            "a module whose `__call__` takes the inputs only."
        )
