"""What is killed: how it is started, what it keeps on the way, and what it makes."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from relin._core.storage import from_safetensors

Kept = dict[str, str]
"""By name, something that no kill may remove or change."""


class Subject(NamedTuple):
    name: str
    command: Callable[[Path], list[str]]
    kept: Callable[[Path], Kept]
    outcome: Callable[[Path], Kept]


def _digests(paths: list[Path]) -> Kept:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _packs(folder: Path) -> Kept:
    return _digests(sorted((folder / "packs").glob("*.parquet")))


def _worker(what: str) -> Callable[[Path], list[str]]:
    return lambda folder: [sys.executable, str(Path(__file__).with_name("worker.py")), what, str(folder)]


def _steps(folder: Path) -> Kept:
    """How far a run's newest checkpoint is, as all steps before it."""
    newest = max((int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.json")), default=0)
    return {str(step): "" for step in range(newest)}


def _tensors(folder: Path) -> Kept:
    """Of a solution; the order of a file's header is safetensors' own."""
    tensors = from_safetensors(folder / "solution.safetensors")
    return {name: hashlib.sha256(tensor.tobytes()).hexdigest() for name, tensor in tensors.items()}


def _blocks(folder: Path) -> Kept:
    beside = folder / "kernel.npy.json"
    return json.loads(beside.read_bytes())["blocks"] if beside.exists() else {}


def _files(*names: str) -> Callable[[Path], Kept]:
    return lambda folder: _digests([folder / name for name in names])


SUBJECTS = (
    Subject("study", _worker("study"), _packs, _files("records.parquet")),
    Subject("run", _worker("run"), _steps, _tensors),
    Subject("kernel", _worker("kernel"), _blocks, _files("kernel.npy")),
)
