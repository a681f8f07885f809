"""Averaging within a window, against all iterates of it kept and averaged by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles, window_oracle as window
from core.window_oracle import FULL, MINIBATCHES, Adam, Momentum, agree, by_hand, trained

SGD, ADAM = optax.sgd(0.3, momentum=0.8), optax.adam(0.05)
UNIFORM = il.UniformAverage()


@pytest.mark.parametrize(
    ("optimiser", "averaging", "full", "drive"),
    [
        (SGD, UNIFORM, False, "compiled"),
        (SGD, il.ExponentialAverage(0.6), True, "host"),
        (ADAM, UNIFORM, True, "compiled"),
        (ADAM, il.ExponentialAverage(0.6), False, "host"),
    ],
)
def test_the_anchor_moves_to_the_mean_of_the_window(optimiser, averaging, full, drive):
    """The last of its windows is shorter; the optimiser's state lives on."""
    solver = il.WeightSpace(optimiser, averaging=averaging)
    batches = FULL if full else MINIBATCHES
    own = lambda: Momentum(0.3, 0.8) if optimiser is SGD else Adam(0.05)  # noqa: E731
    decay = 1.0 if averaging is UNIFORM else 0.6
    rows = by_hand(own(), batches, decay)
    agree(trained(solver, full=full, drive=drive), rows[-1])
    last = by_hand(own(), batches)[-1]
    assert np.max(np.abs(rows[-1][0] - last[0])) > 1e-2


def test_records_see_the_mean_and_training_losses_the_iterates():
    observers = [il.Movement(), il.Performance(window.DATA)]
    solution = trained(il.WeightSpace(ADAM, averaging=UNIFORM), record_every=1, observers=observers)
    rows = by_hand(Adam(0.05), MINIBATCHES, 1.0)
    norms = [np.linalg.norm(displacement) for _, displacement in rows]
    np.testing.assert_allclose(solution.records["displacement_norm"][1:], norms, rtol=1e-10)
    losses = [window.linearised_loss(*row, *window.DATA) for row in rows]
    np.testing.assert_allclose(solution.records["test_loss"][1:], losses, rtol=1e-10)
    losses = [window.network_loss(anchor + displacement, *window.DATA) for anchor, displacement in rows]
    np.testing.assert_allclose(solution.records["network_test_loss"][1:], losses, rtol=1e-10)
    iterate = 3 * rows[6][1] - 2 * rows[5][1]  # the third since the anchor at step 4
    expected = window.linearised_loss(rows[6][0], iterate, *MINIBATCHES[7])
    np.testing.assert_allclose(solution.records["training_loss"][8], expected, rtol=1e-9)


def test_parts_of_the_network_have_windows_of_their_own():
    periods = {"hidden.bias": 3, "hidden.kernel": 5, "out.kernel": 1}
    schedule = il.PerParameter({"*.bias": il.Every(3), "hidden.*": il.Every(5), "*": il.Every(1)})
    rows = by_hand(Adam(0.05), MINIBATCHES, 0.6, lambda step, name, now: step % periods[name] == 0)
    solver = il.WeightSpace(ADAM, averaging=il.ExponentialAverage(0.6))
    for drive in ("compiled", "host"):
        agree(trained(solver, schedule, drive=drive), rows[-1])


def test_a_safeguard_judges_the_mean():
    scale = window.line_search(1.02)
    rows = by_hand(Momentum(3.0, 0.8), MINIBATCHES, 1.0, window.at_multiples(2), scale=scale)
    assert min(scale.scales) < max(scale.scales) == 1
    solver = il.WeightSpace(optax.sgd(3.0, momentum=0.8), averaging=UNIFORM)
    for drive in ("compiled", "host"):
        agree(trained(solver, 2, drive=drive, safeguard=il.LineSearch(1.02)), rows[-1], 1e-9)


def test_an_adaptive_schedule_judges_the_mean():
    errors = []

    def moves(step, name, now):
        anchor, displacement, x = now
        if name == "hidden.bias":
            x = x[: len(x) // 2]
            there, before = window.dense().value(anchor + displacement, x), window.dense().value(anchor, x)
            linearised = window.dense().linearised(anchor, displacement, x)
            errors.append(np.linalg.norm(there - linearised) / np.linalg.norm(there - before))
        return errors[-1] >= 0.15

    rows = by_hand(Momentum(0.3, 0.8), MINIBATCHES, 1.0, moves)
    assert min(errors) < 0.15 < max(errors)
    solution = trained(il.WeightSpace(SGD, averaging=UNIFORM), il.WhenError(0.15, 1))
    agree(solution, rows[-1])
    assert solution.feature_updates == sum(error >= 0.15 for error in errors)


def test_with_a_proximal_term_and_states_begun_anew():
    make = lambda: Momentum(0.3, 0.8)  # noqa: E731
    rows = by_hand(make(), MINIBATCHES, 0.6, damping=0.7, reset=make)
    solver = il.WeightSpace(SGD, "reset", 0.7, il.ExponentialAverage(0.6))
    agree(trained(solver), rows[-1])


def test_with_a_course_within_the_window_and_a_bound():
    """What is averaged are the iterates of the course, each bounded."""

    def project(anchor, displacement):
        return displacement * min(1, 0.1 * np.linalg.norm(anchor) / np.linalg.norm(displacement))

    course = lambda step: 0.5 * (1 + np.cos(np.pi * (step % 4) / (4 if step < 8 else 3)))  # noqa: E731
    rows = by_hand(Adam(0.1), MINIBATCHES, 1.0, project=project, course=course)
    bound = il.DisplacementBound(0.1, "network", floor=0.0)
    solver = il.WeightSpace(optax.adam(0.1), averaging=UNIFORM, bound=bound, window_rate=il.CosineWindow())
    for drive in ("compiled", "host"):
        agree(trained(solver, drive=drive), rows[-1])


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_a_window_of_one_step_is_ordinary_training(drive):
    solver = il.WeightSpace(ADAM, averaging=il.ExponentialAverage(0.6))
    looped = oracles.ordinary_loop(window.network, window.LOSS, ADAM, window.initial(), MINIBATCHES)
    assert oracles.same_bits(trained(solver, 1, drive=drive, record_every=2).params, looped)


@pytest.mark.parametrize("drive", ["map", "vmap"])
def test_lanes_are_their_runs(drive):
    """With periods and decays of their own, a period of 1 and a uniform mean among them."""

    def make(lane):
        return il.WeightSpace(ADAM, averaging=il.ExponentialAverage(lane["decay"]))

    values = {"period": [4, 3, 1], "decay": [0.6, 1.0, 0.6]}
    window.lanes_agree(make, values, drive, lambda lane: {"optimiser": Adam(0.05), "decay": lane["decay"]})


@pytest.mark.parametrize("num_steps", [1000, 100_000])
def test_means_of_long_windows_keep_their_digits(num_steps):
    """In single precision, of iterates that move slowly: δ_i = 1 + i/k has the mean 1.5 + 1/2k."""
    start = jnp.ones(1, jnp.float32)

    def body(i, carry):
        return UNIFORM.averaged(*carry, start + jnp.asarray((i + 1) / num_steps, jnp.float32))

    mean, _ = jax.lax.fori_loop(0, num_steps, body, (0 * start, UNIFORM.init(start)))
    assert float(mean[0]) == pytest.approx(1.5 + 0.5 / num_steps, rel=3e-7)


def test_refusals():
    for decay in (0, -0.5, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"`decay` must be above 0 and at most 1, got .*; 0\.999 is usual"):
            il.ExponentialAverage(decay)
    with pytest.raises(TypeError, match=r"`averaging` must be a relin average or None, got 0\.9; pass for example"):
        il.WeightSpace(SGD, averaging=0.9)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="UniformAverage must be given parameters of at least single"):
        trained(il.WeightSpace(SGD, averaging=UNIFORM), start=window.initial(jnp.bfloat16))
