"""Loss and accuracy, or any other measure, on held-out data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from relin._core.context import Context
from relin._core.types import Inputs, State, Targets
from relin._observer._base import AbstractObserver, chunk_of


class Performance(AbstractObserver):
    """Mean loss, and accuracy where the targets are classes, of both predictors; and any other measure.

    Records `{name}_loss` and `{name}_accuracy` (a fraction) of the linearised network, the primary predictor, and
    `network_{name}_loss` and `network_{name}_accuracy` of the network at θ_t; with a `measure` also `{name}_measure`
    and `network_{name}_measure`, which are NaN where an output is not finite.

    **Arguments:**

    - `data`: inputs and targets `(x, y)`.
    - `name`: the prefix of the recorded names.
    - `chunk_size`: how many examples go through the network at once; by default 1000, on CPU as many as suit its cache.
    - `measure`: a function, which JAX compiles, of all outputs and all targets, `(n, …)` each, that gives one number.
    """

    data: tuple[Inputs, Targets]
    name: str = eqx.field(static=True, default="test")
    chunk_size: int = eqx.field(static=True, default=1)
    measure: Callable[[Any, Any], Any] | None = None

    def __init__(
        self,
        data: tuple[Inputs, Targets],
        name: str = "test",
        chunk_size: int | None = None,
        measure: Callable[[Any, Any], Any] | None = None,
    ):
        if not isinstance(data, tuple):
            raise TypeError(
                f"`data` must be a pair (x, y) of arrays, got {type(data).__name__}; pass one, such as dataset.test."
            )
        self.data = jax.tree.map(jnp.asarray, data)
        self.name, self.chunk_size, self.measure = name, chunk_of(self.data[0], chunk_size), measure

    @property
    def labelled(self) -> dict[str, tuple[Inputs, Targets]]:
        return {"data": self.data}

    def compute(self, context: Context, state: State) -> tuple[dict[str, Shaped[Array, ""]], State]:
        x, y = self.data
        linearised, network, _ = context.predictions_in_chunks(x, self.chunk_size)
        loss, record = context.problem.loss, {}
        for prefix, outputs in (("", linearised), ("network_", network)):
            outputs = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
            record[f"{prefix}{self.name}_loss"] = loss.mean(outputs, y)
            correct = loss.correct(outputs, y)
            if correct is not None:
                finite = jnp.all(jnp.isfinite(outputs), axis=tuple(range(1, outputs.ndim)))
                record[f"{prefix}{self.name}_accuracy"] = jnp.mean(jnp.where(finite, correct, 0), dtype=outputs.dtype)
            if self.measure is not None:
                value = jnp.asarray(self.measure(outputs, y), outputs.dtype)
                record[f"{prefix}{self.name}_measure"] = jnp.where(jnp.all(jnp.isfinite(outputs)), value, jnp.nan)
        return record, state
