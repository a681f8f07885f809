"""Outputs of all forms, and losses that a module computes itself: each is linearised, or refused by name."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest
import torch
from moving import Applied, X, gradients, made, moved, off, taylor
from torch import nn
from torch.nn import functional as F  # noqa: N812

from relin.torch import Linearised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode
Y = torch.tensor([0, 1, 2, 0, 1, 2])


class Losing(nn.Module):
    """Computes its own loss, as Hugging Face's models do."""

    def __init__(self, loss, makes=dict):
        super().__init__()
        self.body, self.loss, self.makes = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), loss, makes

    def forward(self, x, labels=None):
        logits = self.body(x)
        return self.makes(loss=None if labels is None else self.loss(logits, labels), logits=logits)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_a_loss_inside_is_the_loss_of_the_linearised_outputs(derivative, reduction):
    x, inside, outside = X[:, 0], made(Losing, nn.CrossEntropyLoss(reduction=reduction)), made(Losing, None)
    inside, outside = (Linearised(module, derivative=derivative) for module in (inside, outside))
    for model in (inside, outside):
        model(x)
        moved(model)
    outputs = inside(x, labels=Y)
    logits = outside(x)["logits"]
    expected = F.cross_entropy(logits, Y, reduction=reduction)
    assert torch.equal(outputs["logits"], logits)
    assert torch.equal(outputs["loss"], expected)
    outputs["loss"].sum().backward()
    expected.sum().backward()
    for mine, other in zip(inside.parameters(), outside.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, other.grad, rtol=1e-12)
    with torch.no_grad():
        assert not inside(x, labels=Y)["loss"].requires_grad
    if reduction == "mean":
        assert inside.linearisation_error(x, labels=Y) == outside.linearisation_error(x) > 0


def by_hand(logits, labels):
    return -logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean()


def penalised(logits, labels):
    return F.cross_entropy(logits, labels) + 0.01 * logits.square().mean()


@pytest.mark.parametrize("loss", [by_hand, penalised])
@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_a_loss_written_by_hand_is_refused(derivative, loss):
    model = Linearised(made(Losing, loss), derivative=derivative)
    model(X[:, 0], labels=Y)  # at the anchor it is ordinary training
    moved(model)
    with pytest.raises(ValueError, match="no loss"):
        model(X[:, 0], labels=Y)


Pair = namedtuple("Pair", "logits others")


@dataclasses.dataclass
class Output:
    loss: object
    logits: object


class Several(nn.Module):
    def __init__(self, makes):
        super().__init__()
        self.one, self.two, self.makes = nn.Linear(8, 3), nn.Linear(8, 2), makes

    def forward(self, x):
        return self.makes(torch.tanh(self.one(x)), torch.exp(self.two(x)))


class Cache:
    def __init__(self, one, two):
        self.layers = {"one": [one], "two": two}


@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
@pytest.mark.parametrize(
    "makes", [lambda a, b: (a, [b]), lambda a, b: {"a": a, "n": 3, "b": b, "k": a.argmax(-1)}, Pair, Output]
)
def test_outputs_of_all_forms_are_linearised_each(makes, derivative):
    both = off(made(Several, makes), derivative=derivative)(X)
    one, two = (taylor(made(Several, lambda a, b, chosen=chosen: (a, b)[chosen])) for chosen in (0, 1))
    tensors = [both.loss, both.logits] if isinstance(both, Output) else torch.utils._pytree.tree_leaves(both)
    floats = [t for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
    for mine, expected in zip(floats, (one, two), strict=True):
        np.testing.assert_allclose(mine.detach(), expected, rtol=1e-7, atol=1e-8)


def test_complex_outputs_are_linearised():
    def module():
        return made(Applied, lambda x: torch.fft.rfft(torch.tanh(x)))

    models = [off(module(), derivative=derivative) for derivative in ("forward", "double_backward")]
    for model in models:
        np.testing.assert_allclose(model(X).detach(), taylor(module()), rtol=1e-7, atol=1e-8)
        assert 0 < model.linearisation_error(X) < 1
    forward, double = (gradients(nn.Sequential(model, Magnitude())) for model in models)
    for name, gradient in forward.items():
        np.testing.assert_allclose(gradient, double[name], rtol=1e-9, atol=1e-11)


def test_a_linearisation_error_of_a_loss_alone_is_refused():
    model = off(
        made(Losing, nn.CrossEntropyLoss(), makes=lambda loss, logits: logits if loss is None else loss), X[:, 0]
    )
    with pytest.raises(ValueError, match="got none but a loss"):
        model.linearisation_error(X[:, 0], labels=Y)


class Magnitude(nn.Module):
    def forward(self, x):
        return x.abs()


def test_outputs_that_hide_tensors_are_refused():
    with pytest.raises(TypeError, match="got Cache"):
        off(made(Several, Cache))(X)
