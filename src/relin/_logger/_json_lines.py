"""Records as JSON, a line each."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from relin._logger._base import AbstractLogger


class JSONLines(AbstractLogger):
    """A file with one JSON object a record: `step`, `lane` in `train_lanes`, and what was measured, arrays as lists.

    Each line is written out before training goes on, so `tail -f` follows it. Numbers that are not finite are `null`,
    which JSON has no others for.

    **Arguments:**

    - `path`: the file; its folder is made.
    - `append`: whether to keep what the file holds, instead of beginning anew. A run that goes on from a checkpoint
      then adds the records that the file does not hold; else it writes all of them anew.

    **Raises:** `OSError` where the file cannot be opened.
    """

    def __init__(self, path: str | Path, append: bool = False):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = str(path.absolute()) + ("" if append else f" {secrets.token_hex(8)}")  # of this object alone
        self._file = path.open("a" if append else "w", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, np.ndarray], lane: int | None = None) -> None:
        record = {"step": step} | ({} if lane is None else {"lane": lane})
        record |= {name: _plain(value.tolist()) for name, value in values.items()}
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def handle(self, lane: int | None = None) -> str:
        return self._handle

    def reopen(self, handle: str, lane: int | None = None) -> bool:
        return handle == self._handle and self._file.tell() > 0

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
