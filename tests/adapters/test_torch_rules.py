"""PyTorch's own rules in a forward pass that torchax runs: where gradients stop, what moves, and what is refused."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import spectral_norm as hooked_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

import relin as il

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(4, 6))
X[0, 0] = 3.0
Y = np.arange(4) % 3


class Net(nn.Module):
    """Two layers and what a test does between them."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("average", torch.ones(6))
        self.count, self.width, self.generator = 0, 0, np.random.default_rng(0)
        self.between = [between]

    def forward(self, x):
        return self.second(self.between[0](self, torch.tanh(self.first(x))))


def made(between, training=False):
    return Net(between).double().train(training)


def traced(module, **how):
    apply, params = il.from_torch(module, **how)
    return jax.eval_shape(apply.forward, params, X)


def under_no_grad(self, h):
    with torch.no_grad():
        scale = torch.exp(h)
    return h * scale


def in_place(self, h):
    h = h * 1
    with torch.no_grad():
        h.mul_(2)
        h[0, 0] = 5.0
    return h


def view_under_no_grad(self, h):
    with torch.no_grad():
        part = h[:, :3]
    return torch.cat([h[:, :3] * part, h[:, 3:]], 1)


def written_to_a_detached_view(self, h):
    h = h * 1
    h.detach()[:, 0].mul_(3)
    return h


def without_a_decorator(self, h):
    return h * frozen(h)


@torch.no_grad()
def frozen(h):
    return h.exp()


STOPPING = {
    "no_grad": under_no_grad,
    "a decorator": without_a_decorator,
    "a view under no_grad": view_under_no_grad,
    "in place under no_grad": in_place,
    "a detached view is shared": written_to_a_detached_view,
    "detach": lambda self, h: h * h.detach(),
    "torch.detach": lambda self, h: h * torch.detach(h),
    "detach of a view": lambda self, h: h * h[:, :6].detach(),
    "detach_": lambda self, h: h * (h * 1).detach_(),
    "data": lambda self, h: h * h.data,
    "data of a view": lambda self, h: h * h[:, :6].data,
    "straight through": lambda self, h: h + (torch.round(h) - h).detach(),
    "reversed": lambda self, h: 2 * h.detach() - h,
    "checkpoint": lambda self, h: checkpoint(torch.exp, h, use_reentrant=False),
    "reentrant checkpoint": lambda self, h: checkpoint(torch.exp, h, use_reentrant=True),
}


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")
@pytest.mark.parametrize("between", STOPPING.values(), ids=STOPPING)
def test_gradients_stop_where_pytorchs_do(between):
    module = made(between)
    apply, params = il.from_torch(module)
    outputs, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(apply(p, X) ** 2)))(params)
    own = (module(torch.from_numpy(X)) ** 2).sum()
    own.backward()
    np.testing.assert_allclose(outputs, own.item(), rtol=1e-10)
    for name, tensor in module.named_parameters():
        np.testing.assert_allclose(gradient[name], tensor.grad, rtol=1e-6, atol=1e-10, err_msg=name)


def test_both_derivatives_agree_where_gradients_stop():
    apply, params = il.from_torch(made(in_place))
    delta = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size * 1.0)).reshape(leaf.shape), params)
    outputs, pullback = jax.vjp(lambda p: apply(p, X), params)
    cotangent = jnp.sin(outputs)
    pushed = jax.jvp(lambda p: apply(p, X), (params,), (delta,))[1]
    (pulled,) = pullback(cotangent)
    np.testing.assert_allclose(
        jnp.vdot(pushed, cotangent), sum(jnp.vdot(pulled[name], delta[name]) for name in delta), rtol=1e-10
    )


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return -g


class WithContext(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return g


@torch.library.custom_op("relin_tests::reversed", mutates_args=())
def reversed_operator(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


reversed_operator.register_autograd(lambda ctx, g: -g)


def with_a_hook(self, h):
    if h.requires_grad:
        h.register_hook(lambda g: -g)
    return h


BACKWARDS = [
    (lambda self, h: Reverse.apply(h), r"got Net, which uses the torch\.autograd\.Function Reverse"),
    (lambda self, h: WithContext.apply(h), r"the torch\.autograd\.Function WithContext.*\.detach\(\) stops gradients"),
    (lambda self, h: reversed_operator(h), r"the operator relin_tests::reversed of its own"),
    (with_a_hook, r"got Net, which uses a hook of a tensor's gradient"),
]


@pytest.mark.parametrize(("between", "match"), BACKWARDS)
def test_another_backward_is_refused_by_name(between, match):
    with pytest.raises(ValueError, match=match) as refusal:
        traced(made(between))
    assert "\n" not in str(refusal.value)
    assert Reverse.apply(torch.ones(2, requires_grad=True)).grad_fn is not None  # PyTorch is as it was


def test_the_place_is_named_and_no_gradient_needs_no_backward():
    module = nn.Sequential(nn.Linear(6, 6), nn.Sequential(made(lambda self, h: Reverse.apply(h)))).double()
    with pytest.raises(ValueError, match=r"got 1\.0 \(Net\), which uses"):
        traced(module)

    def constant(self, h):
        with torch.no_grad():
            return Reverse.apply(h)

    assert traced(made(constant))[0].shape == (4, 3)


def test_hooks_on_gradients_are_refused():
    module = nn.Sequential(nn.Linear(6, 3))
    handle = module[0].register_full_backward_hook(lambda module, inputs, outputs: (-inputs[0],))
    with pytest.raises(ValueError, match=r"got 0 \(Linear\) with a hook on its gradient"):
        il.from_torch(module)
    handle.remove()
    module[0].weight.register_hook(lambda gradient: -gradient)
    with pytest.raises(ValueError, match=r"got 0\.weight \(Parameter\) with a hook"):
        il.from_torch(module)


DRAWING = {
    "dropout": lambda self, h: F.dropout(h, 0.5, self.training),
    "stochastic depth": lambda self, h: h * h.new_empty((4, 1)).bernoulli_(0.5) if self.training else h,
    "attention": lambda self, h: F.scaled_dot_product_attention(h, h, h, dropout_p=0.5 if self.training else 0.0),
    "Gumbel": lambda self, h: F.gumbel_softmax(h) if self.training else h,
    "noise": lambda self, h: h + torch.randn_like(h) if self.training else h,
}


@pytest.mark.parametrize("between", DRAWING.values(), ids=DRAWING)
def test_random_numbers_need_dropout_or_evaluation(between):
    module = made(between, training=True)
    with pytest.raises(ValueError, match=r"draw random numbers when .*module\.eval\(\).*dropout=True and a `key`"):
        traced(module)
    apply, params = il.from_torch(module, dropout=True, key=KEY)
    outputs, after = apply.forward(params, X)
    np.testing.assert_array_equal(outputs, apply.forward(params, X)[0])
    assert not np.allclose(outputs, apply.with_variables(after).forward(params, X)[0])
    expected = module.eval()(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(apply(params, X), expected, rtol=1e-10)
    assert traced(module)[0].shape == (4, 3)


def test_gumbel_noise_has_its_distribution():
    module = made(lambda self, h: torch.empty_like(h[:1, :1].expand(500, 6)).exponential_(2.0))
    module.second = nn.Identity()
    apply, params = il.from_torch(module.train(), dropout=True, key=KEY)
    drawn = apply.forward(params, X)[0]
    assert abs(drawn.mean() - 0.5) < 0.05
    assert abs(drawn.std() - 0.5) < 0.05


ELSEWHERE = [
    (lambda self, h: h * torch.rand(6).double().to(h.device), "PyTorch's generator of the CPU"),
    (lambda self, h: h * torch.rand(6), "PyTorch's generator of the CPU"),
    (lambda self, h: h * float(torch.rand(())), "PyTorch's generator of the CPU"),
    (lambda self, h: h * torch.rand(6, generator=torch.Generator(), device=h.device), "a torch.Generator"),
    (lambda self, h: h * random.random(), "Python's `random`"),
    (lambda self, h: h * np.random.rand(), "NumPy's global generator"),
    (lambda self, h: h * self.generator.random(), "a Generator that it holds"),
]


@pytest.mark.parametrize(("between", "source"), ELSEWHERE)
def test_what_no_key_decides_is_refused(between, source):
    for how in ({}, {"dropout": True, "key": KEY}):
        with pytest.raises(ValueError, match=f"must not draw random numbers from {source} when"):
            traced(made(between), **how)


def test_what_torchax_cannot_run_is_named():
    with pytest.raises(ValueError, match=r"tensors on the input's device, got .* makes one on the CPU; write"):
        traced(made(lambda self, h: h + torch.zeros(6, dtype=h.dtype)))
    with pytest.raises(ValueError, match=r"operators that torchax knows, got .* with aten::rrelu_with_noise; write"):
        traced(made(lambda self, h: nn.functional.rrelu(h, training=True)))


def test_what_torchax_draws_otherwise_is_refused():
    with pytest.raises(ValueError, match="with normal, which draws from another distribution"):
        traced(made(lambda self, h: torch.normal(h, 1.0)), dropout=True, key=KEY)


def moving_average(self, h):
    if self.training:
        self.average.data.mul_(0.9).add_(0.1 * h.detach().mean(0))
    return h * self.average


def moving_average_under_no_grad(self, h):
    if self.training:
        with torch.no_grad():
            self.average[:3] = h.mean(0)[:3]
            self.average = 0.5 * self.average + 0.5
    return h * self.average


def in_pytorch(module, optimiser, num_steps):
    for _ in range(num_steps):
        optimiser.zero_grad()
        F.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimiser.step()


def normalised(norm):
    torch.manual_seed(0)
    return nn.Sequential(norm(nn.Linear(6, 8)), nn.ReLU(), norm(nn.Linear(8, 3))).double()


MOVING = {
    "spectral": lambda: normalised(spectral_norm),
    "hooked spectral": lambda: normalised(hooked_spectral_norm),
    "data": lambda: made(moving_average),
    "no_grad": lambda: made(moving_average_under_no_grad),
    "instances": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Flatten()
    ).double(),
}


@pytest.mark.parametrize("make", MOVING.values(), ids=MOVING)
def test_buffers_that_move_are_carried_as_pytorchs(make):
    module = make()
    apply, params = il.from_torch(module, statistics="batch")
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(0.1)),
        il.Every(1),
        params,
        (X, Y),
        num_steps=3,
        key=KEY,
    )
    assert solution.mode == "batch statistics"
    in_pytorch(module.train(), torch.optim.SGD(module.parameters(), 0.1), 3)
    trained = apply.with_variables(solution.variables)
    state = trained.state_dict(solution.params)
    for name, tensor in module.state_dict().items():
        np.testing.assert_allclose(state[name], tensor, rtol=1e-8, atol=1e-10, err_msg=name)
    copied = trained.combine(solution.params)
    expected = module.eval()(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(copied(torch.from_numpy(X)).detach(), expected, rtol=1e-7)
    np.testing.assert_allclose(trained(solution.params, X), expected, rtol=1e-7)


def test_spectral_norm_normalises():
    module = normalised(spectral_norm)
    apply, params = il.from_torch(module, statistics="batch")
    variables, forward = apply.variables, jax.jit(lambda v: apply.with_variables(v).forward(params, X)[1])
    for _ in range(30):
        variables = forward(variables)
    module.load_state_dict(apply.with_variables(variables).state_dict(params))
    for layer in (0, 2):
        np.testing.assert_allclose(torch.linalg.matrix_norm(module.eval()[layer].weight.detach(), 2), 1, rtol=1e-3)


def counting(self, h):
    self.count += 1
    return h * self.count


def remembering(self, h):
    self.width = h.shape[1]
    return h


def clamping(self, h):
    with torch.no_grad():
        self.first.weight.clamp_(-0.1, 0.1)
    return h


def renormalising(self, h):
    self.first.weight.data = torch.renorm(self.first.weight.data, 2, 0, 1.0)
    return h


def functional_statistics(self, h):
    return F.batch_norm(h, self.average, self.average, training=self.training)


LOST = [
    (moving_average, {}, r'got Net, whose forward pass moves average; pass statistics="batch"'),
    (moving_average, {"dropout": True, "key": KEY}, r"whose forward pass moves average"),
    (clamping, {}, r"leave its parameters to training, got Net, whose forward pass changes first\.weight"),
    (renormalising, {"statistics": "batch"}, r"whose forward pass changes first\.weight"),
    (counting, {}, r"got one whose forward pass changes count, which a compiled"),
    (functional_statistics, {}, r"got Net, which moves its own with batch_norm"),
]


@pytest.mark.parametrize(("between", "how", "match"), LOST)
def test_what_would_be_lost_is_refused(between, how, match):
    with pytest.raises(ValueError, match=match) as refusal:
        traced(made(between, training=True), **how)
    assert "\n" not in str(refusal.value)


def test_sizes_may_be_remembered():
    assert traced(made(remembering))[0].shape == (4, 3)


def test_spectral_norm_as_it_is_is_refused():
    for norm, name in ((spectral_norm, r"0\.parametrizations\.weight\.0"), (hooked_spectral_norm, r"0 \(Linear\)")):
        with pytest.raises(ValueError, match=f"got {name}.* in training mode"):
            il.from_torch(normalised(norm).train())
        assert traced(normalised(norm).eval())[0].shape == (4, 3)


def test_a_plain_function_that_draws_from_pytorch_is_refused():
    problem = il.Problem(lambda p, x: x @ p["w"] * float(torch.rand(())), il.SquaredError())
    x = np.ones((4, 2))
    with pytest.raises(ValueError, match="draws from PyTorch's generator of the CPU"):
        il.train(
            problem,
            il.WeightSpace(optax.sgd(0.1)),
            il.Every(2),
            {"w": np.ones((2, 2))},
            (x, x),
            num_steps=1,
            key=jax.random.key(0),
        )
