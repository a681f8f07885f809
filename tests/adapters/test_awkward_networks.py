"""Networks of the frameworks that need a rule of their own: they train, or the sentence says what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch import nn

import relin as il

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 4)), jnp.float32)
Y = jnp.arange(6) % 3


class Recurrent(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.body = nnx.RNN(nnx.GRUCell(4, 7, rngs=rngs), rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.body(x)[:, -1])


def test_a_recurrent_network_of_nnx_trains():
    """Its counter of random numbers moves at every call, for a first state of zeros."""
    apply, params = il.from_nnx(Recurrent())
    problem, solver = il.Problem(apply, il.CrossEntropy()), il.WeightSpace(optax.sgd(0.5))
    solution = il.train(problem, solver, il.Every(1), params, (X, Y), num_steps=4, key=jax.random.key(0))
    model = Recurrent()
    optimiser = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(X), Y).mean()

    for _ in range(4):
        optimiser.update(model, nnx.grad(loss)(model))
    own = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for a, b in zip(jax.tree.leaves(solution.params), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


class Noisy(Recurrent):
    def __call__(self, x):
        return super().__call__(x + 0.1 * jax.random.normal(self.body.rngs(), x.shape, x.dtype))


def test_outputs_that_depend_on_a_draw_are_refused():
    apply, params = il.from_nnx(Noisy())
    with pytest.raises(ValueError, match=r"must leave its variables as they are, got one that changes .*count"):
        jax.eval_shape(apply, params, X)


def test_lazy_modules_without_values_are_refused():
    module = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3)).eval()
    with pytest.raises(
        ValueError, match=r"must have values, got 0.weight, .* of a lazy module, .*; call the module once"
    ):
        il.from_torch(module)
    module(torch.zeros(1, 4))
    apply, params = il.from_torch(module)
    assert jax.eval_shape(apply, params, X[:, 0]).shape == (6, 3)


class Reads(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(4, 3), how

    def forward(self, x):
        return self.how(self.linear(x))


@pytest.mark.parametrize(
    "how",
    [
        lambda h: h * h.max().item(),
        lambda h: h * float(h.mean()),
        lambda h: h if h.sum() > 0 else -h,
        lambda h: h[:, : int(h.shape[1] + 0 * h.sum())],
    ],
    ids=["item", "float", "if", "int"],
)
def test_numbers_that_python_reads_are_refused(how):
    apply, params = il.from_torch(nn.Sequential(Reads(how)).eval())
    match = r"one program for all inputs, got 0 \(Reads\), which reads a number .*; compute with the tensor itself"
    with pytest.raises(ValueError, match=match) as error:
        jax.eval_shape(apply, params, X[:, 0])
    assert "\n" not in str(error.value)
    found = il.check(il.Problem(apply, il.CrossEntropy()), params, (X[:, 0], Y))
    assert "torch.where" in found.obstacle


class Copies(nn.Module):
    """As a cache of keys and values does, which torchax cannot run."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        y = torch.zeros_like(self.body(x))
        return y.copy_(self.body(x)[:])


def test_what_torchax_cannot_run_is_told_with_the_way_round():
    apply, params = il.from_torch(Copies())
    with pytest.raises(ValueError, match=r"by torchax, which cannot run Copies .*use relin.torch.Linearised"):
        apply(params, X)


class Output(dict):
    """As Hugging Face's: a dictionary of its own kind."""


class Named(nn.Linear):
    def forward(self, x):
        return Output(logits=super().forward(x))


def test_outputs_that_are_no_tensors_are_refused():
    apply, params = il.from_torch(Named(4, 3))
    with pytest.raises(TypeError, match=r"got Output from Named; .*such as output='logits'"):
        apply(params, X)
    apply, params = il.from_torch(Named(4, 3), output="logits")
    assert apply(params, X).shape == (6, 5, 3)
