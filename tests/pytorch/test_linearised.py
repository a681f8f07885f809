"""`relin.torch.Linearised` against dense oracles, PyTorch's own training, and `il.train` through `from_torch`."""

import copy

import numpy as np
import pytest
import torch
from moving import moved
from torch import nn
from training import BATCHES, KEY, OPTIMISERS, Small, assert_states_close, by_relin, made, tensors, trained

import relin as il
from relin.torch import Linearised

RNG = np.random.default_rng(0)
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_the_dense_taylor_expansions(training):
    module = made().train(training)
    x, y = tensors(BATCHES[0])
    anchor = {name: p.detach().clone() for name, p in module.named_parameters()}
    model = Linearised(module)
    model(x)
    before = copy.deepcopy(dict(module.named_buffers()))
    moved(model)
    delta = {name: p.detach() - anchor[name] for name, p in module.named_parameters()}

    def outputs(values):
        frozen = copy.deepcopy(before)
        return torch.func.functional_call(
            copy.deepcopy(module), {**dict(zip(anchor, values, strict=True)), **frozen}, x
        )

    jacobians = torch.autograd.functional.jacobian(lambda *values: outputs(values), tuple(anchor.values()))
    expected = outputs(anchor.values()) + sum(
        torch.tensordot(j, delta[name], dims=delta[name].ndim) for name, j in zip(anchor, jacobians, strict=True)
    )
    mine = model(x)
    np.testing.assert_allclose(mine.detach(), expected.detach(), rtol=1e-10, atol=1e-12)
    leaf = expected.detach().requires_grad_()
    nn.functional.cross_entropy(leaf, y).backward()
    nn.functional.cross_entropy(mine, y).backward()
    for (name, parameter), j in zip(model.named_parameters(), jacobians, strict=True):
        gradient = torch.tensordot(leaf.grad, j, dims=2)
        np.testing.assert_allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-12, err_msg=name)
    for name, values in model.displacement().items():
        assert torch.equal(values, delta[name])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_step_is_the_modules_own_training_bit_for_bit(optimiser):
    """Batch statistics, dropout and weight decay included."""
    states = []
    for wrap in (lambda module: module, lambda module: Linearised(module, il.Every(1))):
        model = wrap(made(Small, 0.3))
        torch.manual_seed(1)
        states.append(trained(model, optimiser).state_dict())
    assert model.feature_updates == len(BATCHES) - 1
    x = torch.from_numpy(BATCHES[0][0])
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model.network(x))  # in evaluation too, after the last step
    own, mine = states
    assert list(own) == list(mine)
    assert all(torch.equal(own[name], mine[name]) for name in own)


SCHEDULES = {
    "every-4": il.Every(4),
    "never": il.Never(),
    "at-steps": il.AtSteps([2, 9]),
    "geometric": il.Geometric(2, 2.0),
    "until": il.Until(il.Every(3), 7),
    "after": il.After(il.Every(3), 5),
    "when-error": il.WhenError(0.03, check_every=2),
    "when-error-adapting": il.WhenError(0.02, check_every=1, max_check_every=4),
    "when-moves": il.WhenFunctionMoves(0.4, check_every=3, probe=RNG.normal(size=(5, 8))),
}


QUICK = ("every-4", "when-error-adapting")
"""The others compile programs of their own."""


@pytest.mark.parametrize("optimiser", [pytest.param("momentum", marks=pytest.mark.slow), "decay"])
@pytest.mark.parametrize(
    "schedule", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULES]
)
def test_training_is_relins(schedule, optimiser):
    """In double precision: parameters, running statistics and the number of feature updates."""
    schedule = SCHEDULES[schedule]
    model = trained(Linearised(made(), schedule), optimiser)
    solution, state = by_relin(made(), schedule, optimiser)
    assert model.feature_updates == int(solution.feature_updates)
    assert_states_close(model.state_dict(), state)


def test_adaptive_schedules_of_the_tests_update_sometimes():
    for name in ("when-error", "when-error-adapting", "when-moves"):
        model = trained(Linearised(made(), SCHEDULES[name]))
        assert 0 < model.feature_updates < len(BATCHES) - 1, name


def test_predictions_and_their_error_are_relins():
    solution, _ = by_relin(made(), il.Every(8))
    model = trained(Linearised(made(), il.Every(8))).eval()
    x = RNG.normal(size=(9, 8))
    error = il.LinearisationError(x)
    observed = il.train(
        il.Problem((built := il.from_torch(made(), statistics="batch"))[0], il.CrossEntropy()),
        il.WeightSpace(OPTIMISERS["momentum"][1]),
        il.Every(8),
        built[1],
        BATCHES,
        num_steps=len(BATCHES),
        observers=[error],
        key=KEY,
    )
    buffers = copy.deepcopy(dict(model.named_buffers()))
    linearised, network, at_anchor = model.predictions(torch.from_numpy(x))
    assert torch.equal(model.merged()(torch.from_numpy(x)), network)
    assert torch.equal(model(torch.from_numpy(x)), linearised)
    expected = observed.records["linearisation_error"][-1]
    np.testing.assert_allclose(model.linearisation_error(torch.from_numpy(x)), expected, rtol=1e-7)
    assert expected > 1e-3
    assert (network - at_anchor).abs().max() > 1e-3
    assert all(torch.equal(buffers[name], buffer) for name, buffer in model.named_buffers())
    assert int(solution.feature_updates) == model.feature_updates == 1


def test_one_mask_of_dropout_for_the_network_and_its_derivative():
    """With one mask f̄ of a network that is linear in its parameters is f; with two it would not be."""
    model = Linearised(nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 3)).double().train())
    x = torch.randn(64, 8, dtype=torch.float64)
    model(x)
    moved(model)
    torch.manual_seed(5)
    linearised = model(x)
    torch.manual_seed(5)
    np.testing.assert_allclose(linearised.detach(), model.network(x).detach(), rtol=1e-12, atol=1e-13)


def test_statistics_of_the_batch_move_once_a_pass():
    module, x = made(), torch.from_numpy(BATCHES[0][0])
    model = Linearised(module.train())
    model(x)
    moved(model)
    model(x)
    assert int(module.norm.num_batches_tracked) == 2
    with torch.no_grad():
        model.eval()(x)
    assert int(module.norm.num_batches_tracked) == 2
