"""Networks whose parts have no forward mode: their linearised outputs and gradients are right."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from moving import Applied, X, gradients, made, moved, off, taylor
from torch import nn
from torch.nn import functional as F  # noqa: N812

import relin as il
from relin.torch import Linearised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode


class Attention(nn.Module):
    """PyTorch's fused attention, which has no forward mode."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = (part.unsqueeze(1) for part in self.project(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class First(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


class Square(torch.autograd.Function):
    """x², with a backward pass and no forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class StraightThrough(torch.autograd.Function):
    """The sign, with the derivative of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


KINDS = {
    "fused attention": lambda: Attention(),
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "encoder layer, evaluated": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
    "LSTM": lambda: First(nn.LSTM(8, 4, batch_first=True)),
    "GRU": lambda: First(nn.GRU(8, 4, batch_first=True)),
    "RNN": lambda: First(nn.RNN(8, 4, batch_first=True)),
    "parametrised": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4)).eval(),
    "sparse constants": lambda: Applied(lambda x: torch.tanh(x) * torch.eye(4).double().to_sparse().to_dense().sum(0)),
    "convolution": lambda: nn.Sequential(nn.Conv1d(5, 3, 3), nn.GELU(), nn.MaxPool1d(2), nn.GroupNorm(1, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_is_the_derivative(kind):
    module = made(KINDS[kind])
    expected = taylor(module)
    model = off(module)
    np.testing.assert_allclose(model(X).detach(), expected, rtol=1e-7, atol=1e-8)
    with torch.no_grad():  # where PyTorch has fast paths without a forward mode
        np.testing.assert_allclose(model(X), expected, rtol=1e-7, atol=1e-8)
    assert model.derivatives == {module.training: "forward"}
    forward = gradients(model)
    for name, gradient in gradients(off(made(KINDS[kind]), derivative="double_backward")).items():
        np.testing.assert_allclose(forward[name], gradient, rtol=1e-9, atol=1e-11)


def test_an_lstm_in_single_precision_leaves_its_fused_kernel():
    exact = off(made(KINDS["LSTM"]))(X)
    outputs = off(made(KINDS["LSTM"])).float()(X.float())
    np.testing.assert_allclose(outputs.detach(), exact.detach(), rtol=1e-4, atol=1e-5)


def test_weight_norm_takes_two_backward_passes():
    """PyTorch's weight norm has no forward mode."""

    def module():
        return nn.utils.parametrizations.weight_norm(made(nn.Linear, 8, 4))

    model = off(module())
    with pytest.warns(UserWarning, match="two backward passes"):
        outputs = model(X)
    np.testing.assert_allclose(outputs.detach(), taylor(module()), rtol=1e-7, atol=1e-8)


def test_the_power_iteration_of_spectral_norm_is_no_part_of_the_jacobian():
    """u and v of the batch's pass are constants in the module's gradient, and so in J δ."""
    model = off(nn.utils.parametrizations.spectral_norm(made(nn.Linear, 8, 4)))
    with pytest.warns(UserWarning, match="two backward passes"):
        outputs = model(X)
    u = torch.randn_like(outputs)
    outputs.backward(u)
    at_anchor = model.predictions(X)[2]
    pulled = sum((p.grad * model.displacement()[name]).sum() for name, p in model.named_parameters())
    size = float((outputs.detach() - at_anchor).norm())
    assert abs(float(pulled - (u * (outputs.detach() - at_anchor)).sum())) < 0.05 * size


def test_two_backward_passes_where_a_function_has_no_forward_mode():
    module = made(Applied, Square.apply)
    expected = taylor(module)
    model = Linearised(module)
    model(X)
    moved(model)
    with pytest.warns(UserWarning, match="two backward passes"):
        outputs = model(X)
    np.testing.assert_allclose(outputs.detach(), expected, rtol=1e-8, atol=1e-9)
    assert model.derivatives == {True: "double_backward"}
    with torch.no_grad():
        np.testing.assert_allclose(model(X), expected, rtol=1e-8, atol=1e-9)
    inputs = X.clone().requires_grad_()
    with pytest.raises(ValueError, match="must not require a gradient"):
        model(inputs)
    asked = off(made(Applied, Square.apply), derivative="double_backward")
    assert torch.equal(asked(X), outputs)
    with pytest.raises(ValueError, match="no forward mode"):
        off(made(Applied, Square.apply), derivative="forward")(X)
    with pytest.raises(ValueError, match="no second derivative"):
        off(made(Applied, F.hardsigmoid), derivative="double_backward")(X)


def test_rows_of_padding_are_no_reason_against_forward_mode():
    """PyTorch gives them no gradient, and so they are where they were."""

    def module():
        return nn.Sequential(made(nn.Embedding, 6, 4, padding_idx=0), nn.Flatten(), made(nn.Linear, 12, 2))

    tokens = torch.tensor([[0, 1, 2], [3, 4, 0]])
    models = [Linearised(module(), derivative=derivative) for derivative in ("auto", "double_backward")]
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(tokens).square().sum().backward()
            optimizer.step()
    assert models[0].derivatives == {True: "forward"}
    np.testing.assert_allclose(models[0](tokens).detach(), models[1](tokens).detach(), rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("function", torch.float64), ("no_grad", torch.float64), ("no_grad", torch.bfloat16)]
)
def test_gradients_that_pass_straight_through_are_the_jacobian(kind, dtype):
    """J is then the transpose of the module's own backward pass: the derivative of the identity for the sign, and none
    where gradients are off. That is seen where a warm-up begins too, at δ = 0, and in half precision."""

    def without(x):
        with torch.no_grad():
            stopped = x**3
        return x + stopped

    x, model = X.to(dtype), Linearised(made(Applied, StraightThrough.apply if kind == "function" else without))
    at_anchor = model.to(dtype)(x).detach()
    model.step()
    with pytest.warns(UserWarning, match="two backward passes"):
        model(x)
    outputs = moved(model)(x)
    delta = model.displacement()
    expected = (at_anchor + x @ delta["first.weight"].T + delta["first.bias"]).double()
    tolerance = 1e-9 if dtype == torch.float64 else 0.03
    np.testing.assert_allclose(outputs.detach().double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_what_is_frozen_within_a_window_keeps_its_displacement(derivative):
    def module():
        return made(lambda: nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2)))

    model = off(module(), derivative=derivative)
    model.network[0].requires_grad_(False)
    np.testing.assert_allclose(model(X).detach(), taylor(module()), rtol=1e-7, atol=1e-8)


def test_inputs_may_require_a_gradient():
    """As of a part before the linearised one: the gradient is that of f̄, J δ included."""
    module = made(nn.Sequential, nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))
    model = off(module)
    x = X[:2, 0].clone().requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))
    before = [p.grad for p in model.parameters()]
    assert before == [None] * 4
    torch.tanh(model(x)).sum().backward()
    own = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.tanh(model(x.detach())).sum().backward()
    for mine, other in zip(own, model.parameters(), strict=True):
        np.testing.assert_allclose(mine, other.grad, rtol=1e-10)


COMPILED = """
import numpy as np, torch
from moving import X, made, off, taylor
from torch import nn
inner = made(nn.Sequential, nn.Linear(8, 6), nn.Tanh())
expected = taylor(inner)
model = off(torch.compile(inner, backend="aot_eager"))
np.testing.assert_allclose(model(X).detach(), expected, rtol=1e-7, atol=1e-8)
"""


@pytest.mark.slow
def test_compiled_parts_run_as_they_are_written():
    """In a process of its own: nothing is compiled in one where torchax, which other tests need, was imported."""
    ended = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_autocast_computes_in_half_precision():
    torch.manual_seed(0)
    model = Linearised(nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 3)))
    x = X[:, 0].float()
    model(x)
    moved(model)
    exact = model(x).detach()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(x)
    assert outputs.dtype == torch.bfloat16
    error = (outputs.detach() - exact).abs().max()
    assert 0 < error < 0.05 * exact.abs().max()
    outputs.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_evaluation_under_inference_mode_is_linearised():
    module = made(nn.Sequential, nn.Linear(8, 6), nn.Tanh())
    expected = taylor(module)
    model = off(module)
    with torch.inference_mode():
        np.testing.assert_allclose(model(X.clone()), expected, rtol=1e-7, atol=1e-8)


def test_a_part_of_a_larger_module_saves_and_loads_with_it():
    def whole():
        return nn.ModuleDict({"head": Linearised(made(nn.Sequential, nn.Linear(8, 4), nn.Tanh()), il.Every(9))})

    first, second = whole(), whole()
    first["head"](X)
    moved(first)
    assert list(first.state_dict()) == ["head.0.weight", "head.0.bias"]
    second["head"](X)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second["head"](X), first["head"].network(X))  # linearised anew where it was loaded
