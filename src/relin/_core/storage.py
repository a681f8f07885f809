"""A solution on disk: tensors as safetensors, the rest as JSON. No pickle."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import PyTree

from relin._common.files import BLANK, as_json, from_json, is_damaged, read_file, remove_parts, sealed, write_atomically
from relin._core.errors import Result
from relin._core.network import FROZEN
from relin._core.tree import is_key, numbers
from relin._core.types import Params

TENSORS, SETTINGS = "solution.safetensors", "solution.json"
_FORMAT = 1
_TREES = ("params", "anchor", "displacement")
_OPTIONAL = ("optimiser_state", "variables")


def save(fields: dict[str, Any], folder: str | Path) -> Path:
    """Writes a solution's fields, each file whole or not at all; `solution.json` last: where it is, everything is."""
    folder = Path(folder)
    tensors = {f"records/{name}": np.asarray(column) for name, column in fields["records"].items()}
    for name in (*_TREES, *_OPTIONAL):
        tensors |= tensors_of(fields[name], name)
    settings = {
        "format": _FORMAT,
        "feature_updates": fields["feature_updates"],
        "result": fields["result"].name,
        "diverged_at": fields["diverged_at"],
        "mode": fields["mode"],
        "reason": fields["reason"],
        "final_loss": fields["final_loss"],
        "constant_loss": fields["constant_loss"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    remove_parts(folder)
    write_atomically(folder / TENSORS, to_safetensors(tensors, "relin solution"))
    write_atomically(folder / SETTINGS, as_json(settings))
    return folder


def load(folder: str | Path, params: Params, optimiser_state: Any, variables: Any) -> dict[str, Any]:
    """The fields again, with trees of the structure of `params`, `optimiser_state` and `variables`."""
    folder = Path(folder)
    try:
        settings = from_json(read_file(folder / SETTINGS))
        tensors = from_safetensors(folder / TENSORS)
        known = settings["format"] == _FORMAT
        fields = {
            "feature_updates": int(settings["feature_updates"]),
            "result": Result[settings["result"]],
            "diverged_at": settings["diverged_at"],
            "mode": settings.get("mode", FROZEN),
            "reason": settings.get("reason"),
            "final_loss": settings.get("final_loss"),
            "constant_loss": settings.get("constant_loss"),
        }
    except FileNotFoundError as error:
        missing = TENSORS if error.filename is None else Path(error.filename).name
        raise ValueError(f"{folder} holds no solution (no {missing}); name one that was saved.") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"The solution in {folder} is damaged; restore it, or train again.") from None
    if not known:
        raise ValueError(f"The solution in {folder} has another format; use the version of relin that saved it.")
    try:
        trees = {name: tree_of(tensors, name, params) for name in _TREES}
        for name, like in zip(_OPTIONAL, (optimiser_state, variables), strict=True):
            trees[name] = None if like is None else tree_of(tensors, name, like)
    except MismatchError as error:
        raise ValueError(f"{folder} holds another network's solution: {error}; pass the parameters it had.") from None
    records = {name.removeprefix("records/"): value for name, value in tensors.items() if name.startswith("records/")}
    order = ["step", "feature_updates", "training_loss"]
    names = [name for name in order if name in records] + sorted(records.keys() - set(order))
    return {**fields, **trees, "records": {name: records[name] for name in names}}


def is_storable(kind: np.dtype) -> bool:
    """Whether numbers of a type can be written and read again: NumPy's own and bfloat16, as far as files hold them."""
    if not (kind.isbuiltin == 1 or kind == jnp.bfloat16):  # safetensors writes those of 8 bits, and cannot read them
        return False
    try:
        safetensors.numpy.save({"": np.zeros(0, kind)})
    except safetensors.SafetensorError:
        return False
    return True


def to_safetensors(tensors: dict[str, np.ndarray], kind: str) -> bytes:
    """Tensors by their names, in a file that tells when it is damaged.

    **Raises:** `TypeError` for numbers that could not be read again.
    """
    for name, tensor in tensors.items():
        if not is_storable(tensor.dtype):
            raise TypeError(
                f"{name} holds numbers of the type {tensor.dtype}, which cannot be saved and read again; convert them "
                "to another type first, such as bfloat16, or two real numbers for a complex one."
            )
    return sealed(safetensors.numpy.save(tensors, {"format": kind, **BLANK}))


def from_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file. Raises `OSError`, and `ValueError` if it is damaged."""
    if is_damaged(read_file(path)):
        raise ValueError("its bytes have changed")
    try:
        # NumPy's reader knows no bfloat16.
        with safetensors.safe_open(path, "numpy") as plain, safetensors.safe_open(path, "flax") as low:
            return {
                key: np.asarray(
                    low.get_tensor(key) if plain.get_slice(key).get_dtype() == "BF16" else plain.get_tensor(key)
                )
                for key in plain.keys()  # noqa: SIM118
            }
    except (safetensors.SafetensorError, KeyError):
        raise ValueError("no safetensors file") from None


def tensors_of(tree: PyTree, name: str) -> dict[str, np.ndarray]:
    """Every leaf by its path below a name.

    **Raises:** `ValueError` for an array of which other processes hold a part.
    """
    paths = jax.tree_util.tree_leaves_with_path(tree)
    if parts := [path for path, leaf in paths if not getattr(leaf, "is_fully_addressable", True)]:
        raise ValueError(
            f"What is saved must be whole in this process, got {name}{jax.tree_util.keystr(parts[0])}, of which other "
            "processes hold a part; gather it with jax.experimental.multihost_utils.process_allgather in each process."
        )
    return {f"{name}{jax.tree_util.keystr(path)}": np.asarray(numbers(leaf), order="C") for path, leaf in paths}


class MismatchError(ValueError):
    """A tensor that is missing or has another shape; the message names it, as the middle of a sentence."""


def tree_of(tensors: dict[str, np.ndarray], name: str, like: PyTree) -> PyTree:
    """A tree of the structure of `like`, an array or a shape at every leaf.

    **Raises:** `MismatchError`.
    """
    leaves = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        key = f"{name}{jax.tree_util.keystr(path)}"
        tensor, shape = tensors.get(key), np.shape(numbers(leaf))
        if tensor is None or tensor.shape != shape:
            found = "none" if tensor is None else f"shape {tensor.shape}"
            raise MismatchError(f"{key} must have shape {shape}, got {found}")
        tensor = jnp.asarray(tensor)
        leaves.append(jax.random.wrap_key_data(tensor, impl=jax.random.key_impl(leaf)) if is_key(leaf) else tensor)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
