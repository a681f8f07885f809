"""Records in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from relin._common.extra import needs_extra
from relin._logger._base import AbstractLogger, numbers


class TensorBoard(AbstractLogger):
    """Event files for TensorBoard (`tensorboard --logdir FOLDER`), written by tensorboardX; the extra `tensorboard`.

    Finite scalars, and those in short vectors. In `train_lanes` each lane has a folder of its own, `lane-0`, ….

    **Arguments:**

    - `folder`: where the event files go; it is made.

    **Raises:** `ImportError` without tensorboardX; `OSError` where the folder cannot be written.
    """

    def __init__(self, folder: str | Path):
        with needs_extra("TensorBoard", "tensorboard"):
            import tensorboardX
        self._folder, self._make = Path(folder), tensorboardX.SummaryWriter
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writers: dict[int | None, tensorboardX.SummaryWriter] = {}
        self._again = set[int | None]()

    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        if lane not in self._writers:
            hidden = step if lane in self._again else None
            self._writers[lane] = self._make(str(self._of(lane)), purge_step=hidden)
        for name, value in numbers(values).items():
            self._writers[lane].add_scalar(name, value, step)
        self._writers[lane].flush()

    def handle(self, lane: int | None = None) -> str:
        return str(self._of(lane).absolute())

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        """Another process is shown all records again, and its file tells TensorBoard to hide those of the files before:
        what a killed process had written of its last records is not known."""
        same = handle == self.handle(lane)
        if same and lane not in self._writers:
            self._again.add(lane)
        return same and lane in self._writers

    def _of(self, lane: int | None) -> Path:
        return self._folder if lane is None else self._folder / f"lane-{lane}"

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()
