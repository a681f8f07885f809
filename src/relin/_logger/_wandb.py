"""Records in Weights & Biases."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from relin._common.extra import needs_extra
from relin._logger._base import AbstractLogger, numbers


class WeightsAndBiases(AbstractLogger):
    """The history of a Weights & Biases run, of each lane's own in `train_lanes`; the extra `wandb`.

    Finite scalars, and those in short vectors.

    **Arguments:** those of `wandb.init`, such as `project`, `name`, `config`, `dir` and `mode="offline"`; a lane's name
    has its number behind it.

    **Raises:** `ImportError` without wandb, and at the first record what `wandb.init` raises.
    """

    def __init__(self, **init: Any):
        with needs_extra("WeightsAndBiases", "wandb"):
            import wandb
        self._start = wandb.init
        self._init: dict[str, Any] = {"project": "relin", "reinit": "create_new"} | init
        self._runs: dict[int | None, Any] = {}
        self._earlier: dict[int | None, dict[str, Any]] = {}

    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        if lane not in self._runs:
            named: dict[str, Any] = {} if lane is None else {"name": f"{self._init.get('name', 'lane')}-{lane}"}
            self._runs[lane] = self._start(**(self._init | named | self._earlier.get(lane, {})))
        if lane not in self._earlier or step >= self._runs[lane].starting_step:
            self._runs[lane].log(numbers(values), step=step)

    def handle(self, lane: int | None = None) -> str | None:
        return self._runs[lane].id if lane in self._runs else None

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        """Another process is shown all records again, under the same id. Those that the server holds are left out;
        offline the new file has all, since that of a killed process may lack some."""
        if lane in self._runs:
            return self._runs[lane].id == handle
        self._earlier[lane] = {"id": handle, "resume": "allow"}
        return False

    def close(self) -> None:
        while self._runs:
            self._runs.popitem()[1].finish()
