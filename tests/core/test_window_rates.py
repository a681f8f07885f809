"""The learning rate within a window and its cap, against loops written out with dense Jacobians and eigenvalues."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles, quadratic

pytestmark = pytest.mark.slow

STEPS, RATE, BETA = 11, 0.3, 0.9
COURSE = lambda step: RATE * jnp.exp(-0.1 * jnp.asarray(step, float))  # noqa: E731  Optax's own are of less digits
ENTROPY, SQUARED = quadratic.ENTROPY, quadratic.SQUARED
EXACT = 60
"""Products that are enough to find λ_max to rounding, and which are not all made."""

EVERY_1, EVERY_4 = list(range(STEPS)), [0, 4, 8]
SCHEDULES = {  # with the steps at which their windows begin
    "every-4": (il.Every(4), EVERY_4),
    "never": (il.Never(), [0]),
    "at": (il.AtSteps([1, 7]), [0, 1, 7]),
    "geometric": (il.Geometric(2, 2.5), [0, 2, 5]),
    "equal time": (il.EqualTime(optax.linear_schedule(1.0, 0.0, 12), 12, 3), [0, 2, 4, 6]),
    "until": (il.Until(il.Every(2), 5), [0, 2, 4]),
    "after": (il.After(il.Every(3), 5), [0, 6, 9]),
    "every step": (il.WhenError(0.0, 1), EVERY_1),
}


def cosine(k, length, floor=0.25):
    return floor + (1 - floor) * (1 + np.cos(np.pi * min(k / length, 1))) / 2


def warm_up(k, length, steps=3):
    return min((k + 1) / (min(steps, length - 1) + 1), 1)


def momentum(state, gradient, rate):
    trace = gradient + BETA * state.get("trace", 0)
    return -rate * trace, {"trace": trace}


def adam(state, gradient, rate):
    count, m, v = state.get("count", 0) + 1, state.get("m", 0), state.get("v", 0)
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    step = -rate * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)
    return step, {"count": count, "m": m, "v": v}


OPTIMISERS = {"momentum": (optax.sgd(COURSE, momentum=BETA), momentum), "adam": (optax.adam(COURSE), adam)}


def by_hand(loss, update, starts, course=None, cap=None, full=False, probe=None, damping=0.0, known=True):
    """θ_s and δ_T, the factors of all steps and λ_max of all windows, as flat float64 vectors; `known` says whether the
    windows' lengths are known beforehand."""
    dense, (x_all, y_all) = oracles.dense_of(oracles.mlp), oracles.data(loss)
    anchor, state, factors, largest = oracles.flat(oracles.mlp_params()), {}, [], []
    displacement, ends = np.zeros_like(anchor), [*starts[1:], STEPS]
    batches = [(x_all, y_all)] * STEPS if full else oracles.minibatches(x_all, y_all, STEPS)
    for start, end in zip(starts, ends, strict=True):
        anchor, displacement = anchor + displacement, np.zeros_like(anchor)
        model = quadratic.Model(loss, jnp.asarray(anchor), *(batches[start] if probe is None else probe))
        largest.append(np.linalg.eigvalsh(model.gauss_newton)[-1])
        for step in range(start, end):
            x, y = batches[step]
            jacobian = dense.jacobian(anchor, x)
            gradient = oracles.dense_gradient(loss, dense.value(anchor, x) + jacobian @ displacement, jacobian, y)
            rate = float(COURSE(step))
            factor = 1.0 if course is None else course(step - start, (end if known else STEPS) - start)
            if cap is not None:
                factor = min(factor, cap * 2 * (1 + BETA) / ((largest[-1] + damping) * rate))
            factors.append(factor)
            change, state = update(state, gradient + damping * displacement, rate * factor)
            displacement = displacement + change
    return anchor, displacement, np.array(factors), np.array(largest)


def trained(loss, solver, schedule, **options):
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "key": oracles.KEY, "record_every": 1} | options
    problem, params = il.Problem(oracles.mlp, loss), oracles.mlp_params()
    return il.train(problem, solver, schedule, params, oracles.data(loss), **options)


def assert_is(solution, wanted):
    anchor, displacement, factors, _ = wanted
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-8, rtol=0)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-8, rtol=0)
    np.testing.assert_allclose(solution.records["rate_factor"], [1, *factors], rtol=1e-8)


@pytest.mark.parametrize(
    ("schedule", "optimiser"),
    [
        ("every-4", "momentum"),
        ("never", "adam"),
        ("at", "momentum"),
        ("geometric", "adam"),
        ("until", "momentum"),
        ("after", "adam"),
    ],
)
def test_a_cosine_begins_anew_at_every_anchor_and_ends_with_the_run(schedule, optimiser):
    made, update = OPTIMISERS[optimiser]
    when, starts = SCHEDULES[schedule]
    solver = il.WeightSpace(made, window_rate=il.CosineWindow(0.25))
    wanted = by_hand(ENTROPY, update, starts, cosine)
    assert_is(trained(ENTROPY, solver, when), wanted)
    assert wanted[2].min() < 0.5


@pytest.mark.parametrize("schedule", ["every-4", "at", "every step"])
def test_a_warm_up_begins_anew_at_every_anchor(schedule):
    when, starts = SCHEDULES[schedule]
    solver = il.WeightSpace(OPTIMISERS["adam"][0], window_rate=il.WarmUpWindow(3))
    wanted = by_hand(SQUARED, adam, starts, warm_up, known=schedule != "every step")
    assert_is(trained(SQUARED, solver, when), wanted)
    assert wanted[2].min() < 0.5


def test_a_cosine_of_a_given_length_goes_with_adaptive_schedules():
    solver = il.WeightSpace(OPTIMISERS["momentum"][0], window_rate=il.CosineWindow(0.25, steps=3))
    found = trained(ENTROPY, solver, il.WhenError(0.05, 2))
    steps = 1 + np.flatnonzero(np.diff(found.records["feature_updates"]))
    starts = [0, *(int(step) - 1 for step in steps)]  # counted in the record after the update's step
    assert len(starts) > 2
    assert_is(found, by_hand(ENTROPY, momentum, starts, lambda k, _: cosine(k, 3)))


@pytest.mark.parametrize("drive", ["compiled", "host"])
@pytest.mark.parametrize(
    ("loss", "course", "full", "damping"),
    [
        (ENTROPY, None, False, 0.0),
        (SQUARED, il.CosineWindow(0.25), True, 0.7),
        (SQUARED, il.WarmUpWindow(3), False, 0.0),
    ],
)
def test_the_rate_is_capped_at_every_anchor(loss, course, full, damping, drive):
    """The factor is above the cap at some steps and below it at others."""
    cap = {ENTROPY: 0.1, SQUARED: 0.15}[loss]
    solver = il.WeightSpace(
        OPTIMISERS["momentum"][0],
        proximal=damping,
        window_rate=course,
        rate_cap=il.RateCap(cap, COURSE, BETA, products=EXACT),
    )
    found = trained(loss, solver, il.Every(4), drive=drive, batch_size=None if full else oracles.BATCH)
    own = {type(None): None, il.CosineWindow: cosine, il.WarmUpWindow: warm_up}[type(course)]
    wanted = by_hand(loss, momentum, EVERY_4, own, cap, full, damping=damping)
    assert_is(found, wanted)
    np.testing.assert_allclose(found.records["anchor_sharpness"][1:], wanted[3][np.arange(STEPS) // 4], rtol=1e-8)
    products = found.records["curvature_products"]
    assert (np.diff(products) > 0).tolist() == [step in EVERY_4 for step in range(STEPS)]
    uncapped = by_hand(loss, momentum, EVERY_4, own, None, full, damping=damping)[2]
    assert 0 < np.sum(uncapped > wanted[2]) < STEPS


def test_the_cap_looks_at_a_probe_where_there_is_one():
    probe = tuple(part[3:] for part in oracles.data(ENTROPY))
    solver = il.WeightSpace(OPTIMISERS["momentum"][0], rate_cap=il.RateCap(0.1, COURSE, BETA, EXACT, probe))
    assert_is(trained(ENTROPY, solver, il.Every(4)), by_hand(ENTROPY, momentum, EVERY_4, None, 0.1, probe=probe))


def test_the_cap_acts_on_ordinary_training():
    solver = il.WeightSpace(OPTIMISERS["momentum"][0], rate_cap=il.RateCap(0.1, COURSE, BETA, EXACT))
    assert_is(trained(ENTROPY, solver, il.Every(1)), by_hand(ENTROPY, momentum, EVERY_1, None, 0.1))


def test_function_space_has_the_same_rates():
    rates = {"window_rate": il.CosineWindow(0.25), "rate_cap": il.RateCap(0.15, COURSE, BETA, EXACT)}
    for full, options in ((True, {"batch_size": None}), (False, {})):
        found = trained(SQUARED, il.FunctionSpace(OPTIMISERS["momentum"][0], **rates), il.Every(4), **options)
        assert_is(found, by_hand(SQUARED, momentum, EVERY_4, cosine, 0.15, full))


@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_lanes_have_rates_of_their_own(drive):
    """Periods, warm-ups, caps and rates are traced, and K = 1 is among the lanes."""
    lanes = {"k": jnp.asarray([1, 4, 100]), "warm": jnp.asarray([2, 3, 5]), "c": jnp.asarray([0.3, 0.1, 0.2])}

    def make(lane):
        optimiser, cap = optax.sgd(COURSE, momentum=BETA), il.RateCap(lane["c"], COURSE, BETA, EXACT)
        solver = il.WeightSpace(optimiser, window_rate=il.WarmUpWindow(lane["warm"]), rate_cap=cap)
        return il.Run(il.Problem(oracles.mlp, ENTROPY), solver, il.Every(lane["k"]), oracles.mlp_params(), oracles.KEY)

    options = {"num_steps": STEPS, "batch_size": oracles.BATCH, "record_every": 1, "drive": drive}
    found = il.train_lanes(make, lanes, oracles.data(ENTROPY), **options)
    for solution, starts, steps, cap in zip(found, (EVERY_1, EVERY_4, [0]), (2, 3, 5), (0.3, 0.1, 0.2), strict=True):
        course = functools.partial(warm_up, steps=steps)
        assert_is(solution, by_hand(ENTROPY, momentum, starts, course, cap))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_ordinary_training_is_a_plain_loop_bit_for_bit(name):
    optimiser, _ = OPTIMISERS[name]
    for course in (il.CosineWindow(), il.WarmUpWindow(5)):
        found = trained(ENTROPY, il.WeightSpace(optimiser, window_rate=course), il.Every(1))
        batches = oracles.minibatches(*oracles.data(ENTROPY), STEPS)
        wanted = oracles.ordinary_loop(oracles.mlp, ENTROPY, optimiser, oracles.mlp_params(), batches)
        assert oracles.same_bits(found.params, wanted)
        assert (found.records["rate_factor"] == 1).all()


def test_few_products_from_the_last_vector_come_close():
    """Ten products on a batch of all examples: λ_max is bounded from above, and missed by a few per cent at most."""
    solver = il.WeightSpace(OPTIMISERS["momentum"][0], rate_cap=il.RateCap(0.3, COURSE, BETA))
    found = trained(ENTROPY, solver, il.Every(2), batch_size=None)
    anchor, dense = oracles.flat(oracles.mlp_params()), oracles.data(ENTROPY)
    first = np.linalg.eigvalsh(quadratic.Model(ENTROPY, jnp.asarray(anchor), *dense).gauss_newton)[-1]
    assert 0.97 * first <= found.records["anchor_sharpness"][1] <= first * (1 + 1e-12)
    last = np.linalg.eigvalsh(quadratic.Model(ENTROPY, oracles.flat(found.anchor), *dense).gauss_newton)[-1]
    assert 0.97 * last <= found.records["anchor_sharpness"][-1] <= last * (1 + 1e-12)


def test_a_loss_without_curvature_has_no_cap():
    x, y = oracles.data(SQUARED)
    problem = il.Problem(oracles.mlp, quadratic.HUBER)
    solver = il.WeightSpace(optax.sgd(RATE), rate_cap=il.RateCap(0.1, RATE))
    far = il.train(problem, solver, il.Every(2), oracles.mlp_params(), (x, y + 100), num_steps=4, key=oracles.KEY)
    assert far.records["anchor_sharpness"][-1] == 0
    assert far.records["rate_factor"][-1] == 1


REFUSED = [
    (lambda: il.WeightSpace(optax.sgd(0.1), window_rate=0.5), TypeError, "`window_rate` must be one such as"),
    (lambda: il.FunctionSpace(optax.sgd(0.1), rate_cap=0.5), TypeError, "`rate_cap` must be a relin.RateCap or None"),
    (lambda: il.CosineWindow(2.0), ValueError, "`floor` must be between 0 and 1, got 2.0"),
    (lambda: il.CosineWindow(steps=0), ValueError, "`steps` must be at least 1, got 0"),
    (lambda: il.WarmUpWindow(-1), ValueError, "`steps` must be at least 0, got -1"),
    (lambda: il.RateCap(0.0, 0.1), ValueError, "`c` must be above 0 and finite, got 0.0"),
    (lambda: il.RateCap(0.5, 0.1, 1.0), ValueError, "`momentum` must be at least 0 and below 1, got 1.0"),
    (lambda: il.RateCap(0.5, 0.1, products=0), ValueError, "`products` must be at least 1, got 0"),
    (lambda: il.RateCap(0.5, 0.1, products=5.0), TypeError, "`products` must be an integer, got 5.0"),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED)
def test_what_is_no_rate_is_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def kinds(weights, biases):
    return {"w": weights, "b": biases, "v": weights}


RAMP = optax.linear_schedule(0.1, 1.0, 10_000)
LATE = optax.piecewise_constant_schedule(0.1, {50_000: 0.1})
CAP, CAP_OF_MOMENTUM = il.RateCap(0.5, 0.1), il.RateCap(0.5, 0.1, BETA)
WRONG = {
    "another rate": (CAP_OF_MOMENTUM, optax.sgd(0.2, momentum=BETA)),
    "no momentum": (CAP_OF_MOMENTUM, optax.sgd(0.1)),
    "another momentum": (CAP_OF_MOMENTUM, optax.sgd(0.1, momentum=0.95)),
    "a momentum": (CAP, optax.sgd(0.1, momentum=BETA)),
    "Nesterov": (CAP_OF_MOMENTUM, optax.sgd(0.1, momentum=BETA, nesterov=True)),
    "a mean": (CAP, optax.chain(optax.ema(BETA), optax.sgd(0.1))),
    "adam": (CAP_OF_MOMENTUM, optax.adam(0.1)),
    "muon": (CAP_OF_MOMENTUM, optax.contrib.muon(0.1)),
    "lion": (CAP_OF_MOMENTUM, optax.lion(0.1)),
    "MultiSteps": (CAP_OF_MOMENTUM, optax.MultiSteps(optax.sgd(0.1, momentum=BETA), 2)),
    "L-BFGS": (CAP, optax.lbfgs(0.1, memory_size=2, linesearch=None)),
    "a line search": (CAP, optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(5))),
    "weight decay": (CAP, optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))),
    "Polyak's rate": (CAP, optax.polyak_sgd(0.1)),
    "one part's rate": (CAP, optax.chain(optax.masked(optax.scale(1.1), kinds(False, True)), optax.sgd(0.1))),
    "noise": (CAP, optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1))),
    "another course": (il.RateCap(0.5, COURSE), optax.sgd(RAMP)),
    "a later course": (il.RateCap(0.5, lambda step: 0.1 + 0 * step), optax.sgd(LATE)),
    "a course injected": (il.RateCap(0.5, LATE), optax.inject_hyperparams(optax.sgd)(RAMP)),
    "a course for a number": (il.RateCap(0.5, RAMP), optax.sgd(0.1)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_cap_that_does_not_know_the_optimiser_is_refused(name):
    cap, optimiser = WRONG[name]
    with pytest.raises(
        ValueError, match=r"RateCap bounds the rate of gradient descent.* got rate .* at step \d+ and mom"
    ):
        cap.check(optimiser, oracles.mlp_params())


def test_a_run_refuses_it():
    solver = il.WeightSpace(optax.sgd(0.2), rate_cap=CAP)
    with pytest.raises(
        ValueError, match=r"RateCap bounds the rate of gradient descent.* got rate 0\.1 at step 0 and mom"
    ):
        trained(ENTROPY, solver, il.Every(4))


@pytest.mark.parametrize("course", [RAMP, LATE, optax.cosine_decay_schedule(0.1, 10**6), optax.constant_schedule(0.1)])
def test_a_number_is_not_the_rate_of_a_schedule(course):
    """Whose first rates may be alike."""
    for optimiser in (optax.sgd(course), optax.inject_hyperparams(optax.sgd)(course)):
        with pytest.raises(ValueError, match=r"got a schedule in the optimiser and the number 0\.1; pass the schedule"):
            CAP.check(optimiser, oracles.mlp_params())


def test_a_rate_that_follows_the_loss_is_no_number():
    for cap in (CAP, il.RateCap(0.5, lambda step: 0.1 + 0 * step)):
        with pytest.raises(
            ValueError, match=r"got optax\.contrib\.reduce_on_plateau, whose rate follows the loss; leave"
        ):
            cap.check(optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()), oracles.mlp_params())


RIGHT = {
    "clipping": (CAP_OF_MOMENTUM, optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=BETA))),
    "a chain": (CAP_OF_MOMENTUM, optax.chain(optax.clip(0.1), optax.trace(BETA), optax.scale(-0.1))),
    "injected": (CAP_OF_MOMENTUM, optax.apply_if_finite(optax.inject_hyperparams(optax.sgd)(0.1, momentum=BETA), 3)),
    "courses": (il.RateCap(0.5, RAMP), optax.sgd(RAMP)),
    "a course injected": (il.RateCap(0.5, RAMP, BETA), optax.inject_hyperparams(optax.sgd)(RAMP, momentum=BETA)),
    "a course that begins at 0": (
        il.RateCap(0.5, optax.linear_schedule(0.0, 0.1, 100)),
        optax.sgd(optax.linear_schedule(0.0, 0.1, 100)),
    ),
    "a course that ends at 0": (il.RateCap(0.5, COURSE), optax.sgd(COURSE)),
    "little weight decay": (CAP, optax.chain(optax.add_decayed_weights(1e-3), optax.sgd(0.1))),
    "weight decay of none": (
        CAP,
        optax.chain(optax.add_decayed_weights(1.0, kinds(False, False)), optax.sgd(0.1)),
    ),
    "parts": (CAP, optax.partition({"one": optax.sgd(0.1), "two": optax.sgd(0.1)}, kinds("one", "two"))),
    "half precision inside": (
        CAP_OF_MOMENTUM,
        optax.sgd(0.1, momentum=BETA, accumulator_dtype=jnp.bfloat16),
    ),
    "single precision inside": (
        CAP_OF_MOMENTUM,
        optax.sgd(0.1, momentum=BETA, accumulator_dtype=jnp.float32),
    ),
    "a number of NumPy": (il.RateCap(0.5, np.float32(0.1), jnp.asarray(BETA)), optax.sgd(0.1, momentum=BETA)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_cap_knows_gradient_descent_however_it_is_put_together(name):
    cap, optimiser = RIGHT[name]
    for dtype in (jnp.float64, jnp.bfloat16, jnp.float16):
        cap.check(optimiser, oracles.mlp_params(dtype))


@pytest.mark.parametrize(
    ("options", "schedule", "message"),
    [
        (
            {"window_rate": il.CosineWindow()},
            il.WhenError(0.1),
            r"CosineWindow\(\) needs the lengths of windows .* When",
        ),
        ({"window_rate": il.WarmUpWindow(2)}, il.PerParameter({"*": il.Every(2)}), "must be used with one schedule"),
        ({"rate_cap": il.RateCap(0.5, 0.1)}, il.PerParameter({"*": il.Every(2)}), "must be used with one schedule"),
    ],
)
def test_schedules_without_windows_known_beforehand_are_refused(options, schedule, message):
    with pytest.raises(ValueError, match=message):
        trained(ENTROPY, il.WeightSpace(optax.sgd(0.1), **options), schedule)


def test_a_probe_is_checked_as_data_are():
    x, y = oracles.data(ENTROPY)
    solver = il.WeightSpace(optax.sgd(0.1), rate_cap=il.RateCap(0.5, 0.1, probe=(x, y + 7)))
    with pytest.raises(ValueError, match=r"In `probe` of RateCap: Targets must be"):
        trained(ENTROPY, solver, il.Every(4))


def test_batches_may_come_from_python():
    solver = il.WeightSpace(OPTIMISERS["momentum"][0], rate_cap=il.RateCap(0.1, COURSE, BETA, EXACT))
    batches, problem = oracles.minibatches(*oracles.data(ENTROPY), STEPS), il.Problem(oracles.mlp, ENTROPY)
    options = {"num_steps": STEPS, "key": oracles.KEY, "record_every": 1}
    found = il.train(problem, solver, il.Every(4), oracles.mlp_params(), batches, **options)
    assert_is(found, by_hand(ENTROPY, momentum, EVERY_4, None, 0.1))


def test_rates_go_with_safeguards_and_averages_in_every_drive():
    """A window begins anew where a safeguard has judged, and where it has refused."""
    solver = il.WeightSpace(
        OPTIMISERS["momentum"][0],
        window_rate=il.WarmUpWindow(2),
        rate_cap=il.RateCap(0.2, COURSE, BETA, EXACT),
        averaging=il.UniformAverage(),
    )
    for guard in (il.LineSearch(), il.LineSearch(shrink=0.9, max_halvings=0, probe=refusing())):
        compiled, host = (
            trained(ENTROPY, solver, il.Every(4), safeguard=guard, drive=drive) for drive in ("compiled", "host")
        )
        np.testing.assert_allclose(oracles.flat(compiled.params), oracles.flat(host.params), atol=1e-9, rtol=0)
        for name in ("rate_factor", "anchor_sharpness", "safeguard_scale"):
            np.testing.assert_allclose(compiled.records[name], host.records[name], rtol=1e-8, err_msg=name)
        assert compiled.records["rate_factor"][[1, 5, 9]].max() < 0.5
    assert compiled.feature_updates == 0


def refusing():
    """Examples whose loss every step raises: their classes are those that the network gives the least."""
    x, y = oracles.data(ENTROPY)
    return x, (y + 1) % oracles.NUM_CLASSES
