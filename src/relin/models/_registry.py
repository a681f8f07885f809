"""`build` and `options`: the networks by name."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
from jaxtyping import PRNGKeyArray

from relin._common.words import listed
from relin.models._checks import closest
from relin.models._cnn import CNN
from relin.models._gpt import GPT
from relin.models._lenet import LeNet5
from relin.models._mlp import MLP
from relin.models._resnet import ResNet18
from relin.models._vgg import VGG11
from relin.models._vit import ViT
from relin.models._wide_resnet import WideResNet

_NETWORKS: dict[str, Callable[..., eqx.Module]] = {
    "mlp": MLP,
    "cnn": CNN,
    "lenet5": LeNet5,
    "vgg11": VGG11,
    "resnet18": ResNet18,
    "wide-resnet": WideResNet,
    "vit": ViT,
    "gpt": GPT,
}


def options(name: str) -> dict[str, Any]:
    """The options of a network with their defaults, for example `{"width": 256, "depth": 2, …}`.

    **Raises:** `ValueError` if `name` is none of `names()`.
    """
    parameters = inspect.signature(_network(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def build(name: str, input_shape: Sequence[int], num_classes: int, *, key: PRNGKeyArray, **options: Any) -> eqx.Module:
    """A freshly initialised network.

    **Arguments:**

    - `name`: one of `names()`.
    - `input_shape`: of one example, channels last, without the batch axis.
    - `num_classes`: C, the number of outputs.
    - `key`: of the initial weights; it may be traced, so that `jax.vmap` initialises one network for each
      seed.
    - `**options`: of the network, see `options(name)`.

    **Returns:** a module that maps one example of shape `input_shape` to outputs of shape `(C,)`; with `norm="batch"`
    it is called with a state, and with `dropout` above 0 with a key, see `relin.from_equinox`.

    **Raises:** `ValueError` for an unknown name or option, or an input shape the network does not take.
    """
    network = _network(name)
    known = _options(name)
    for option in options:
        if option not in known:
            raise ValueError(f"{name!r} takes the options {listed(known)}, got `{option}`{closest(option, known)}")
    return network(input_shape, num_classes, key=key, **options)


_options = options  # `build` has an argument of that name


def _network(name: str) -> Callable[..., eqx.Module]:
    if name not in _NETWORKS:
        raise ValueError(
            f"`name` must be one of {listed(map(repr, _NETWORKS))}, got {name!r}{closest(name, _NETWORKS)}"
        )
    return _NETWORKS[name]
