"""Networks whose parts have no forward mode, losses of their own, other outputs: each is right, or refused by name."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import relin as il
from relin.torch import Linearised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode
X = torch.randn(6, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


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


class Clipped(torch.autograd.Function):
    """The identity, with a backward pass that is not linear."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.1, 0.1)


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.function = nn.Linear(8, 4), function

    def forward(self, x):
        return self.function(self.first(x))


KINDS = {
    "fused attention": lambda: Attention(),
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "encoder layer, evaluated": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(),
    "LSTM": lambda: First(nn.LSTM(8, 4, batch_first=True)),
    "GRU": lambda: First(nn.GRU(8, 4, batch_first=True)),
    "RNN": lambda: First(nn.RNN(8, 4, batch_first=True)),
    "parametrised": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4)).eval(),
    "convolution": lambda: nn.Sequential(nn.Conv1d(5, 3, 3), nn.GELU(), nn.MaxPool1d(2), nn.GroupNorm(1, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_is_the_derivative(kind):
    module = made(KINDS[kind])
    expected = taylor(module)
    model = off(module)
    np.testing.assert_allclose(model(X).detach(), expected, rtol=1e-7, atol=1e-8)
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


def gradients(model):
    model.zero_grad()
    torch.tanh(model(X)).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


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


@pytest.mark.parametrize("kind", ["function", "no_grad"])
def test_gradients_that_pass_straight_through_are_the_jacobian(kind):
    """J is then the transpose of the module's own backward pass: the derivative of the identity for the sign, and none
    where gradients are off."""

    def without(x):
        with torch.no_grad():
            stopped = x**3
        return x + stopped

    model = Linearised(made(Applied, StraightThrough.apply if kind == "function" else without))
    model(X)
    at_anchor = model.network(X).detach()
    moved(model)
    with pytest.warns(UserWarning, match="two backward passes"):
        outputs = model(X)
    delta = model.displacement()
    expected = at_anchor + X @ delta["first.weight"].T + delta["first.bias"]
    np.testing.assert_allclose(outputs.detach(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*two backward passes")
def test_a_backward_pass_that_is_not_linear_is_refused():
    with pytest.raises(ValueError, match="not the transpose"):
        off(made(Applied, Clipped.apply))(X)


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


def test_second_derivatives_are_refused():
    model = off(made(nn.Sequential, nn.Linear(8, 6), nn.Tanh()))
    outputs = model(X).square().sum()
    pulled = torch.autograd.grad(outputs, [*model.parameters()], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        sum(g.sum() for g in pulled).backward()


class Losing(nn.Module):
    """Computes its own loss, as Hugging Face's models do."""

    def __init__(self, loss, makes=dict):
        super().__init__()
        self.body, self.loss, self.makes = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), loss, makes

    def forward(self, x, labels=None):
        logits = self.body(x)
        return self.makes(loss=None if labels is None else self.loss(logits, labels), logits=logits)


@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_a_loss_inside_is_the_loss_of_the_linearised_outputs(derivative):
    x, inside, outside = X[:, 0], made(Losing, nn.CrossEntropyLoss()), made(Losing, None)
    inside, outside = (Linearised(module, derivative=derivative) for module in (inside, outside))
    for model in (inside, outside):
        model(x)
        moved(model)
    outputs = inside(x, labels=Y)
    logits = outside(x)["logits"]
    expected = F.cross_entropy(logits, Y)
    assert torch.equal(outputs["logits"], logits)
    assert torch.equal(outputs["loss"], expected)
    outputs["loss"].backward()
    expected.backward()
    for mine, other in zip(inside.parameters(), outside.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, other.grad, rtol=1e-12)
    assert inside.linearisation_error(x, labels=Y) == outside.linearisation_error(x) > 0


def by_hand(logits, labels):
    return -logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_a_loss_written_by_hand_is_refused(derivative):
    model = Linearised(made(Losing, by_hand), derivative=derivative)
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


def test_outputs_that_hide_tensors_are_refused():
    with pytest.raises(TypeError, match="got Cache"):
        off(made(Several, Cache))(X)


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


@pytest.mark.slow
def test_compiled_parts_run_as_they_are_written():
    inner = made(nn.Sequential, nn.Linear(8, 6), nn.Tanh())
    expected = taylor(inner)
    model = off(torch.compile(inner, backend="aot_eager"))
    np.testing.assert_allclose(model(X).detach(), expected, rtol=1e-7, atol=1e-8)


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


class Clamping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 3)

    def forward(self, x):
        with torch.no_grad():
            self.first.weight.clamp_(-1, 1)
        return self.first(x)


class Lossy(il.AbstractSchedule):
    @property
    def adaptive(self):
        return True

    def due(self, step):
        return True


def test_what_cannot_be_linearised_is_refused():
    with pytest.raises(ValueError, match="leave its parameters to training"):
        off(made(Clamping))(X)
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
