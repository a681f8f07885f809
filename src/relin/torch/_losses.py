"""Losses that a module computes itself: the loss is of the linearised outputs, and is no part of what is linearised."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relin.torch._outputs import mapped, tensors_of

_FUNCTIONS = frozenset(
    getattr(F, name)
    for name in (
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "cosine_embedding_loss",
        "cross_entropy",
        "ctc_loss",
        "gaussian_nll_loss",
        "hinge_embedding_loss",
        "huber_loss",
        "kl_div",
        "l1_loss",
        "margin_ranking_loss",
        "mse_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
        "nll_loss",
        "poisson_nll_loss",
        "smooth_l1_loss",
        "soft_margin_loss",
        "triplet_margin_loss",
        "triplet_margin_with_distance_loss",
    )
)

# What runs by kernels without a forward mode, unless it is told otherwise.
_ATTENTION = frozenset((F.scaled_dot_product_attention, F.multi_head_attention_forward))
_RECURRENT = frozenset((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu))
_DATA: Any = vars(torch._C.TensorBase)["data"].__get__
_TREATED = _FUNCTIONS | _ATTENTION | _RECURRENT | {_DATA}


class Gate:
    """Where losses begin: derivatives pass to what they are of, unless it is shut."""

    is_shut = False

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Derivatives of what depends on losses leave these out, as J does."""
        before, self.is_shut = self.is_shut, True
        try:
            yield
        finally:
            self.is_shut = before


class _Passing(torch.autograd.Function):
    """The identity, with a derivative where the gate is open."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gate: Gate) -> Tensor:
        ctx.gate = gate
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (None if ctx.gate.is_shut else gradients[0]), None


class Losses(TorchFunctionMode):
    """While it is on, PyTorch's loss functions take the linearised values of their inputs.

    ℓ is a nonlinear function of the outputs f̄, so that ∂ℓ/∂f is taken at f̄: a module that returns ℓ(f, y) is trained
    on ℓ(f̄, y), as it would be if the loss stood outside. Attention and recurrent layers take their differentiable
    routes, and nothing takes PyTorch's fast path of evaluation, which a mode turns off.
    """

    def __init__(self, value: Callable[[Tensor], Tensor], gate: Gate):
        super().__init__()
        self._value, self._gate = value, gate
        self.num_bytes = 0
        """About the size of what the module computed on the way."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _TREATED:
            result = func(*args, **kwargs)
            if type(result) is Tensor:
                self.num_bytes += result.numel() * result.element_size()
            return result
        if func == _DATA:  # the same constant, of which changes in place are seen
            return args[0].detach()
        if func in _ATTENTION:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                return func(*args, **kwargs)
        if func in _RECURRENT:
            with _without_mkldnn(), torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        args, kwargs = mapped(self._input, (args, kwargs))
        return func(*args, **kwargs)

    def check(self, outputs: Any, is_linearised: Callable[[Tensor], bool]) -> None:
        """Raises `ValueError` for a number among the outputs that is not made of losses alone."""
        if any(tensor.ndim == 0 and is_linearised(tensor) for tensor in tensors_of(outputs)):
            raise ValueError(
                "A linearised module must return the outputs that the loss is of, got one number that is not made of "
                "PyTorch's loss functions alone: its linearisation is no loss; compute it outside, such as a penalty "
                "of the weights, or with torch.nn.functional."
            )

    def _input(self, tensor: Tensor) -> Tensor:
        value = self._value(tensor)
        return _Passing.apply(value, self._gate) if value.requires_grad else value


@contextmanager
def _without_mkldnn() -> Iterator[None]:
    flags = torch.backends.mkldnn.flags(enabled=False)

    def quietly(call: Callable[..., Any], *arguments: Any) -> None:
        with warnings.catch_warnings():  # of other devices, whenever flags are set
            warnings.simplefilter("ignore")
            call(*arguments)

    quietly(flags.__enter__)
    try:
        yield
    finally:
        quietly(flags.__exit__, None, None, None)
