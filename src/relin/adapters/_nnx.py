"""Flax NNX modules as `(apply, params)`."""

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Shaped

from relin._common.extra import needs_extra
from relin._core.names import parameter_names, some
from relin._core.network import Variables, described
from relin._core.primitives import depends
from relin._core.types import Inputs, Outputs, Params
from relin.adapters._closed import (
    AbstractApply,
    Output,
    Statistics,
    called,
    check_mode,
    check_output,
    chosen,
    without_counting,
)
from relin.adapters._trainable import PartialApply, Trainable, restricted


class NNXApply(AbstractApply):
    """`apply(params, x)`: a Flax NNX module that was separated from its `nnx.Param`s; see `AbstractApply`.

    Its constants are all other variables: running statistics, and the keys and counters of random numbers.
    """

    constants: tuple[Shaped[Array, "..."], ...]
    _graphs: tuple[Any, Any] = eqx.field(static=True)
    """The module as it is evaluated and as it is trained."""
    _structures: tuple[Any, Any] = eqx.field(static=True)
    """Of the parameters, as Flax has them, and of the other variables."""
    _names: tuple[str, ...] = eqx.field(static=True)
    """Of the constants."""
    _output: Output = eqx.field(static=True)
    _mode: tuple[bool, bool] = eqx.field(static=True)
    """Whether batch statistics and dropout are on in training."""
    _kind: str = eqx.field(static=True)
    """The module's class."""

    def __call__(self, params: Params, x: Inputs) -> Outputs:
        outputs, after = self._passed(0, params, x)
        unused = set[str]()
        for name, before, now in zip(self._names, self.constants, after, strict=True):
            if now is not before and name not in (unused := unused or self._unused_randomness(params, x)):
                remedy = (
                    "let it do so only where its `use_running_average` or `deterministic` is False"
                    if any(self._mode)
                    else 'say how it is trained with `statistics` ("frozen" or "batch") and `dropout`, or put it into '
                    "evaluation mode with module.eval()"
                )
                raise ValueError(
                    f"The module must leave its variables as they are, got one that changes {name} where it is "
                    f"evaluated; {remedy}."
                )
        return outputs

    @property
    def mode(self) -> str:
        return described(*self._mode)

    @property
    def variables(self) -> Variables | None:
        return self.constants if any(self._mode) else None

    def forward(self, params: Params, x: Inputs) -> tuple[Outputs, Variables | None]:
        if not any(self._mode):
            return self(params, x), None
        return self._passed(1, params, x)

    def with_variables(self, variables: Variables) -> "NNXApply":
        return replace(self, constants=tuple(variables))

    def combine(self, params: Params) -> Any:
        """A Flax module with these parameters, in evaluation mode."""
        return self._merged(0, params)

    def _merged(self, graph: int, params: Params) -> Any:
        from flax import nnx

        of_params, of_others = self._structures
        trained = jax.tree.unflatten(of_params, jax.tree.leaves(params))
        return nnx.merge(self._graphs[graph], trained, jax.tree.unflatten(of_others, list(self.constants)))

    def _passed(self, graph: int, params: Params, x: Inputs) -> tuple[Outputs, tuple[Shaped[Array, "..."], ...]]:
        """The outputs, and the other variables after the forward pass."""
        from flax import nnx

        module = self._merged(graph, params)
        given = _named(nnx.state(module, nnx.Param))

        def run() -> tuple[Outputs, tuple[Shaped[Array, "..."], ...]]:
            outputs = chosen(called(module, x), self._output)
            trained = _named(nnx.state(module, nnx.Param))
            if changed := [name for name, value in given.items() if trained.get(name) is not value]:
                raise ValueError(
                    f"The module must leave its parameters to training, got {type(module).__name__}, whose forward "
                    f"pass changes {some(changed)}; change them in a step of an Optax optimiser."
                )
            after = _named(nnx.state(module, nnx.Not(nnx.Param)))
            return outputs, tuple(after[name] for name in self._names)

        return without_counting(
            lambda: {".".join(map(str, path)): part for path, part in nnx.iter_modules(module)}, run
        )

    def _unused_randomness(self, params: Params, x: Inputs) -> set[str]:
        """The names of keys and counters of random numbers if no output depends on them, such as those from which
        `nnx.RNN` draws a state of zeros; else none."""
        from flax import nnx

        names = set(_named(nnx.state(self._merged(0, params), nnx.RngState)))

        def outputs(random: dict[str, Any]) -> Outputs:
            constants = [random.get(name, value) for name, value in zip(self._names, self.constants, strict=True)]
            return self.with_variables(constants)._passed(0, params, x)[0]

        random = {name: value for name, value in zip(self._names, self.constants, strict=True) if name in names}
        return set() if depends(outputs, random) else names

    def _wrapped(self) -> str:
        return self._kind

    def _architecture(self) -> tuple[Hashable, ...]:
        return self._graphs, self._structures, self._output, self._mode


def from_nnx(
    module: Any,
    *,
    statistics: Statistics | None = None,
    dropout: bool = False,
    output: Output = None,
    trainable: Trainable | None = None,
) -> tuple[NNXApply | PartialApply, Params]:
    """Separates a Flax NNX module into a function and its parameters.

    **Arguments:**

    - `module`: an `nnx.Module` that is called with a batch of inputs. A tuple of inputs is spread over its arguments, a
      dictionary over its keywords.
    - `statistics`: of BatchNorm in training. `"frozen"`: the running ones, which stay as they are. `"batch"`: those of
      the batch, differentiated through; the running ones are updated by the forward passes at the anchor.
    - `dropout`: whether it is on in training. Each step's mask is the same for primal and tangent; the next one
      comes from the module's own stream of random numbers.
    - `output`: which of several outputs the loss is of: a key, a position, or a function of the outputs.
    - `trainable`: which parameters are trained, all if not given; see `relin.trainable`.

    With neither `statistics` nor `dropout` the module is used as it is, and must leave its variables alone, as after
    `module.eval()`. With either, `apply` evaluates it with running statistics and no dropout, whatever its mode was.

    **Returns:** `apply` and `params`: nested dictionaries of arrays, those of the module's `nnx.Param`s. Weights that
    are tied, the same `nnx.Param` in two places, are one array. `nnx.update(module, params)` puts trained ones into the
    module, and `apply.combine(params)` makes another module of them. All other variables are closed over;
    `apply.with_variables(solution.variables)` has those that training left.

    **Raises:** `ImportError` without Flax; `TypeError` if `module` is no callable `nnx.Module` or a trained parameter
    is not floating-point; `ValueError` if there is none, or no layer has the mode that is asked for; and, where `apply`
    is called, for a module used as it is that changes its variables.
    """
    with needs_extra("from_nnx", "flax"):
        from flax import nnx
    if not isinstance(module, nnx.Module) or not callable(module):
        raise TypeError(
            f"`module` must be a callable flax.nnx.Module, got {type(module).__name__}; use from_linen for "
            "flax.linen and from_equinox for Equinox modules."
        )
    check_output(output)
    check_mode(statistics, dropout)
    mode = statistics == "batch", dropout
    evaluated = trained = module
    if statistics is not None or dropout:
        evaluated = nnx.view(module, raise_if_not_found=False, deterministic=True, use_running_average=True)
        trained = _in_training(module, *mode)
    graph, state, others = nnx.split(evaluated, nnx.Param, ...)
    constants = _named(others)
    structures = jax.tree.structure(state), jax.tree.structure(others)
    graphs = graph, nnx.split(trained, nnx.Param, ...)[0]
    apply = NNXApply(
        tuple(constants.values()), graphs, structures, tuple(constants), output, mode, type(module).__name__
    )
    params = nnx.to_pure_dict(state)
    return restricted(apply, params, trainable)


def _in_training(module: Any, batch_statistics: bool, dropout: bool) -> Any:
    """The module as it is trained; refuses what none of its layers does."""
    from flax import nnx

    for wanted, name, layer in (
        (batch_statistics, "use_running_average", "BatchNorm for batch statistics"),
        (dropout, "deterministic", "dropout to be on"),
    ):
        try:
            nnx.view(module, **{name: False})
        except ValueError:
            if wanted:
                raise ValueError(
                    f"`module` must have {layer}, got {type(module).__name__} with no layer that has `{name}`; leave "
                    "the argument out."
                ) from None
    modes = {"deterministic": not dropout, "use_running_average": not batch_statistics}
    return nnx.view(module, raise_if_not_found=False, **modes)


def _named(state: Any) -> dict[str, Any]:
    """The arrays of a Flax state by their names, in order."""
    from flax import nnx

    arrays = nnx.to_pure_dict(state)
    return dict(zip(parameter_names(arrays), jax.tree.leaves(arrays), strict=True))
