"""What cannot be linearised, and schedules that need more than a module, are refused by name."""

import pytest
import torch
from moving import Applied, X, made, off
from torch import nn
from torch.utils.checkpoint import checkpoint

import relin as il
from relin.torch import Linearised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode


class Clipped(torch.autograd.Function):
    """The identity, with a backward pass that is not linear."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.1, 0.1)


@pytest.mark.filterwarnings("ignore:.*two backward passes")
def test_a_backward_pass_that_is_not_linear_is_refused():
    with pytest.raises(ValueError, match="not the transpose"):
        off(made(Applied, Clipped.apply))(X)


def test_second_derivatives_are_refused():
    model = off(made(nn.Sequential, nn.Linear(8, 6), nn.Tanh()))
    for loss in (model(X).square().sum(), model(X).sum()):  # whose gradients depend on f̄, and do not
        with pytest.raises(RuntimeError, match=r"no second derivatives.*create_graph=True"):
            torch.autograd.grad(loss, [*model.parameters()], create_graph=True)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.first, self.reentrant = nn.Linear(8, 8), reentrant

    def forward(self, x):
        return checkpoint(lambda x: torch.tanh(self.first(x)), x + self.first.bias, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:.*two backward passes")
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_refused(reentrant):
    with pytest.raises((RuntimeError, ValueError), match="checkpoint"):
        off(made(Checkpointed, reentrant))(X)


def test_a_call_where_forward_mode_is_off_is_refused():
    """There f̄ would be f at the anchor."""
    for calls_before in (0, 1):
        model = off(made(nn.Sequential, nn.Linear(8, 6), nn.Tanh()))
        for _ in range(calls_before):
            model(X)
        with pytest.raises(ValueError, match=r"inside an autograd\.Function"):
            checkpoint(model, X.clone().requires_grad_(), use_reentrant=True)


class Clamping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 3)

    def forward(self, x):
        with torch.no_grad():
            self.first.weight.clamp_(-1, 1)
        return self.first(x)


class ClampingData(Clamping):
    def forward(self, x):
        self.first.weight.data.clamp_(-1, 1)
        return self.first(x)


class Halved(il.WhenError):
    def measure(self, context):
        return super().measure(context) / 2


class Lossy(il.AbstractSchedule):
    @property
    def adaptive(self):
        return True

    def due(self, step):
        return True


def test_what_cannot_be_linearised_is_refused():
    for clamping in (Clamping, ClampingData):
        with pytest.raises(ValueError, match="leave its parameters to training"):
            off(made(clamping))(X)
    with pytest.raises(ValueError, match="sparse=True"):
        off(made(nn.Embedding, 6, 4, sparse=True), torch.tensor([0, 1]))(torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="call the module once"):
        Linearised(nn.LazyLinear(3))
    with pytest.raises(TypeError, match=r"got a Linearised one; pass its merged\(\)"):
        Linearised(Linearised(nn.Linear(3, 3)))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        Linearised(lambda x: x)
    with pytest.raises(TypeError, match="real and imaginary"):
        Linearised(nn.Linear(3, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match="DistributedDataParallel"):
        Linearised(nn.Linear(3, 3))._replicate_for_data_parallel()
    with pytest.raises(TypeError, match="of TorchScript"):
        Linearised(nn.Sequential(torch.jit.script(nn.Linear(3, 3))))
    hooked = nn.Linear(3, 3)
    hooked.register_full_backward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hook on its gradient"):
        Linearised(hooked)
    with pytest.raises(ValueError, match='must be "auto"'):
        Linearised(nn.Linear(3, 3), derivative="reverse")


def test_schedules_that_need_more_are_refused():
    module = nn.Linear(3, 3)
    with pytest.raises(TypeError, match="must be one of relin's"):
        Linearised(module, 64)
    with pytest.raises(ValueError, match="got PerParameter"):
        Linearised(module, il.PerParameter({"*": il.Every(2)}))
    with pytest.raises(ValueError, match="got WhenLossGap"):
        Linearised(module, il.Until(il.WhenLossGap(0.1), 50))
    with pytest.raises(ValueError, match="got Lossy"):
        Linearised(module, Lossy())
    with pytest.raises(ValueError, match="got Halved"):
        Linearised(module, il.After(Halved(0.1), 5))
