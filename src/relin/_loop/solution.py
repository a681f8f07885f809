"""What a training run gives back."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from relin._common.extra import needs_extra
from relin._common.showing import notebook
from relin._core import storage as _storage
from relin._core.errors import Result, TrainingError
from relin._core.network import FROZEN
from relin._core.types import Params

_LESS = "; lower the learning rate, re-linearise more often or with relin.WhenError"


@dataclass(frozen=True)
class Solution:
    """The end of a training run.

    **Attributes:**

    - `params`: θ_T, a PyTree; anchor + displacement.
    - `anchor`: θ_s, where the network was last linearised.
    - `displacement`: δ_T = θ_T − θ_s, kept apart so that nothing cancels; with averaging the mean of the last window.
    - `feature_updates`: re-linearisations after step 0.
    - `records`: named columns, one row per record: `step`, `feature_updates`, `training_loss` (mean loss of the batches
      since the last record; not a number at step 0), and what the observers measured.
    - `result`: how the run ended; `interrupted` in an error's `solution`, whose last steps are after its last record.
      `failed_to_train` where `final_loss` is not at least 1 % below `constant_loss`: the run ended no better than a
      predictor that gives every example the same outputs. The loss of an iterable of batches is not compared.
      `stopped` where `stop` ended it.
    - `diverged_at`: the first step whose batch loss was not finite, or `None`.
    - `optimiser_state`: the solver's.
    - `variables`: of the network, after the last forward pass at an anchor: running statistics and the like; `None` for
      a network without. `apply.with_variables(variables)` is that network.
    - `mode`: how the network was trained: `"frozen"`, or with `"batch statistics"`, `"dropout"` or both.
    - `reason`: why the run failed, where that is known: which number of the data, the parameters, the outputs or their
      derivative is not finite, or what the solver says.
    - `final_loss`: mean loss of the batches since the record before the last; where the run has no record on the way,
      of the last tenth of its steps. `None` where nothing was measured but the whole run, or there is no
      `constant_loss`.
    - `constant_loss`: min_c mean ℓ(c, y) over the training targets, as `AbstractLoss.constant_loss` gives it; `None`
      where the loss does not say, or all targets are alike.
    - `reached`: what `train(…, resume=solution)` goes on from; it is not saved.
    """

    params: Params
    anchor: Params
    displacement: Params
    feature_updates: int
    records: dict[str, np.ndarray]
    result: Result
    diverged_at: int | None
    optimiser_state: Any
    variables: Any = None
    mode: str = FROZEN
    reason: str | None = None
    final_loss: float | None = None
    constant_loss: float | None = None
    reached: Any = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        last = {name: column[-1].item() for name, column in self.records.items()}
        why = ""
        if self.result is Result.failed_to_train:
            why = f", final loss={self.final_loss:.4g}, of the best constant predictor={self.constant_loss:.4g}"
        return f"Solution(result={self.result.value!r}{why}, last record={last})"

    def _repr_html_(self) -> str:
        """In a notebook: how the run ended, its first and last record, and its figure."""
        first_and_last = list(dict.fromkeys((0, self._num_records - 1)))[: self._num_records]
        rows = [[column[index].item() for column in self.records.values()] for index in first_and_last]
        return notebook().run_html(self._sentence(), [self.records], list(self.records), rows)

    @property
    def _num_records(self) -> int:
        return len(self.records.get("step", ()))

    def _sentence(self) -> str:
        """How the run ended, for people."""
        why = f", since {self.reason}" if self.reason else ""
        if self.result is Result.failed_to_train:
            losses = f"{self.final_loss:.4g}, is not 1 % below a constant’s, {self.constant_loss:.4g}"
            why = f": its loss at the end, {losses}"
        at = "" if self.diverged_at is None else f" at step {self.diverged_at:,}"
        updates = f"{self.feature_updates:,} feature update{'' if self.feature_updates == 1 else 's'}"
        steps = f"; {updates} up to step {self.records['step'][-1]:,}" if self._num_records else ""
        return f"{self.result.value.capitalize()}{at}{why}{steps}"

    def plot(self, *columns: str) -> Any:
        """The records against the step, as a `matplotlib.figure.Figure`: losses in one panel, accuracies in one, each
        other column in its own. `columns` names those that are drawn, if not all are.

        **Raises:** `ValueError` where there is no record, or no such column.
        """
        return notebook().run_figure([self.records], columns, self._sentence())

    def to_polars(self) -> Any:
        """The records as a `polars.DataFrame`, a row each."""
        return _frame(self.records)

    def to_pandas(self) -> Any:
        """The records as a `pandas.DataFrame`, a row each.

        **Raises:** `ImportError` without pandas, which the extra `pandas` installs.
        """
        return _pandas("Solution.to_pandas", self.records)

    def save(self, folder: str | Path) -> Path:
        """Writes `solution.safetensors` and `solution.json` into a folder, which is made; no pickle. `load` reads them.

        **Raises:** `OSError` where the folder cannot be written, and `TypeError` for types of numbers that could not be
        read again, as those of 8 bits; what was there before is then there still.
        """
        return _storage.save({each.name: getattr(self, each.name) for each in fields(self)}, folder)

    def throw(self) -> "Solution":
        """Raises `TrainingError`, which carries this solution, where the run did not take all its steps. One that took
        them and failed to train is an outcome, and raises nothing."""
        if self.result is Result.diverged:
            why = f", since {self.reason}" if self.reason else _LESS
            raise TrainingError(
                f"Training diverged: the loss of the batch at step {self.diverged_at} is not finite{why}; or pass "
                "throw=False to have it recorded.",
                self,
            )
        if self.result is Result.solver_failed:
            raise TrainingError(f"Training failed: {self.reason}; or pass throw=False to have it recorded.", self)
        if self.result is Result.interrupted:
            raise TrainingError("Training was interrupted; train again, or go on from this error's `solution`.", self)
        if self.result is Result.data_exhausted:
            raise TrainingError(
                f"The iterable of batches ended after {self.records['step'][-1]} steps; pass one that can be iterated "
                "again (a list or a loader, not a generator), fewer steps, or throw=False.",
                self,
            )
        return self


def load(folder: str | Path, params: Params, optimiser_state: Any = None, variables: Any = None) -> Solution:
    """A solution from the folder that `Solution.save` was given.

    **Arguments:**

    - `folder`: that folder.
    - `params`: parameters of the network that was trained, such as its initial ones; their structure and shapes say
      what is read, their values nothing.
    - `optimiser_state`: a state of the solver's, such as `solver.init(params).optimiser`, in the same way; without one
      the solution has none.
    - `variables`: the network's, `apply.variables`, in the same way.

    **Raises:** `ValueError` where there is no solution, it is damaged, or another network's.
    """
    return Solution(**_storage.load(folder, params, optimiser_state, variables))


@dataclass(frozen=True)
class LaneSolutions:
    """The ends of many runs trained together: a sequence of `Solution`.

    **Attributes:**

    - `solutions`: one for each lane, in the order of the lanes; indexing, `len` and iteration are theirs.
    """

    solutions: tuple[Solution, ...]

    def __repr__(self) -> str:
        ends = Counter(solution.result.value for solution in self.solutions)
        return f"LaneSolutions({', '.join(f'{count} {end}' for end, count in ends.items())})"

    def _repr_html_(self) -> str:
        """In a notebook: how the runs ended, the last record of each, and their figure."""
        runs, names = [solution.records for solution in self.solutions], self._names()
        rows = [
            [lane, each.result.value, *(each.records[name][-1].item() if each._num_records else nan for name in names)]
            for lane, each in enumerate(self.solutions)
        ]
        return notebook().run_html(repr(self)[len("LaneSolutions(") : -1], runs, ["lane", "result", *names], rows)

    def plot(self, *columns: str) -> Any:
        """The records of all runs against the step, each column in a panel, as a `matplotlib.figure.Figure`. A run
        without records has no line.

        **Raises:** `ValueError` where no run has a record, or no such column.
        """
        return notebook().run_figure([solution.records for solution in self.solutions], columns)

    def to_polars(self) -> Any:
        """The records of all runs as a `polars.DataFrame`, whose first column, `lane`, says which run's a row is. A run
        without records has no row."""
        return _frame(self._columns())

    def to_pandas(self) -> Any:
        """The same as a `pandas.DataFrame`.

        **Raises:** `ImportError` without pandas, which the extra `pandas` installs.
        """
        return _pandas("LaneSolutions.to_pandas", self._columns())

    def _columns(self) -> dict[str, np.ndarray]:
        lanes = np.repeat(np.arange(len(self)), [each._num_records for each in self.solutions])
        runs = [each.records for each in self.solutions if each._num_records]
        return {"lane": lanes} | {name: np.concatenate([run[name] for run in runs]) for name in self._names()}

    def _names(self) -> list[str]:
        """Columns of the records."""
        return list(next((each.records for each in self.solutions if each._num_records), {}))

    def __len__(self) -> int:
        return len(self.solutions)

    def __getitem__(self, lane: int) -> Solution:
        return self.solutions[lane]

    def __iter__(self) -> Iterator[Solution]:
        return iter(self.solutions)


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of scalars as named columns: the loop's own first, then the observers' by name, for every drive."""
    first = rows[0] if rows else {}
    own = [name for name in ("step", "feature_updates", "training_loss") if name in first]
    names = own + sorted(first.keys() - set(own))
    return {name: np.asarray([row[name] for row in rows]) for name in names}


def _frame(records: Mapping[str, np.ndarray]) -> Any:
    import polars as pl  # where no table is asked for, none is waited for

    return pl.DataFrame({name: np.asarray(column) for name, column in records.items()})


def _pandas(function: str, records: Mapping[str, np.ndarray]) -> Any:
    with needs_extra(function, "pandas"):
        import pandas as pd
    return pd.DataFrame(dict(records))
