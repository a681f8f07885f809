"""Folders written by `save_to_disk` of Hugging Face's library `datasets`, read without it."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from relin._common.files import open_file, read_file
from relin._common.words import listed
from relin.datasets._array_files import PARTS
from relin.datasets._assemble import Content
from relin.datasets._errors import DatasetError
from relin.datasets._frame import content

_SAVED = "name the folder that save_to_disk wrote"


def read_folder(folder: Path, target: str | None) -> Content:
    """The parts of a saved dataset: those named train, validation (val, valid, dev) and test of several.

    **Raises:** `DatasetError` for a folder that holds none or is damaged, and as `_frame.content` does.
    """
    splits, left_out = _splits(folder)
    frames = {part: _frame(place) for part, place in splits.items()}
    note = f" ({listed(left_out)} left out.)" if left_out else ""
    found = content(frames, target, str(folder), note)
    chosen = target or next(name for name in ("label", "labels") if name in frames["train"].columns)
    return found._replace(names=_class_names(splits["train"], chosen))


def stored_files(folder: Path) -> list[Path]:
    """The files that hold the data: not what the library caches beside them."""
    splits, _ = _splits(folder)
    return [path for place in splits.values() for path in (place / "dataset_info.json", *_data_files(place))]


def _splits(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The folder of each part, and the splits that are none."""
    if (folder / "state.json").is_file():
        return {"train": folder}, []
    if not (folder / "dataset_dict.json").is_file():
        fault = "has no state.json and no dataset_dict.json" if folder.is_dir() else "is not a folder"
        raise DatasetError(f"{folder} {fault}; {_SAVED}.")
    names = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_plain(name) for name in names):
        raise DatasetError(f"{folder / 'dataset_dict.json'} names no splits; save the dataset again.")
    found: dict[str, Path] = {}
    for part, spellings in PARTS.items():
        there = [name for name in names if name.lower() in spellings]
        if len(there) > 1:
            raise DatasetError(f"{folder} has two splits for one use, {listed(there)}; rename or drop one.")
        found.update((part, folder / name) for name in there)
    if "train" not in found:
        raise DatasetError(f"{folder} has no split named train, got {listed(names)}; rename one.")
    used = {place.name for place in found.values()}
    return found, [name for name in names if name not in used]


def _is_plain(name: str) -> bool:
    return bool(name) and Path(name).name == name


def _data_files(folder: Path) -> list[Path]:
    state = _json(folder / "state.json")
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries or [] if isinstance(entry, dict)]
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DatasetError(f"{folder} chooses rows by a file of indices; save it again with a newer save_to_disk.")
    plain = [name for name in names if isinstance(name, str) and _is_plain(name)]
    if not plain or len(plain) != len(entries or []):
        raise DatasetError(f"{folder / 'state.json'} names no files of data; save the dataset again.")
    return [folder / name for name in plain]


def _frame(folder: Path) -> pl.DataFrame:
    frames = []
    for path in _data_files(folder):
        try:
            with open_file(path) as file:
                frames.append(pl.read_ipc_stream(file))
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror or error}); save the dataset again.") from None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
            reason = " ".join(str(error).split("\n")[0].split())
            raise DatasetError(f"{path} is no readable Arrow file ({reason}); save the dataset again.") from None
    try:
        return pl.concat(frames)
    except pl.exceptions.PolarsError:
        raise DatasetError(f"{folder} has files with different columns; save the dataset again.") from None


def _class_names(folder: Path, target: str) -> tuple[str, ...] | None:
    """The names that integers of the target stand for."""
    path = folder / "dataset_info.json"
    features = _json(path).get("features") if path.is_file() else None
    feature = features.get(target) if isinstance(features, dict) else None
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_file(path))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); {_SAVED}.") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is no JSON object, so it is damaged; save the dataset again.")
    return found
