"""PyTorch modules as `(apply, params)`."""

import copy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import relin as il
from relin._core.fingerprint import fingerprint
from relin.adapters._torchax import environment

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


class Residual(nn.Module):
    """A block of ResNet-18, as torchvision has it."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        branch = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
        return torch.relu(branch + self.shortcut(x))


def resnet18():
    width = 64
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(4):
        for block in range(2):
            outputs = width * 2**stage
            layers.append(Residual(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


class Transformer(nn.Module):
    """Tokens through two encoder layers; the read-out shares the embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.readout = nn.Linear(16, 11, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens):
        return self.readout(self.encoder(self.embedding(tokens)).mean(1))


class Small(nn.Module):
    """Batch normalisation and dropout."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm = nn.Linear(8, 32), nn.BatchNorm1d(32)
        self.dropout, self.readout = nn.Dropout(0.3), nn.Linear(32, 3)

    def forward(self, x):
        return self.readout(self.dropout(torch.relu(self.norm(self.hidden(x)))))


def made(kind, *arguments, dtype=torch.float32):
    torch.manual_seed(0)
    return kind(*arguments).to(dtype)


def numbers(tensor):
    return tensor.detach().numpy()


@pytest.fixture
def single():
    """As users have it: JAX in single precision."""
    with jax.enable_x64(False):
        yield


def assert_rounds_as(module, mine, x):
    """Outputs are as far from double precision's as PyTorch's own in single precision, within a factor of 5."""
    exact = numbers(copy.deepcopy(module).double()(x.double() if x.is_floating_point() else x))
    own, error = (np.abs(outputs - exact).max() for outputs in (numbers(copy.deepcopy(module)(x)), mine))
    assert 0 < error < 5 * own < 1e-4 * np.abs(exact).max()


@pytest.mark.parametrize("statistics", ["frozen", "batch"])
@pytest.mark.slow
def test_resnet18_is_the_modules_in_both_modes(statistics, single):
    module = made(resnet18)
    with torch.no_grad():
        module.train()(torch.randn(8, 3, 16, 16))  # running statistics that are none of the start's
    apply, params = il.from_torch(module, statistics=statistics)
    x = RNG.normal(size=(4, 3, 16, 16)).astype(np.float32)
    if statistics == "frozen":
        assert_rounds_as(module.eval(), jax.jit(apply)(params, x), torch.from_numpy(x))
        return
    outputs, after = jax.jit(apply.forward)(params, x)
    assert_rounds_as(module.train(), outputs, torch.from_numpy(x))
    module(torch.from_numpy(x))
    state = apply.with_variables(after).state_dict(params)
    for name, tensor in module.state_dict().items():
        np.testing.assert_allclose(state[name], tensor, rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_transformer_is_the_modules(single):
    module = made(Transformer)
    apply, params = il.from_torch(module, dropout=True, key=KEY)
    assert "readout.weight" not in params
    tokens = RNG.integers(0, 11, (5, 7))
    module.eval()
    outputs = jax.jit(apply)(params, tokens)
    assert_rounds_as(module, outputs, torch.from_numpy(tokens))
    masked, _ = jax.jit(apply.forward)(params, tokens)
    assert not np.allclose(masked, outputs, rtol=1e-2)
    again, _ = jax.jit(apply.forward)(params, tokens)
    np.testing.assert_array_equal(masked, again)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own jvp
@pytest.mark.parametrize("kind", [Small, pytest.param(Transformer, marks=pytest.mark.slow)])
def test_derivatives_are_pytorchs(kind):
    module = made(kind, dtype=torch.float64).eval()
    apply, params = il.from_torch(module)
    x = RNG.normal(size=(6, 8)) if kind is Small else RNG.integers(0, 11, (6, 7))
    y = RNG.integers(0, 3, 6)
    loss = nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y))
    loss.backward()
    value, gradient = jax.jit(il.Problem(apply, il.CrossEntropy()).value_and_grad)(params, x, y)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-10)
    own = dict(module.named_parameters())
    assert own.keys() == params.keys()
    for name, leaf in gradient.items():
        np.testing.assert_allclose(leaf, own[name].grad, rtol=1e-6, atol=1e-12)
    delta = {name: RNG.normal(size=leaf.shape) for name, leaf in params.items()}
    tangent = jax.jvp(lambda p: apply(p, x), (params,), (delta,))[1]
    frozen = dict(module.named_buffers())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # PyTorch's fused one has no jvp
        pushed = torch.func.jvp(
            lambda p: torch.func.functional_call(module, {**p, **frozen}, torch.from_numpy(x)),
            ({name: tensor.detach() for name, tensor in own.items()},),
            ({name: torch.from_numpy(d) for name, d in delta.items()},),
        )[1]
    np.testing.assert_allclose(tangent, numbers(pushed), rtol=1e-8, atol=1e-10)


def trained(apply, params, schedule, batches, optimiser=None):
    solver = il.WeightSpace(optimiser or optax.sgd(0.1, momentum=0.9))
    return il.train(il.Problem(apply, il.CrossEntropy()), solver, schedule, params, batches, num_steps=8, key=KEY)


BATCHES = [(RNG.normal(size=(16, 8)), RNG.integers(0, 3, 16)) for _ in range(8)]


def test_ordinary_training_is_pytorchs():
    """In double precision, with momentum and batch statistics."""
    module = made(Small, dtype=torch.float64)
    module.dropout.p = 0.0
    apply, params = il.from_torch(module, statistics="batch")
    solution = trained(apply, params, il.Every(1), BATCHES)
    optimiser = torch.optim.SGD(module.train().parameters(), lr=0.1, momentum=0.9)
    for x, y in BATCHES:
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimiser.step()
    state = apply.with_variables(solution.variables).state_dict(solution.params)
    for name, tensor in module.state_dict().items():
        np.testing.assert_allclose(state[name], tensor, rtol=1e-8, atol=1e-10, err_msg=name)
    assert solution.mode == "batch statistics"


@pytest.mark.as_shipped
def test_ordinary_training_is_a_plain_loop_on_the_bridge(single):
    """Bit for bit, with BatchNorm and dropout on: torchax's functional call, `jax.grad` and Optax."""
    batches = [(x.astype(np.float32), y) for x, y in BATCHES]
    apply, params = il.from_torch(made(Small), statistics="batch", dropout=True, key=KEY)
    optimiser = optax.adamw(1e-2)
    solution = trained(apply, params, il.Every(1), batches, optimiser)

    @jax.jit
    def step(params, state, variables, x, y):
        def loss(p):
            outputs, after = apply.with_variables(variables).forward(p, x)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, y).mean(), after

        gradient, variables = jax.grad(loss, has_aux=True)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, variables

    own, state, variables = params, optimiser.init(params), apply.variables
    for x, y in batches:
        own, state, variables = step(own, state, variables, x, y)
    for mine, theirs in zip(
        jax.tree.leaves((solution.params, solution.variables)), jax.tree.leaves((own, variables)), strict=True
    ):
        assert jnp.array_equal(mine, theirs)


def test_parameters_come_back(single):
    module = made(Transformer).eval()
    apply, params = il.from_torch(module)
    doubled = {name: 2 * leaf for name, leaf in params.items()}
    before = module.readout.weight.detach().clone()
    module.load_state_dict(apply.state_dict(doubled))
    torch.testing.assert_close(module.readout.weight, 2 * before)
    copied = apply.combine(doubled)
    tokens = torch.from_numpy(RNG.integers(0, 11, (2, 7)))
    torch.testing.assert_close(copied(tokens), module(tokens))
    np.testing.assert_array_equal(module.state_dict()["embedding.weight"], 2 * params["embedding.weight"])


def test_frozen_parameters_and_bfloat16(single):
    module = made(Small).eval()
    module.hidden.weight.requires_grad_(False)
    apply, params = il.from_torch(module)
    assert "hidden.weight" not in params
    _, head = il.from_torch(module, trainable="readout.*")
    assert sorted(head) == ["readout.bias", "readout.weight"]
    assert set(apply.state_dict(params)) == set(module.state_dict())
    low = made(Small, dtype=torch.bfloat16).eval()
    apply, params = il.from_torch(low)
    assert {leaf.dtype for leaf in params.values()} == {jnp.bfloat16.dtype}
    for name, tensor in low.state_dict().items():
        torch.testing.assert_close(apply.state_dict(params)[name], tensor, rtol=0, atol=0)
    before = fingerprint(low)
    with torch.no_grad():
        low.readout.bias.neg_()
    assert fingerprint(low) != before  # a run with a checkpoint knows it again


class Mixed(nn.Linear):
    """Computes in half the precision that it keeps its parameters in."""

    def forward(self, x):
        return nn.functional.linear(x.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).float()


def test_bfloat16_inside_single_precision(single):
    apply, params = il.from_torch(made(Mixed, 8, 3))
    x = np.float32(BATCHES[0][0])
    solution = trained(apply, params, il.Every(3), [(x, BATCHES[0][1])])
    assert solution.records["training_loss"][-1] < 1.2
    assert {leaf.dtype for leaf in jax.tree.leaves(solution.params)} == {jnp.float32.dtype}


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x, scale):
        return {"logits": self.linear(x) * scale, "hidden": x}


def test_several_inputs_and_a_chosen_output():
    module = made(Several, dtype=torch.float64)
    apply, params = il.from_torch(module, output="logits")
    x, scale = RNG.normal(size=(4, 8)), RNG.normal(size=(4, 1))
    expected = numbers(module(torch.from_numpy(x), torch.from_numpy(scale))["logits"])
    np.testing.assert_allclose(apply(params, (x, scale)), expected, rtol=1e-12)
    np.testing.assert_allclose(apply(params, {"x": x, "scale": scale}), expected, rtol=1e-12)


@pytest.mark.slow
def test_pytorch_is_imported_by_those_who_use_it(monkeypatch):
    code = "import sys, relin; relin.from_torch; assert not any('torch' == name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    environment.cache_clear()
    with pytest.raises(ImportError, match=r"relin\.from_torch needs torch.*pip install 'relin\[torchax\]'"):
        il.from_torch(None)


REFUSALS = [
    (lambda: il.from_torch(3), r"must be a torch\.nn\.Module, got int; use from_nnx"),
    (lambda: il.from_torch(Small()), r"got norm \(BatchNorm1d\) in training mode; pass `statistics` and `dropout`"),
    (lambda: il.from_torch(nn.Sequential(nn.Dropout(0.1))), r"got 0 \(Dropout\) in training mode"),
    (lambda: il.from_torch(Small(), dropout=True), r"Dropout in training needs a `key`, got none"),
    (lambda: il.from_torch(nn.Linear(2, 2), statistics="batch"), r"must have BatchNorm .*, got Linear without"),
    (lambda: il.from_torch(nn.ReLU()), r"holds no array"),
]


@pytest.mark.parametrize(("make", "match"), REFUSALS)
def test_refusals_say_what_to_do(make, match):
    with pytest.raises((ValueError, TypeError), match=match) as refusal:
        make()
    assert "\n" not in str(refusal.value)
