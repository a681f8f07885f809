"""The runs that studies make, against the same runs put together by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from relin.studies.frequency.settings import FrequencySpec
from relin.study import parse_condition
from relin.study._condition import every
from relin.study._grid import Job, RunSpec, single_run
from relin.study._runner import Runner
from relin.study._schedules import AbstractByLayer

SPEC = FrequencySpec(model_options={"width": 8, "depth": 1}, steps=24, batch_size=32, check_every=4, num_records=2)
RATE, SEED = 0.1, 3
COURSE = optax.linear_schedule(RATE, 0.0, SPEC.steps)


def solver(*clip, **options):
    optimiser = optax.sgd(COURSE, momentum=0.9)
    return il.WeightSpace(optax.chain(*clip, optimiser) if clip else optimiser, **options)


BY_HAND = {
    "every-4": (solver(), il.Every(4), None),
    "never": (solver(), il.Never(), None),
    "when-error-0.1": (solver(), il.WhenError(0.1, 4), None),
    "when-loss-gap-0.01": (solver(), il.WhenLossGap(0.01, 4), None),
    "when-moves-0.1": (solver(), il.WhenFunctionMoves(0.1, 4), None),
    "until-5": (solver(), il.Until(il.Every(1), 6), None),
    "after-9": (solver(), il.After(il.Every(1), 9), None),
    "rich-1": (solver(), il.PerParameter({"layers.1*": il.Every(1), "*": il.Never()}), None),
    "lazy-0": (solver(), il.PerParameter({"layers.0*": il.Never(), "*": il.Every(1)}), None),
    "even-3": (solver(), il.AtSteps([6, 12, 18]), None),
    "equal-time-3": (solver(), il.AtSteps([3, 7, 12]), None),  # 24 (1 − √(1 − i/4)): 3.2, 7.03, 12
    "every-4+clip-0.5": (solver(optax.clip_by_global_norm(0.5)), il.Every(4), None),
    "every-4+line-1": (solver(), il.Every(4), il.LineSearch(1.0)),
    "every-4+grid-3": (solver(), il.Every(4), il.GridSearch((1.0, 2**-0.5, 0.5))),
    "every-4+trust-0.3": (solver(), il.Every(4), il.TrustRegion(0.3)),
    "every-4+proximal-0.5": (solver(proximal=0.5), il.Every(4), None),
    "every-4+reset": (solver(on_relinearise="reset"), il.Every(4), None),
    "every-4+shrink-0.5": (solver(on_relinearise=0.5), il.Every(4), None),
    "every-4+average": (solver(averaging=il.UniformAverage()), il.Every(4), None),
    "every-4+average-0.9": (solver(averaging=il.ExponentialAverage(0.9)), il.Every(4), None),
    "every-4+bound-0.01": (solver(bound=il.DisplacementBound(0.01)), il.Every(4), None),
    "every-4+sparse": (solver(optax.clip_by_global_norm(0.3)), il.Every(4), None),
    "every-5+cosine": (solver(window_rate=il.CosineWindow()), il.Every(5), None),
    "when-error-0.1+warm-3": (solver(window_rate=il.WarmUpWindow(3)), il.WhenError(0.1, 4), None),
    "even-3+cap-0.01": (solver(rate_cap=il.RateCap(0.01, COURSE, 0.9)), il.AtSteps([6, 12, 18]), None),
}


@pytest.fixture(scope="module")
def runner():
    return Runner(SPEC)


@pytest.fixture(scope="module")
def by_layer():
    """The same settings where layers have names."""
    return Runner(SPEC.model_copy(update={"layers": ["layers.0", "layers.1"]}))


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_HAND)
def test_a_method_by_name_is_the_run_put_together_by_hand(runner, by_layer, name):
    runner = by_layer if isinstance(parse_condition(name).schedule, AbstractByLayer) else runner
    run = RunSpec(parse_condition(name), SPEC.steps, RATE, SEED)
    records = runner.train(Job("compare", (run,)))
    key = jax.random.key(SEED)
    apply, params = runner.make(every(1), SPEC).network.of_seed(SEED)
    by_hand = il.train(
        il.Problem(apply, il.CrossEntropy()),
        BY_HAND[name][0],
        BY_HAND[name][1],
        params,
        runner.data,
        num_steps=SPEC.steps,
        batch_size=SPEC.batch_size,
        key=jax.random.fold_in(key, 1),
        safeguard=BY_HAND[name][2],
        observers=runner._observers(None),
        record_every=12,
    )
    assert records["schedule"].unique().to_list() == [name]
    assert records["feature_updates"][-1] == by_hand.feature_updates
    np.testing.assert_allclose(records["test_loss"], by_hand.records["test_loss"], rtol=1e-4)
    np.testing.assert_allclose(records["parameter_movement"], by_hand.records["parameter_movement"], rtol=1e-4)


def test_a_single_step_has_no_windows_of_equal_time(by_layer):
    condition = parse_condition("equal-time-3")
    schedule = condition.schedule.make({}, by_layer.make(condition, SPEC, 1))
    assert not any(schedule.due(step) for step in range(1, 9))


def test_a_layer_that_is_not_named_is_refused(by_layer):
    run = RunSpec(parse_condition("rich-2"), SPEC.steps, RATE, SEED)
    with pytest.raises(ValueError, match=r"rich-2: the settings name 2 layers, counted from 0"):
        by_layer.train(Job("compare", (run,)))


@pytest.mark.parametrize(("optimiser", "name"), [("adam", "adam"), ("optax:adam", "adam"), ("sgd", None)])
def test_a_cap_is_for_gradient_descent(optimiser, name):
    settings = {"optimiser": optimiser, "steps": 9, "methods": ["every-4+cap-0.5"]}
    if name is None:
        assert parse_condition("every-4+cap-0.5") in FrequencySpec(**settings).all_conditions()
        return
    with pytest.raises(ValueError, match=rf"cap-0\.5 caps .* got the optimiser {name}; leave it out, or name sgd"):
        FrequencySpec(**settings)
    with pytest.raises(ValueError, match=rf"got the optimiser {name}"):
        single_run(FrequencySpec(optimiser=optimiser), "every-4+cap-0.5", 0.1, 0)


def test_lanes_of_a_job_differ_in_numbers_only(runner):
    names = ["every-2+clip-0.1", "every-8+clip-1", "never+clip-0.5"]
    runs = tuple(RunSpec(parse_condition(name), SPEC.steps, RATE, SEED) for name in names)
    together = runner.train(Job("compare", runs))
    for run in runs:
        alone = runner.train(Job("compare", (run,)))
        same = together.filter(schedule=run.condition.name)
        np.testing.assert_allclose(same["test_loss"], alone["test_loss"], rtol=1e-5)


@pytest.mark.slow
def test_sharpness_is_the_largest_eigenvalue_of_the_linearised_problem():
    with jax.enable_x64(True):
        apply, params = il.from_equinox(il.models.build("mlp", (3,), 4, key=jax.random.key(0), width=5, depth=1))
        params = jax.tree.map(lambda a: a.astype(jnp.float64), params)
        x, y = jax.random.normal(jax.random.key(1), (7, 3), jnp.float64), jnp.arange(7) % 4
        problem = il.Problem(apply, il.CrossEntropy())
        flat, restore = jax.flatten_util.ravel_pytree(params)
        observed = il.train(
            problem,
            il.WeightSpace(optax.sgd(0.1)),
            il.Never(),
            params,
            (x, y),
            num_steps=3,
            batch_size=None,
            key=jax.random.key(2),
            observers=[il.Sharpness((x, y), tolerance=1e-12, max_iterations=5000)],
            record_every=3,
        )
        displacement = jax.flatten_util.ravel_pytree(observed.displacement)[0]
        jacobian = jax.jacobian(lambda p: apply(restore(p), x))(flat)

        def loss(delta):
            return problem.loss.mean(apply(params, x) + jacobian @ delta, y)

        for record, delta in zip(observed.records["sharpness"], (0 * displacement, displacement), strict=True):
            largest = np.linalg.eigvalsh(jax.hessian(loss)(delta))[-1]
            assert record == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize(("options", "message"), [({"tolerance": 0.0}, "tolerance"), ({"max_iterations": 0}, "max_it")])
def test_sharpness_refuses_an_iteration_that_cannot_end(options, message):
    with pytest.raises(ValueError, match=message):
        il.Sharpness((np.zeros((2, 3)), np.zeros(2, int)), **options)


def test_a_period_no_run_reaches_is_never():
    assert math.isinf(parse_condition("never").value)
