"""Linearised modules away from their anchor, and what they should give there."""

import torch
from torch import nn

from relin.torch import Linearised

X = torch.randn(6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def made(kind, *arguments, **options):
    torch.manual_seed(0)
    return kind(*arguments, **options).double()


def moved(model, size=0.1):
    """Its parameters away from the anchor."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
    return model


def off(module, x=X, **options):
    """Linearised at the module's parameters, and moved away from there."""
    model = Linearised(module, **options)
    model(x)
    return moved(model)


def taylor(module, x=X, outputs=lambda y: y, size=1e-6):
    """f + J δ for the δ of `moved`, by a central difference along it."""
    start = [p.detach().clone() for p in module.parameters()]
    moved(module)
    delta = [p.detach() - a for p, a in zip(module.parameters(), start, strict=True)]

    def at(scale):
        with torch.no_grad():
            for p, a, d in zip(module.parameters(), start, delta, strict=True):
                p.copy_(a + scale * d)
            return outputs(module(x))

    value = at(0.0) + (at(size) - at(-size)) / (2 * size)
    at(0.0)
    return value


def gradients(model):
    model.zero_grad()
    torch.tanh(model(X)).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.function = nn.Linear(8, 4), function

    def forward(self, x):
        return self.function(self.first(x))
