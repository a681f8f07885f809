"""What the runs of a study are judged by, as they are trained: accuracy, R² of values, or a measure of one's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import relin as il
from relin._core import constant
from relin.study._measure import Measure
from relin.study._measured import CONSTANTS, told_of
from relin.study._scale import R_SQUARED
from relin.study._specimen import constant_error

Part = tuple[Any, jax.Array]


@final
@dataclass(frozen=True)
class Measuring:
    """What stands in the place of accuracies in the records of runs."""

    constants: Mapping[str, float]
    """By column, what runs that did not train count at."""
    values: Mapping[str, tuple[str, pl.Expr]] = field(default_factory=dict)
    """By the column of an accuracy, the column it is computed from, which need not be there, and how."""
    told: Mapping[str, pl.Expr] = field(default_factory=dict)
    """Columns that say what the values are."""

    @property
    def at_untrained(self) -> dict[str, pl.Expr]:
        """The columns of what runs that did not train count at."""
        return {name: pl.lit(value, pl.Float64) for name, value in self.constants.items()}

    def of(self, records: pl.DataFrame) -> pl.DataFrame:
        """The records of a run with what it is judged by in the place of accuracies."""
        found = {name: value for name, (source, value) in self.values.items() if source in records.columns}
        sources = [source for source, _ in self.values.values() if source.endswith("_measure")]
        return records.with_columns(**self.told, **found).drop(sources, strict=False)


VALUES = Measuring({CONSTANTS[0]: 0.0})
"""Of single runs whose targets are values."""


def accuracy(targets: jax.Array) -> Measuring:
    """Of classes: runs that did not train count at the most frequent class's share of the training set."""
    counts = np.unique_counts(np.asarray(targets)).counts
    return Measuring({CONSTANTS[0]: float(counts.max() / counts.sum())})


def r_squared(dataset: il.datasets.Dataset, parts: Mapping[str, Part]) -> Measuring:
    """R² of every predictor that is measured on a part, in the place of its accuracy, with the loss it is from.

    **Raises:** `ValueError` for a part whose targets are all the mean of the training set's.
    """
    values = dict[str, tuple[str, pl.Expr]]()
    measured: dict[str, tuple[str, ...]] = {part: (part, f"network_{part}") for part in parts}
    measured["test"] += ("frozen_kernel",)  # of `relin.FrozenKernelAccuracy`
    for part, (_, targets) in parts.items():
        error = constant_error(dataset, targets, part)
        for name in measured[part]:
            values[f"{name}_accuracy"] = f"{name}_loss", 1 - pl.col(f"{name}_loss") / error
    return Measuring({CONSTANTS[0]: 0.0}, values=values, told={"measure": pl.lit(R_SQUARED)})


def own(measure: Measure, loss: il.AbstractLoss, targets: jax.Array, outputs: Mapping[str, Part]) -> Measuring:
    """A measure of the user's own.

    **Arguments:**

    - `targets`: of the training part.
    - `outputs`: the untrained network's outputs on each part, with the part's targets.

    **Raises:** `ValueError` unless the function gives one finite number of each part, for the untrained network and for
    the best constant predictor.
    """
    constants = dict[str, float]()
    for column, part in zip(CONSTANTS, ("test", "validation"), strict=True):
        predicted, y = outputs[part]
        where = f"of the {part} part"
        _number(measure, predicted, y, f"the untrained network's outputs {where}", "correct it there")
        constants[column] = _untrained(measure, loss, targets, predicted, y, where)
    columns = [f"{prefix}{part}" for part in outputs for prefix in ("", "network_")]
    values = {f"{name}_accuracy": (f"{name}_measure", pl.col(f"{name}_measure")) for name in columns}
    return Measuring(constants, values, told_of(measure))


def _untrained(
    measure: Measure, loss: il.AbstractLoss, targets: jax.Array, predicted: jax.Array, y: jax.Array, where: str
) -> float:
    if measure.untrained is not None:
        return float(measure.untrained)
    shape = (len(targets), *predicted.shape[1:])
    best = constant.best_outputs(shape, targets, logits=isinstance(loss, il.CrossEntropy))
    if best is None:
        raise ValueError(
            f"measure: runs that did not train count at the {measure.name} of the best constant predictor, which is "
            "not known for these targets; set `untrained` of the measure."
        )
    outputs = jnp.broadcast_to(jnp.asarray(best, predicted.dtype), predicted.shape)
    what = f"the best constant predictor, at which runs that did not train count, {where}"
    return _number(measure, outputs, y, what, "set `untrained` of the measure")


def _number(measure: Measure, outputs: jax.Array, targets: jax.Array, what: str, remedy: str) -> float:
    """The measure of outputs, as it is compiled in runs."""
    name, function = measure.name, measure.function
    shapes = f"outputs {outputs.dtype}{list(outputs.shape)} and targets {targets.dtype}{list(targets.shape)}"
    assert function is not None
    try:
        value = jax.jit(function)(outputs, targets)
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            f"measure: {name} cannot be compiled by JAX ({_first_line(error)}); write it in jax.numpy, or call NumPy "
            "through jax.pure_callback."
        ) from error
    except Exception as error:
        raise ValueError(
            f"measure: {name} fails on {shapes} ({type(error).__name__}: {_first_line(error)}); correct it there."
        ) from error
    kind = f"{value.dtype}{list(value.shape)}" if isinstance(value, jax.Array) else type(value).__name__
    if not isinstance(value, jax.Array) or value.shape != () or jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(f"measure: {name} must give one real number of {shapes}, got {kind}; correct it there.")
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"measure: {name} is {number} of {what}, and must be a finite number; {remedy}.")
    return number


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())


def outputs_of(apply: Callable[[Any, Any], Any], params: Any, x: Any, size: int) -> jax.Array:
    """A network's outputs for all inputs, so many at once; in float32 at least, as `relin.Performance` has them."""
    compiled, length = jax.jit(apply), len(jax.tree.leaves(x)[0])
    pieces = (jax.tree.map(lambda a, i=start: a[i : i + size], x) for start in range(0, length, size))
    outputs = jnp.concatenate([compiled(params, piece) for piece in pieces])
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
