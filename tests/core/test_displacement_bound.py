"""The bound on a window's displacement, against its formula on flat vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles, window_oracle as window
from core.window_oracle import FULL, MINIBATCHES, PARTS, Adam, Momentum, agree, by_hand, trained

SGD, ADAM = optax.sgd(0.3, momentum=0.8), optax.adam(0.05)
GROUPS = {
    "parameter": list(PARTS.values()),
    "layer": [slice(0, 30), slice(30, 48)],
    "network": [slice(0, 48)],
}


def projection(ratio, per="layer", floor=0.1):
    """The bound by hand; `.bound` and `.free` count the groups that it moved and left."""

    def project(anchor, displacement):
        displacement, typical = displacement.copy(), np.linalg.norm(anchor) / len(anchor) ** 0.5
        for group in GROUPS[per]:
            weights = displacement[group]
            most = ratio * max(np.linalg.norm(anchor[group]), floor * typical * weights.size**0.5)
            length = np.linalg.norm(weights)
            displacement[group] *= min(1, most / length)
            project.bound, project.free = project.bound + (length > most), project.free + (length <= most)
        return displacement

    project.bound = project.free = 0
    return project


@pytest.mark.parametrize(
    ("optimiser", "ratio", "per", "full", "drive"),
    [
        (SGD, 0.2, "layer", False, "compiled"),
        (ADAM, 0.1, "parameter", False, "host"),
        (ADAM, 0.15, "network", True, "compiled"),
        (SGD, 0.3, "parameter", True, "host"),
    ],
)
def test_each_step_is_projected(optimiser, ratio, per, full, drive):
    project = projection(ratio, per)
    own = Momentum(0.3, 0.8) if optimiser is SGD else Adam(0.05)
    rows = by_hand(own, FULL if full else MINIBATCHES, project=project)
    assert project.bound > 2
    assert project.free > 2
    agree(trained(il.WeightSpace(optimiser, bound=il.DisplacementBound(ratio, per)), full=full, drive=drive), rows[-1])


def test_weights_of_zero_move_as_far_as_the_floor():
    start = window.initial(bias=0.0)
    for floor in (0.5, 0.0):
        project = projection(0.1, "parameter", floor)
        rows = by_hand(Adam(0.05), MINIBATCHES, project=project, start=start)
        solver = il.WeightSpace(ADAM, bound=il.DisplacementBound(0.1, "parameter", floor))
        solution = trained(solver, start=start)
        agree(solution, rows[-1])
        assert np.any(solution.params["hidden"]["bias"]) == (floor > 0)


def test_a_period_of_one_is_bounded_too():
    """And so is not ordinary training where the bound binds; where it does not, it is but for rounding."""
    rows = by_hand(Momentum(0.3, 0.8), MINIBATCHES, moves=window.at_multiples(1), project=projection(0.05))
    for drive in ("compiled", "host"):
        agree(trained(il.WeightSpace(SGD, bound=il.DisplacementBound(0.05)), 1, drive=drive), rows[-1])
    plain = trained(il.WeightSpace(SGD), 1)
    assert np.max(np.abs(rows[-1][0] + rows[-1][1] - oracles.flat(plain.params))) > 1e-2
    loose = trained(il.WeightSpace(SGD, bound=il.DisplacementBound(1e3)), 1)
    np.testing.assert_allclose(oracles.flat(loose.params), oracles.flat(plain.params), atol=1e-13)


def test_with_averaging_parts_and_a_proximal_term():
    periods = {"hidden.bias": 3, "hidden.kernel": 5, "out.kernel": 2}
    schedule = il.PerParameter({"*.bias": il.Every(3), "hidden.*": il.Every(5), "*": il.Every(2)})
    project = projection(0.1)
    moves = lambda step, name, now: step % periods[name] == 0  # noqa: E731
    rows = by_hand(Adam(0.05), MINIBATCHES, 0.6, moves, project, damping=0.5)
    assert project.bound > 2
    bound, averaging = il.DisplacementBound(0.1), il.ExponentialAverage(0.6)
    agree(trained(il.WeightSpace(ADAM, "keep", 0.5, averaging, bound), schedule), rows[-1])


def test_a_safeguard_judges_what_was_bounded():
    scale, project = window.line_search(1.02), projection(0.3)
    rows = by_hand(Momentum(3.0, 0.8), MINIBATCHES, 1.0, window.at_multiples(2), project, scale)
    assert min(scale.scales) < max(scale.scales) == 1
    assert project.bound > 2
    bound, averaging = il.DisplacementBound(0.3), il.UniformAverage()
    solver = il.WeightSpace(optax.sgd(3.0, momentum=0.8), bound=bound, averaging=averaging)
    agree(trained(solver, 2, safeguard=il.LineSearch(1.02)), rows[-1], 1e-9)


@pytest.mark.parametrize("drive", ["map", "vmap"])
def test_lanes_are_their_runs(drive):
    def make(lane):
        return il.WeightSpace(ADAM, bound=il.DisplacementBound(lane["ratio"]))

    values = {"ratio": [0.05, 0.2, 0.1], "period": [4, 3, 1]}
    by_lane = lambda lane: {"optimiser": Adam(0.05), "project": projection(lane["ratio"])}  # noqa: E731
    window.lanes_agree(make, values, drive, by_lane)


@pytest.mark.parametrize("wrong", [np.inf, np.nan, 1e30])
def test_a_step_too_large_to_measure_is_a_divergence(wrong):
    """In single precision the square of 1e30 overflows: a factor of 0 would hide it."""
    anchor = {"a": jnp.asarray([3.0, 4.0], jnp.float32), "b": jnp.ones(2, jnp.float32)}
    displacement = {"a": jnp.asarray([wrong, 1.0], jnp.float32), "b": jnp.ones(2, jnp.float32)}
    found = il.DisplacementBound(0.1, "parameter").bounded(displacement, anchor)
    assert not np.isfinite(found["a"]).all()
    np.testing.assert_allclose(found["b"], [0.1, 0.1], rtol=1e-6)
    solution = trained(il.WeightSpace(optax.sgd(1e200), bound=il.DisplacementBound(0.1)), throw=False)
    assert solution.diverged_at == 1


def test_half_precision_stays_so():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), window.initial())
    found = il.DisplacementBound(0.1).bounded(params, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(found["out"]["kernel"].astype(float), 0.1 * params["out"]["kernel"].astype(float), 1e-2)


def test_refusals():
    for ratio in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"`ratio` must be above 0 and finite, got .*; 0\.1 lets"):
            il.DisplacementBound(ratio)
    with pytest.raises(ValueError, match=r"`floor` must be at least 0 and finite, got -1"):
        il.DisplacementBound(0.1, floor=-1)
    with pytest.raises(ValueError, match="`per` must be one of 'parameter', 'layer', 'network', got 'block'; pass one"):
        il.DisplacementBound(0.1, "block")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"`bound` must be a relin\.DisplacementBound or None, got 0\.1; pass"):
        il.WeightSpace(SGD, bound=0.1)  # pyright: ignore[reportArgumentType]
    zeros = jax.tree.map(jnp.zeros_like, window.initial())
    with pytest.raises(ValueError, match="needs some that are not zero, got parameters that all are"):
        trained(il.WeightSpace(SGD, bound=il.DisplacementBound(0.1)), start=zeros)
