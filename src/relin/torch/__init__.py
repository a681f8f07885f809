"""PyTorch modules that train linearised, in PyTorch itself: no JAX runs here.

`import relin.torch` imports PyTorch, and neither JAX nor Lightning nor transformers.
"""

from typing import TYPE_CHECKING, Any

from relin._common.extra import needs_extra

with needs_extra("torch", "torch"):
    from relin.torch._linearised import Linearised as Linearised

if TYPE_CHECKING:
    from relin.torch._lightning import LightningCallback as LightningCallback
    from relin.torch._transformers import TrainerCallback as TrainerCallback

_CALLBACKS = {"LightningCallback": "_lightning", "TrainerCallback": "_transformers"}
"""Their base classes are other libraries', which are imported at their first use."""


def __getattr__(name: str) -> Any:
    if name not in _CALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_CALLBACKS[name]}"), name)
