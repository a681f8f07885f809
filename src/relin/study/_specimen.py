"""What a study is of: its data and its networks, named ones or the user's own."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from relin import SquaredError, datasets
from relin.datasets._assemble import limited
from relin.datasets._names import is_known
from relin.models._names import OPTIONS
from relin.study import _code
from relin.study._network import AbstractNetworks, NamedNetworks
from relin.study._own_network import OwnNetworks
from relin.study._records import DATA_DIGEST
from relin.study._settings import StudySpec, digest_of_files
from relin.study._store import describe

_MOST_PARAMETERS = 2**31
_NO_SPREAD = 1e-10
"""Of targets, as a part of those of the training set: rounding in single precision leaves as much."""


def data_of(spec: StudySpec, data_dir: str | None = None) -> datasets.Dataset:
    """The data of a study.

    **Raises:** `ValueError` for data that do not exist, do not fit, or are not those that the settings were made for.
    """
    if is_known(spec.data) or not _code.is_code(spec.data):
        _check_same(spec)
        return datasets.load(spec.data, data_dir=data_dir, limit=spec.train_limit)
    data = _code.load(spec.data, spec.digests["data"])
    if callable(data):
        try:
            data = data()
        except Exception as error:
            raise ValueError(
                f"data: {_code.name_of(spec.data)} could not give the data ({type(error).__name__}: {error}); correct "
                "it there."
            ) from error
    dataset = as_dataset(data, spec.data)
    if spec.train_limit is None:
        return dataset
    if spec.train_limit > len(dataset.train.y):
        raise ValueError(f"train_limit: there are {len(dataset.train.y)} training examples, got {spec.train_limit}.")
    return limited(dataset, spec.train_limit, spread=True)


def data_digest(spec: StudySpec, dataset: datasets.Dataset) -> dict[str, str]:
    """A column for the records of data that a function gave, of which the settings know the function's text alone."""
    if "data" not in spec.digests or is_known(spec.data):
        return {}
    return {DATA_DIGEST: datasets.identity(dataset)["sha256"]}


def _check_same(spec: StudySpec) -> None:
    """Raises `ValueError` for files of data that have changed since the settings were made."""
    if spec.digests.get("data") != digest_of_files(spec.data):
        raise ValueError(
            f"data: the files of {spec.data} have changed since the study began; restore them, or begin a new study."
        )


def as_dataset(data: Any, name: str) -> datasets.Dataset:
    """What a function of the user's own gave, as a data set."""
    if isinstance(data, datasets.Dataset):
        return data
    if isinstance(data, dict):
        return datasets.from_arrays(**data, name=name)
    parts = tuple(data) if isinstance(data, tuple | list) else ()
    if len(parts) not in (2, 3):
        raise ValueError(
            f"data: {_code.name_of(name)} must give a pair (x, y), three pairs (train, validation, test) or a "
            f"relin.datasets.Dataset, got {type(data).__name__}{f' of {len(parts)}' if parts else ''}."
        )
    return datasets.from_arrays(parts, name=name) if len(parts) == 2 else datasets.from_arrays(*parts, name=name)


def constant_error(data: datasets.Dataset, targets: Any, part: str) -> float:
    """The squared error, of the targets of a part, of the constant predictor: values alone have one.

    **Raises:** `ValueError` for targets that are all the mean of the training set's.
    """
    y, loss = jnp.asarray(data.train.y), SquaredError()

    def error(targets: Any) -> float:
        return float(loss.mean(jnp.broadcast_to(y.mean(0), targets.shape), jnp.asarray(targets)))

    if error(targets) <= _NO_SPREAD * error(y):
        raise ValueError(
            f"data: every target of the {part} part of {data.name} is the mean of the training set's, so that no "
            "predictor is better than a constant; choose other examples."
        )
    return error(targets)


def networks_of(spec: StudySpec, data: datasets.Dataset, batch_size: int) -> AbstractNetworks:
    """The networks of a study on its data, which see so many training examples a step."""
    options = describe(spec.model_options)
    if spec.model in OPTIONS:
        return NamedNetworks(spec.model, options, data.input_shape, data.num_classes)
    example = jax.tree.map(lambda part: part[:batch_size], data.train.x)
    return OwnNetworks(spec.model, spec.digests["model"], options, example)


def check_size(shapes: Any) -> None:
    """Raises `ValueError` for the shapes of the parameters of a network that is too large."""
    number = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if number > _MOST_PARAMETERS:
        raise ValueError(
            f"model_options: the network would have {number:,} parameters, and at most {_MOST_PARAMETERS:,} can be "
            "trained; choose a smaller one."
        )
