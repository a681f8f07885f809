"""A small module with batch statistics, tied weights and dropout, and the loops that train it."""

import jax
import moving
import numpy as np
import optax
import torch
from torch import nn

import relin as il
from relin.torch import Linearised

KEY = jax.random.key(0)
_DRAW = np.random.default_rng(0)
BATCHES = [(_DRAW.normal(size=(16, 8)), _DRAW.integers(0, 3, 16)) for _ in range(13)]


class Small(nn.Module):
    """Batch normalisation, tied weights, and dropout where it is asked for."""

    def __init__(self, p=0.0):
        super().__init__()
        self.hidden, self.norm = nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.hidden.weight
        self.dropout, self.readout, self.note = nn.Dropout(p), nn.Linear(8, 3), "its own"

    def forward(self, x):
        return self.readout(self.dropout(torch.tanh(self.again(torch.tanh(self.norm(self.hidden(x)))))))


def made(kind=Small, *arguments):
    return moving.made(kind, *arguments)


def tensors(batch):
    x, y = batch
    return torch.from_numpy(np.asarray(x)), torch.from_numpy(np.asarray(y))


OPTIMISERS = {
    "momentum": (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), optax.sgd(0.1, momentum=0.9)),
    "decay": (lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3), optax.adamw(0.01, weight_decay=0.3)),
}


def trained(model, optimiser="momentum", batches=BATCHES):
    """An ordinary loop; a linearised module has its one more line."""
    optimizer = OPTIMISERS[optimiser][0](model.parameters())
    for batch in batches:
        x, y = tensors(batch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        if isinstance(model, Linearised):
            model.step()
    return model


def by_relin(module, schedule, optimiser="momentum", batches=BATCHES):
    apply, params = il.from_torch(module, statistics="batch")
    solver = il.WeightSpace(OPTIMISERS[optimiser][1])
    problem = il.Problem(apply, il.CrossEntropy())
    solution = il.train(problem, solver, schedule, params, batches, num_steps=len(batches), key=KEY)
    return solution, apply.with_variables(solution.variables).state_dict(solution.params)


def assert_states_close(mine, other, rtol=1e-9, atol=1e-11):
    assert list(mine) == list(other)
    for name, tensor in other.items():
        np.testing.assert_allclose(mine[name], tensor, rtol=rtol, atol=atol, err_msg=name)
