"""Every batch of an iterable, and what parts of a run hold, gets the checks that arrays get."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core.own_losses import CASES, KEY, VALUES, VOID, N, trained, trained_on_values

SOLVERS = {"ordinary": il.Every(1), "linearised": il.Every(2)}


@pytest.mark.parametrize("schedule", SOLVERS)
@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("kind", ["numpy", "jax"])
def test_targets_of_later_batches_are_checked(schedule, label, kind):
    x, y = VALUES, np.arange(N) % 3
    wrong = y.copy()
    wrong[5] = label
    batches = [(x, y)] * 3 + [(x, wrong)] + [(x, y)] * 4
    if kind == "jax":
        batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
    problem, solver = il.Problem(lambda p, x: x @ p["w"], il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1))
    message = rf"the batch of step 3: .* classes from 0 to 2, .*, got {label} at example 5; relabel"
    with pytest.raises(ValueError, match=message):
        il.train(problem, solver, SOLVERS[schedule], {"w": jnp.zeros((4, 3))}, batches, num_steps=8, key=KEY)


def test_targets_of_ones_own_in_later_batches_are_checked():
    x, y = CASES["tokens"][3]
    wrong = {**y, "labels": np.where(y["labels"] == VOID, -1, y["labels"])}
    with pytest.raises(ValueError, match=r"the batch of step 1: .* 0 to 3, or -100 to ignore, got -1 at example 0; ch"):
        trained("tokens", il.WeightSpace(optax.sgd(0.1)), il.Every(2), 2, data=[(x, y), (x, wrong)])


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            (VALUES, np.zeros(N)),
            TypeError,
            r"step 1: All batches .* int64 of 1 axes, got .* float64 of 1 axes; conv",
        ),
        ((VALUES.astype(np.float32), np.arange(N) % 3), TypeError, "first one's types, float64 .*, got float32"),
        ((VALUES, np.arange(N - 1) % 3), ValueError, r"step 1: .* the same number of examples, got \[7, 8\]"),
        ((VALUES[:3], np.array([0, 4, 1])), ValueError, "step 1: .* from 0 to 2, .*, got 4 at example 1"),
    ],
)
def test_later_batches_are_checked_as_the_first(batch, error, message):
    with pytest.raises(error, match=message):
        trained_on_values(il.CrossEntropy(), [(VALUES, np.arange(N) % 3), batch])


def test_pytorchs_batches_are_arrays():
    import torch

    died, time = CASES["survival"][3][1]
    dataset = torch.utils.data.TensorDataset(*map(torch.as_tensor, (VALUES, died, time)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=3)
    batches = [[x, [died, time]] for x, died, time in loader]  # as its collation nests them
    plain = [(np.asarray(x), (np.asarray(died), np.asarray(time))) for x, (died, time) in batches]
    found, wanted = (
        trained("survival", il.WeightSpace(optax.sgd(0.1)), il.Every(2), 5, data=data).params
        for data in (batches, plain)
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"observers": [il.Performance((VALUES, np.full(N, 3)))]}, "`data` of Performance"),
        ({"observers": [il.Sharpness((VALUES, np.full(N, 3)))]}, "`probe` of Sharpness"),
        ({"safeguard": il.LineSearch(probe=(VALUES, np.full(N, 3)))}, "`probe` of LineSearch"),
        ({"schedule": il.Until(il.WhenLossGap(0.1, probe=(VALUES, np.full(N, 3))), 9)}, "`probe` of WhenLossGap"),
    ],
    ids=["performance", "sharpness", "line search", "loss gap"],
)
def test_targets_that_parts_of_a_run_hold_are_checked(part, place):
    problem, solver = il.Problem(lambda p, x: x @ p["w"], il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1))
    part = {"schedule": il.Every(2)} | part
    data = VALUES, np.arange(N) % 3
    with pytest.raises(ValueError, match=f"In {place}: .* from 0 to 2, .*, got 3 at example 0; relabel"):
        il.train(problem, solver, params={"w": jnp.zeros((4, 3))}, data=data, num_steps=2, key=KEY, **part)
