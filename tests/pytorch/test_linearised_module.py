"""A linearised module as a module: weights, checkpoints, copies, modes, processes, and who counts its steps."""

import copy
import io
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from moving import moved
from torch import nn
from training import BATCHES, OPTIMISERS, assert_states_close, made, tensors, trained

import relin as il
from relin.torch import Linearised

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by PyTorch's own forward mode


def test_weights_go_to_and_from_the_ordinary_module():
    model = trained(Linearised(made(), il.Every(5)))
    ordinary = made()
    assert list(dict(model.named_parameters())) == list(dict(ordinary.named_parameters()))
    assert [p.shape for p in model.parameters()] == [p.shape for p in ordinary.parameters()]
    ordinary.load_state_dict(model.state_dict())
    x = torch.randn(4, 8, dtype=torch.float64)
    np.testing.assert_array_equal(ordinary.eval()(x).detach(), model.merged().eval()(x).detach())
    other = Linearised(made(), il.Every(5))
    other.load_state_dict(ordinary.state_dict())
    np.testing.assert_array_equal(other.eval()(x).detach(), ordinary(x).detach())  # linearised where it was loaded
    assert model.merged() is model.network


@pytest.mark.parametrize("weights_first", [True, False])
def test_a_checkpoint_within_a_window_goes_on_as_if_nothing_was(weights_first):
    schedule = il.WhenError(0.02, check_every=1, max_check_every=4)
    whole = trained(Linearised(made(), schedule), "momentum")
    model = Linearised(made(), schedule)
    optimizer = OPTIMISERS["momentum"][0](model.parameters())
    stopped = (model, optimizer)
    for number, batch in enumerate(BATCHES):
        model, optimizer = stopped
        if number == 6:
            saved = io.BytesIO()
            torch.save((model.state_dict(), optimizer.state_dict(), model.anchor_state_dict()), saved)
            saved.seek(0)
            weights, momenta, anchor = torch.load(saved, weights_only=True)
            model = Linearised(made(), schedule)
            loads = [lambda m, w=weights: m.load_state_dict(w), lambda m, a=anchor: m.load_anchor_state_dict(a)]
            for load in loads if weights_first else loads[::-1]:
                load(model)
            optimizer = OPTIMISERS["momentum"][0](model.parameters())
            optimizer.load_state_dict(momenta)
            assert max(float(d.abs().max()) for d in model.displacement().values()) > 1e-4
            stopped = (model, optimizer)
        x, y = tensors(batch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        model.step()
    assert_states_close(model.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert model.feature_updates == whole.feature_updates > 0


def test_an_attached_optimiser_counts_the_steps():
    model = Linearised(made(), il.Every(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    hook = model.attach(optimizer)
    for batch in BATCHES:
        x, y = tensors(batch)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert_states_close(model.state_dict(), trained(Linearised(made(), il.Every(4))).state_dict(), rtol=0, atol=0)
    assert model.num_steps == len(BATCHES)
    with pytest.raises(RuntimeError, match="leave it out"):
        model.step()
    with pytest.raises(ValueError, match="got a second"):
        model.attach(optimizer)
    hook.remove()
    model.step()
    with pytest.raises(ValueError, match="of other parameters"):
        model.attach(torch.optim.SGD(made().parameters(), 0.1))


def test_the_anchor_moves_before_a_step_and_not_in_evaluation():
    model = trained(Linearised(made(), il.Every(4)), batches=BATCHES[:4])
    x = torch.from_numpy(BATCHES[5][0])
    with torch.no_grad():
        model.eval()(x)
    assert model.feature_updates == 0
    assert model.linearisation_error(x) > 0
    model.train()(x)
    assert model.feature_updates == 1
    assert model.linearisation_error(x) == 0
    assert all(not values.any() for values in model.displacement().values())


def test_what_is_done_by_data_alone_moves_the_displacement_too():
    """Some optimisers change `parameter.data`, of which PyTorch keeps no count."""
    model = Linearised(made().eval())
    x = torch.from_numpy(BATCHES[0][0])
    model(x)
    for parameter in model.parameters():
        parameter.data += 0.1
    linearised, network, _ = model.predictions(x)
    assert torch.equal(model(x).detach(), linearised)
    assert (linearised - network).abs().max() > 1e-3


def test_frozen_parameters_and_those_that_are_thawed():
    module = made()
    module.hidden.requires_grad_(False)
    model = trained(Linearised(module, il.Every(4)))
    assert "hidden.weight" not in model.displacement()
    assert torch.equal(module.hidden.weight, made().hidden.weight)
    model.relinearise()
    module.hidden.requires_grad_(True)
    before = module.hidden.weight.detach().clone()
    trained(model, batches=BATCHES[:2])
    assert torch.equal(model.displacement()["hidden.weight"], module.hidden.weight.detach() - before)


def without_gradients(model, x):
    with torch.no_grad():
        model(x)


@pytest.mark.parametrize(
    "end",
    [
        lambda model, x: model(x),
        without_gradients,
        lambda model, _: model.relinearise(),
        lambda model, _: model.to(torch.float64),
        lambda model, _: copy.deepcopy(model),
    ],
    ids=["next", "evaluation", "anchor", "moved", "copied"],
)
def test_a_pass_keeps_its_memory_until_another_begins(end, request):
    """Otherwise the C library gives it back to the system within each step (benchmarks/README.md)."""
    model, x = trained(Linearised(made(), il.Never())), torch.randn(100_000, 8, dtype=torch.float64)
    model(x).sum().backward()
    kept = [weakref.ref(tensor) for tensor in model._memory]
    assert kept
    copied = end(model, x)
    if request.node.callspec.id == "copied":
        assert copied._memory == []
    else:
        del copied
        assert all(tensor() is None for tensor in kept)


def test_a_small_pass_keeps_nothing():
    """What the processor's caches hold is faster to use again than to keep."""
    model = trained(Linearised(made(), il.Never()))
    model(torch.randn(4, 8, dtype=torch.float64)).sum().backward()
    assert model._memory == []


def test_a_backward_pass_after_the_anchor_moved_is_that_of_the_anchor_of_its_outputs():
    x, models = torch.from_numpy(BATCHES[0][0]), [trained(Linearised(made(), il.Never())) for _ in range(2)]
    losses = [model(x).square().sum() for model in models]
    models[1].relinearise()
    for loss in losses:
        loss.backward()
    for straight, after in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert straight.grad is not None
        assert torch.equal(straight.grad, after.grad)


def test_a_backward_pass_after_a_step_is_refused_as_the_modules_own_is():
    model, x = trained(Linearised(made(), il.Never())), torch.from_numpy(BATCHES[0][0])
    loss = model(x).square().sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_copies_and_pickles_are_linearised_modules_of_their_own():
    model = trained(Linearised(made(), il.Every(5)))
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    x = torch.randn(4, 8, dtype=torch.float64)
    for other in (copy.deepcopy(model), torch.load(saved, weights_only=False)):
        assert torch.equal(other.eval()(x), model.eval()(x))
        moved(other)
        assert isinstance(other, Linearised)
        assert torch.equal(other.network.readout.weight, dict(other.named_parameters())["readout.weight"])
        assert not torch.equal(other.readout.weight, model.readout.weight)
        assert other.feature_updates == 2


def test_precision_and_place_move_with_the_anchor():
    model = trained(Linearised(made(), il.Never())).float()
    x = torch.randn(4, 8)
    linearised, network, _ = model.eval().predictions(x)
    assert linearised.dtype == torch.float32
    assert {d.dtype for d in model.displacement().values()} == {torch.float32}
    double = model.double()
    np.testing.assert_allclose(double(x.double()).detach(), linearised, rtol=1e-4, atol=1e-5)
    assert (linearised - network).abs().max() > 1e-3


def test_a_call_behaves_as_the_modules():
    model = Linearised(made())
    assert model.norm is model.network.norm
    assert model.train(False).network.training is False
    assert model.network.dropout.training is False
    assert "norm.running_mean" in dict(model.named_buffers())
    with pytest.raises(AttributeError, match="nothing"):
        _ = model.nothing
    model.norm.momentum = model.temperature = 3.0  # the second is new, and the wrapper's
    model.note, model.training = "changed", True
    assert (model.network.note, model.network.training) == ("changed", True)
    assert not hasattr(model.network, "temperature")


def test_a_forgotten_step_is_told_once():
    model = Linearised(made(), il.Every(4))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def run():
        for batch in 2 * BATCHES:
            x, y = tensors(batch)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    with pytest.warns(UserWarning, match="no step was counted") as told:
        run()
    assert len(told) == 1


def test_an_anchor_set_under_inference_mode_is_trained_from():
    model, x = Linearised(made()), torch.from_numpy(BATCHES[0][0])
    with torch.inference_mode():
        model.relinearise()
        model.load_anchor_state_dict(model.anchor_state_dict())
    moved(model)
    model(x).sum().backward()
    assert model.hidden.weight.grad is not None


def test_an_anchor_is_of_the_weights_that_are_loaded_with_it_alone():
    model = trained(Linearised(made(), il.Never()), batches=BATCHES[:3])
    other, x = Linearised(made(), il.Never()), torch.from_numpy(BATCHES[0][0])
    other.load_anchor_state_dict(model.anchor_state_dict())
    other.load_state_dict(model.state_dict())
    other.load_state_dict(moved(made()).state_dict())
    assert torch.equal(other.eval()(x), other.network(x))


DISTRIBUTED = """
import sys, torch, relin as il, relin.torch
from torch.multiprocessing import get_context

def run(rank, file, updates):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    model = relin.torch.Linearised(module, il.WhenError(0.01, check_every=1, max_check_every=4))
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.attach(optimizer)
    torch.manual_seed(rank)
    moved = []
    for _ in range(8):
        optimizer.zero_grad()
        parallel(10.0 ** (2 * rank - 2) * torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        moved.append(model.feature_updates)
    updates.put(moved)

context = get_context("fork")
updates = context.Queue()
processes = [context.Process(target=run, args=(rank, sys.argv[1], updates)) for rank in range(2)]
for process in processes: process.start()
for process in processes: process.join()
first, second = updates.get(timeout=9), updates.get(timeout=9)
assert first == second, (first, second)
assert 0 < first[-1] < 7, first
"""


@pytest.mark.slow
def test_processes_that_train_together_move_their_anchors_together(tmp_path):
    """Though the error is small on one's data and large on the other's."""
    command = [sys.executable, "-c", DISTRIBUTED, tmp_path / "store"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_no_jax_runs():
    """Nor is it imported before a schedule is made, which asks no device of JAX's."""
    code = """
import sys, torch, relin.torch
assert "jax" not in sys.modules
import relin as il
for schedule in (il.Every(2), il.AtSteps([1, 3]), il.Geometric(1, 2.0), il.WhenError(0.0, check_every=1)):
    model = relin.torch.Linearised(torch.nn.Linear(3, 2), schedule)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.attach(optimizer)
    for _ in range(5):
        model(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
    assert model.feature_updates > 0
"""
    environment = os.environ | {"JAX_PLATFORMS": "none-of-these"}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


class Shared(torch.nn.Module):
    """Two parameters of one gradient, which is the outputs' own."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (torch.nn.Parameter(torch.randn(4, 3, dtype=torch.float64)) for _ in range(2))

    def forward(self, x):
        return x.tanh() * 1.0 + self.one + self.two


@pytest.mark.parametrize("derivative", ["forward", "double_backward"])
def test_gradients_of_two_parameters_are_no_one_memory(derivative):
    torch.manual_seed(0)
    model, x = Linearised(Shared(), il.Never(), derivative=derivative), torch.randn(4, 3, dtype=torch.float64)
    model.relinearise()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    u = torch.ones(4, 3, dtype=torch.float64)
    for _ in range(3):  # gathers, in place from the second on
        model(x).backward(u)
    u.zero_()
    for parameter in model.parameters():
        assert torch.equal(parameter.grad, torch.full_like(parameter, 3.0))
    model.zero_grad()
    model(x).sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    clipped = sum(parameter.grad.square().sum() for parameter in model.parameters()).sqrt()
    assert abs(float(norm) - 24**0.5) < 1e-12
    assert abs(float(clipped) - 1.0) < 1e-5
