"""PyTorch's recurrent layers in JAX: PyTorch's values and gradients, by a scan whose program does not grow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import relin as il

KINDS = {
    "LSTM": lambda: nn.LSTM(5, 4, num_layers=2, bidirectional=True, batch_first=True),
    "LSTM, projected, no biases": lambda: nn.LSTM(5, 4, num_layers=2, bidirectional=True, proj_size=2, bias=False),
    "GRU": lambda: nn.GRU(5, 4, num_layers=2, bidirectional=True),
    "RNN": lambda: nn.RNN(5, 4, batch_first=True, bias=False),
    "RNN, ReLU": lambda: nn.RNN(5, 4, num_layers=2, nonlinearity="relu"),
}


class Whole(nn.Module):
    """All outputs and last states, and states to begin with that are not zero."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        count = layer.num_layers * (1 + layer.bidirectional)
        widths = (layer.proj_size or layer.hidden_size, layer.hidden_size)
        self.states = nn.ParameterList([nn.Parameter(torch.randn(count, 1, width)) for width in widths])

    def forward(self, x):
        batch = x.shape[0] if self.layer.batch_first else x.shape[1]
        states = tuple(state.expand(-1, batch, -1).contiguous() for state in self.states)
        outputs, last = self.layer(x, states if isinstance(self.layer, nn.LSTM) else states[0])
        return torch.cat([t.flatten() for t in (outputs, *(last if isinstance(last, tuple) else (last,)))])


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_pytorchs(kind):
    torch.manual_seed(0)
    module = Whole(KINDS[kind]()).double().eval()
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    apply, params = il.from_torch(module)
    loss, gradients = jax.jit(jax.value_and_grad(lambda p: (apply(p, jnp.asarray(x.numpy())) ** 2).sum()))(params)
    expected = (module(x) ** 2).sum()
    expected.backward()
    np.testing.assert_allclose(float(loss), expected.item(), rtol=1e-12)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            np.testing.assert_allclose(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12)


def test_the_program_does_not_grow_with_the_sequence():
    apply, params = il.from_torch(nn.LSTM(5, 4).eval(), output=0)
    lengths = [
        len(str(jax.make_jaxpr(apply)(params, jnp.zeros((length, 2, 5), jnp.float32))).splitlines())
        for length in (4, 40)
    ]
    assert lengths[0] == lengths[1]


def test_half_precision_stays():
    torch.manual_seed(0)
    x, half = torch.randn(6, 2, 5), nn.LSTM(5, 4).bfloat16().eval()
    apply, params = il.from_torch(half, output=0)
    outputs = apply(params, jnp.asarray(x.numpy(), jnp.bfloat16))
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.astype(jnp.float32), half(x.bfloat16())[0].detach().float(), atol=0.02)


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(5, 4)

    def forward(self, x):
        return self.layer(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4])))[1][0]


def test_packed_sequences_are_refused_by_name():
    apply, params = il.from_torch(Packed().eval())
    with pytest.raises(ValueError, match="_pack_padded_sequence"):
        apply(params, jnp.zeros((6, 2, 5), jnp.float32))


class FromZero(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(5, 4)

    def forward(self, x):
        return self.layer(x, torch.zeros(1, 2, 4))[0]


def test_states_that_are_made_on_the_cpu_are_refused():
    apply, params = il.from_torch(FromZero().eval())
    with pytest.raises(ValueError, match="not at the same device"):
        apply(params, jnp.zeros((6, 2, 5), jnp.float32))


def test_dropout_between_layers_draws_from_the_key():
    module = nn.LSTM(5, 4, num_layers=2, dropout=0.5)
    apply, params = il.from_torch(module, dropout=True, key=jax.random.key(0), output=0)
    x, y = np.ones((6, 3, 5), np.float32), np.zeros((6, 3, 4), np.float32)
    problem, solver = il.Problem(apply, il.SquaredError()), il.WeightSpace(optax.sgd(0.1))
    with_dropout = il.train(problem, solver, il.Every(2), params, (x, y), num_steps=4, key=jax.random.key(1)).params
    problem = il.Problem(il.from_torch(module.eval(), output=0)[0], il.SquaredError())
    without = il.train(problem, solver, il.Every(2), params, (x, y), num_steps=4, key=jax.random.key(1)).params
    assert all(np.isfinite(value).all() for value in with_dropout.values())
    assert np.abs(with_dropout["weight_ih_l1"] - without["weight_ih_l1"]).max() > 1e-4
