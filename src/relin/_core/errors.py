"""Failures that carry what was computed before them."""

import enum
from typing import Any


class Result(enum.Enum):
    """How a training run ended.

    **Attributes:**

    - `successful`: it took all its steps, and its loss at the end is below that of the best constant predictor, or is
      not judged.
    - `failed_to_train`: it took all its steps, and its loss is not at least 1 % below that of the best constant
      predictor.
    - `stopped`: `stop` ended it.
    - `diverged`: the loss of a batch was not finite.
    - `solver_failed`: it took all its steps, and the solver says that one of them failed; `Solution.reason` has its
      words.
    - `data_exhausted`: the iterable of batches ended before the last step.
    - `interrupted`: Ctrl-C, or an error in an observer, `progress` or the batches.
    """

    successful = "successful"
    failed_to_train = "failed to train"
    stopped = "stopped early"
    diverged = "diverged"
    solver_failed = "solver failed"
    data_exhausted = "data exhausted"
    interrupted = "interrupted"


class TrainingError(RuntimeError):
    """A run that did not reach its last step; `solution` holds everything computed until then.

    **Arguments:**

    - `message`: what happened, and what to do.
    - `solution`: a `Solution`, or `LaneSolutions`.
    """

    def __init__(self, message: str, solution: Any):
        super().__init__(message)
        self.solution = solution
