"""What a training run gives back."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

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

    def save(self, folder: str | Path) -> Path:
        """Writes `solution.safetensors` and `solution.json` into a folder, which is made; no pickle. `load` reads them.

        **Raises:** `OSError` where the folder cannot be written; what was there before is then there still.
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
    """The ends of many runs trained together: a sequence of `Solution`."""

    solutions: tuple[Solution, ...]

    def __repr__(self) -> str:
        ends = Counter(solution.result.value for solution in self.solutions)
        return f"LaneSolutions({', '.join(f'{count} {end}' for end, count in ends.items())})"

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
