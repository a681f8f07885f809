"""Networks of the user's own: built outside the compiled program, one for each seed, and handed to it as arrays."""

import inspect
import json
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from relin._loop.partition import hashable_combine, hashable_partition
from relin.adapters import from_equinox, from_linen, from_nnx, from_torch
from relin.study import _code
from relin.study._named import Lane
from relin.study._network import AbstractNetworks, key_of_network

Apply = Callable[[Any, Any], Any]


@final
class OwnNetworks(AbstractNetworks):
    """What a build function gives for each seed: `apply(params, x)` and the initial parameters.

    Equal ones are interchangeable: those of the same code with the same options. The function `apply` of the first seed
    serves all; what differs between seeds are arrays, which `lanes` gives and `of_lane` puts back.
    """

    def __init__(self, place: str, digest: str, options: str, example: PyTree):
        """
        **Arguments:**

        - `place`, `digest`: of the build function, see `_code`.
        - `options`: its further keyword arguments, as JSON.
        - `example`: inputs of a batch.
        """
        self.identity = (place, digest, options)
        self._name = _code.name_of(place)
        self._example = example
        self._built = dict[int, list[Any]]()
        self._static: Any = None
        self._structure: Any = None
        self._lock = threading.Lock()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnNetworks) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def lanes(self, seeds: Sequence[int]) -> dict[str, Any]:
        """What the networks of these seeds consist of.

        **Raises:** `ValueError` if the function cannot be called, does not give a network, gives another one for the
        same key, or another architecture for another key.
        """
        return {"network": [jnp.stack(leaves) for leaves in zip(*map(self._of_seed, seeds), strict=True)]}

    def of_lane(self, lane: Lane) -> tuple[Apply, PyTree]:
        return self._network(lane["network"])

    def of_seed(self, seed: int | jax.Array) -> tuple[Apply, PyTree]:
        return self._network(self._of_seed(int(seed)))

    def shapes(self) -> PyTree:
        return jax.eval_shape(lambda params: params, self.of_seed(0)[1])

    def _of_seed(self, seed: int) -> list[Any]:
        with self._lock:
            return self._made(seed)

    def _made(self, seed: int) -> list[Any]:
        if seed not in self._built:
            network = self._build(seed)
            arrays, static = hashable_partition(network)
            leaves = _leaves(arrays)
            if not self._built:
                self._static, self._structure = static, jax.tree.structure(arrays)
                again = _leaves(hashable_partition(self._build(seed))[0])
                self._check_same_architecture(leaves, again, "the same key")
                self._check(_equal(leaves, again), "gives other parameters when it is called again with the same key")
            else:
                self._check_same_architecture(next(iter(self._built.values())), leaves, "another key")
                if static != self._static:  # else it is the same function of the same arrays
                    self._check_apply(network, leaves)
            self._built[seed] = leaves
        return self._built[seed]

    def _network(self, leaves: list[Any]) -> tuple[Apply, PyTree]:
        """The network of the first seed with these arrays."""
        return hashable_combine(jax.tree.unflatten(self._structure, leaves), self._static)

    def _build(self, seed: int) -> tuple[Apply, PyTree]:
        place, digest, options = self.identity
        build = _code.load(place, digest)
        if not callable(build):
            raise ValueError(
                f"network: {self._name} must be a function of a key or a seed, got {type(build).__name__}."
            )
        had_torch = "torch" in sys.modules
        try:
            built = build(_start(build, seed), **json.loads(options))
            if not had_torch and "torch" in sys.modules:  # imported just now, so that its generator had no seed
                built = build(_start(build, seed), **json.loads(options))
        except Exception as error:
            raise ValueError(
                f"network: {self._name} could not build the network of seed {seed} ({type(error).__name__}: {error}); "
                "correct it there."
            ) from error
        return as_network(built, self._name)

    def _check(self, holds: bool, fault: str) -> None:
        if not holds:
            raise ValueError(
                f"network: {self._name} {fault}; a study needs one architecture, whose parameters follow from the key "
                "alone."
            )

    def _check_same_architecture(self, one: list[Any], other: list[Any], key: str) -> None:
        self._check(len(one) == len(other), f"gives {len(other)} arrays for {key}, after {len(one)}")
        for first, second in zip(one, other, strict=True):
            same = (first.shape, first.dtype) == (second.shape, second.dtype)
            found = f"{second.dtype}{list(second.shape)} after {first.dtype}{list(first.shape)}"
            self._check(same, f"gives other shapes for {key}, {found}")

    def _check_apply(self, network: tuple[Apply, PyTree], leaves: list[Any]) -> None:
        """That a network computes the same as the first one's `apply` does with its arrays."""
        own = jax.tree.leaves(network[0](network[1], self._example))
        apply, params = self._network(leaves)
        shared = jax.tree.leaves(apply(params, self._example))
        same = len(own) == len(shared) and all(
            np.allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6, equal_nan=True)
            for a, b in zip(own, shared, strict=True)
        )
        self._check(same, "gives an `apply` that depends on the key beside its parameters; put what is random there")


def as_network(built: Any, name: str) -> tuple[Apply, PyTree]:
    """`apply` and `params` of what a build function returned.

    **Raises:** `ValueError` if it is neither that pair nor a module that an adapter knows, or one that says no mode.
    """
    if isinstance(built, tuple) and len(built) == 2:
        if callable(built[0]) and not _is(built[0], "flax.linen", "Module"):
            return built
        if _is(built[0], "flax.linen", "Module"):
            return from_linen(*built)
    for library, kind, adapter in (("torch.nn", "Module", from_torch), ("flax.nnx", "Module", from_nnx)):
        if _is(built, library, kind):
            return adapter(built)
    if isinstance(built, eqx.Module) and callable(built):
        return from_equinox(built)
    raise ValueError(
        f"network: {name} must return `(apply, params)`, or a module of Equinox, Flax NNX or PyTorch, or a Flax Linen "
        f"module with its variables, got {type(built).__name__}."
    )


def _is(value: Any, library: str, kind: str) -> bool:
    """Whether a value is of a class of a library; that was imported, if the value is of it."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, kind))


def _start(build: Any, seed: int) -> Any:
    """The seed where the function's first argument is called so; the key of the network of this seed otherwise.

    PyTorch's generator begins with the seed too.
    """
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
    try:
        first = next(iter(inspect.signature(build).parameters), "")
    except (TypeError, ValueError):
        first = ""
    return seed if first == "seed" else key_of_network(seed)


def _leaves(arrays: PyTree) -> list[Any]:
    return [leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf) for leaf in jax.tree.leaves(arrays)]


def _equal(one: list[Any], other: list[Any]) -> bool:
    def same(a: Any, b: Any) -> bool:
        a, b = (jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        return bool(jnp.array_equal(a, b, equal_nan=jnp.issubdtype(a.dtype, jnp.inexact)))

    return all(map(same, one, other))
