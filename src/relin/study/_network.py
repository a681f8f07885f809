"""The networks of a study's runs: those of `relin.models` by name, built where a run is."""

import abc
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from relin import models
from relin.adapters import from_equinox
from relin.study._named import Lane


class AbstractNetworks(abc.ABC):
    """The network of each seed. Hashable: equal ones are interchangeable, so that a compiled program is found again."""

    @abc.abstractmethod
    def lanes(self, seeds: Sequence[int]) -> dict[str, Any]:
        """What lanes of these seeds hold for `of_lane` beside the seed: a leading axis of lanes."""

    @abc.abstractmethod
    def of_lane(self, lane: Lane) -> tuple[Any, Any]:
        """The network as a function, and its initial parameters; in a compiled program."""

    @abc.abstractmethod
    def of_seed(self, seed: int | jax.Array) -> tuple[Any, Any]:
        """The same for a seed."""

    @abc.abstractmethod
    def shapes(self) -> Any:
        """Shapes and types of the parameters."""


@dataclass(frozen=True)
class NamedNetworks(AbstractNetworks):
    """Those of `relin.models`."""

    name: str
    options: str
    """As JSON."""
    input_shape: tuple[int, ...]
    num_classes: int

    def lanes(self, seeds: Sequence[int]) -> dict[str, Any]:
        del seeds
        return {}

    def of_lane(self, lane: Lane) -> tuple[Any, Any]:
        return self.of_seed(lane["seed"])

    def of_seed(self, seed: int | jax.Array) -> tuple[Any, Any]:
        return self.build(key_of_network(seed))

    def build(self, key: jax.Array) -> tuple[Any, Any]:
        """The same from a key."""
        options = json.loads(self.options)
        module = models.build(self.name, self.input_shape, self.num_classes, key=key, **options)
        return from_equinox(module, **mode_of(self.name, options, key))

    def shapes(self) -> Any:
        return jax.eval_shape(lambda: self.of_seed(0)[1])


def key_of_network(seed: int | jax.Array) -> jax.Array:
    """From which the network of a seed is made."""
    return jax.random.fold_in(jax.random.key(seed), 0)


def mode_of(model: str, options: dict[str, Any], key: jax.Array) -> dict[str, Any]:
    """How a network with these options is trained, as `from_equinox` is told: batch statistics and dropout are on."""
    options = models.options(model) | options
    mode: dict[str, Any] = {}
    if options.get("norm") == "batch":
        mode["statistics"] = "batch"
    if options.get("dropout", 0) > 0:
        mode |= {"dropout": True, "key": jax.random.fold_in(key, 2)}
    return mode
