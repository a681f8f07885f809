"""Records in MLflow."""

import time
from collections.abc import Mapping

import numpy as np

from relin._common.extra import needs_extra
from relin._logger._base import AbstractLogger, numbers


class MLflow(AbstractLogger):
    """Metrics of an MLflow run, of each lane's own in `train_lanes`; the extra `mlflow`.

    Finite scalars, and those in short vectors; what is not a number is left out. `close` ends the runs.

    **Arguments:**

    - `experiment`: its name; it is made if there is none.
    - `run_name`: of the run; a lane's has its number behind it.
    - `tracking_uri`: where MLflow keeps them, such as `"sqlite:///mlflow.db"`; by default as MLflow is set up.
    - `params`: what to keep with every run, such as the learning rate.

    **Raises:** `ImportError` without MLflow, and what MLflow raises where the experiment cannot be reached. A run that
    goes on and whose MLflow run cannot be reached is not logged, with a warning, and shown again by the next process.
    """

    def __init__(
        self,
        experiment: str = "relin",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        params: Mapping[str, object] | None = None,
    ):
        with needs_extra("MLflow", "mlflow"):
            from mlflow import MlflowClient
            from mlflow.entities import Metric
            from mlflow.exceptions import MlflowException
        self._client, self._metric, self._error = MlflowClient(tracking_uri), Metric, MlflowException
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run_name, self._params = run_name, dict(params or {})
        self._runs: dict[int | None, str] = {}

    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        if lane not in self._runs:
            self._runs[lane] = self._begin(lane)
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, step) for name, value in numbers(values).items()]
        self._client.log_batch(self._runs[lane], metrics)

    def handle(self, lane: int | None = None) -> str | None:
        return self._runs.get(lane)

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        if lane in self._runs:
            return self._runs[lane] == handle
        try:
            run = self._client.get_run(handle).info
        except self._error as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise  # a new run beside it would get every record again
        if run.experiment_id != self._experiment or run.lifecycle_stage != "active":
            return False
        self._client.update_run(handle, status="RUNNING")
        self._runs[lane] = handle
        return True

    def close(self) -> None:
        while self._runs:
            self._client.set_terminated(self._runs.popitem()[1])

    def _begin(self, lane: int | None) -> str:
        name = self._run_name if lane is None else f"{self._run_name or 'lane'}-{lane}"
        run = self._client.create_run(self._experiment, run_name=name).info.run_id
        for key, value in self._params.items():
            self._client.log_param(run, key, value)
        return run
