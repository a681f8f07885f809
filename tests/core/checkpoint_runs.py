"""A small run with checkpoints, whose solutions are compared bit by bit."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relin as il

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(1)
X = jnp.asarray(RANDOM.normal(size=(24, 3)))
Y = jnp.asarray(RANDOM.integers(0, 2, size=24))
PARAMS = {"w": jnp.asarray(RANDOM.normal(size=(3, 4))), "v": jnp.asarray(RANDOM.normal(size=(4, 2)))}
ONE_HOT = jnp.eye(2)[Y]
ADAM = il.WeightSpace(optax.adam(0.03))
MOMENTUM = il.WeightSpace(optax.sgd(optax.linear_schedule(0.3, 0.0, 12), momentum=0.9))
STEPS = 12


def apply(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def of_batches(count=4):
    return [(X[6 * n : 6 * n + 6], Y[6 * n : 6 * n + 6]) for n in range(count)]


class Loader:
    """Shuffles anew whenever it is begun, unless it is told where it was, as PyTorch's StatefulDataLoader."""

    def __init__(self):
        self.epoch = self.place = 0

    def state_dict(self):
        return {"epoch": self.epoch, "place": self.place, "other": [np.arange(3), (b"bytes", None)]}

    def load_state_dict(self, state):
        assert state["other"][1] == (b"bytes", None)
        np.testing.assert_array_equal(state["other"][0], np.arange(3))
        self.epoch, self.place = state["epoch"], state["place"]

    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(4)
        while self.place < 4:
            self.place += 1
            yield of_batches()[order[self.place - 1]]
        self.epoch, self.place = self.epoch + 1, 0


def train(solver=ADAM, schedule=3, folder=None, steps=STEPS, loss=None, data=None, every=2, keep=100, **options):
    loss = il.CrossEntropy() if loss is None else loss
    data = (X, Y if isinstance(loss, il.CrossEntropy) else ONE_HOT) if data is None else data
    if isinstance(data, tuple) and "batches" not in options:
        options = {"batch_size": 8} | options
    checkpoint = None if folder is None else il.Checkpoint(folder, every=every, keep=keep)
    options = {"record_every": 5, "throw": False, "key": KEY} | options
    problem = il.Problem(options.pop("apply", apply), loss)
    return il.train(problem, solver, schedule, PARAMS, data, num_steps=steps, checkpoint=checkpoint, **options)


def bits(solution):
    trees = (solution.params, solution.anchor, solution.displacement, solution.optimiser_state, solution.variables)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(trees)]
    ends = (solution.result, solution.final_loss, solution.feature_updates, solution.diverged_at)
    return [array.tobytes() for array in (*leaves, *solution.records.values())], ends


def stopped_at(whole, step, folder):
    """A folder as a kill leaves it soon after this step."""
    shutil.copytree(whole, folder)
    for path in folder.iterdir():
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    return folder


def agrees(tmp_path, at=(2, 5, 8), **how):
    data = how.pop("data", lambda: None)
    alone = bits(train(data=data(), **how))
    assert bits(train(folder=tmp_path / "whole", data=data(), **how)) == alone
    kept = sorted(int(path.stem.removeprefix("step-")) for path in (tmp_path / "whole").glob("*.json"))
    for step in at:
        folder = stopped_at(tmp_path / "whole", step, tmp_path / f"at-{step}")
        before = max(n for n in kept if n <= step)
        seen = []
        again = train(folder=folder, data=data(), progress=lambda done, total, seen=seen: seen.append(done), **how)
        assert seen[0] == before
        assert bits(again) == alone
