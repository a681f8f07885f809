"""Optimisers by name: their runs in studies against plain loops, with every modifier, and the rate's course."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from relin.studies.frequency.settings import FrequencySpec
from relin.study import SpecError, parse_condition, read_spec
from relin.study._condition import every
from relin.study._grid import Job, RunSpec
from relin.study._optimisers import RateCourse, names
from relin.study._runner import Runner
from relin.study._settings import STORED

SMALL = {"model_options": {"width": 6, "depth": 1}, "train_limit": 40, "batch_size": 40, "probe_size": 8}
STEPS, SEED = 9, 3
KEY = jax.random.key(0)
OPTIONS = {
    "sgd": {},
    "momentum": {},
    "adam": {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
    "adamw": {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "weight_decay": 0.5},
    "lion": {"b1": 0.8, "b2": 0.7, "weight_decay": 0.5},
    "muon": {"beta": 0.8, "ns_steps": 3, "weight_decay": 0.5, "consistent_rms": 0.1, "adam_b1": 0.7, "eps": 1e-3},
}
MAKE = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "adam": optax.adam,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "muon": optax.contrib.muon,
}


def spec_of(name, **settings):
    return FrequencySpec(
        **SMALL, steps=STEPS, num_records=1, optimiser=name, optimiser_options=OPTIONS[name], **settings
    )


def by_hand(name, rate):
    """As written in a script: warm-up in the first two of nine steps, then down to 0 along a line."""
    after = optax.linear_schedule(rate, 0.0, 7)
    return MAKE[name](lambda t: jnp.where(t < 2, rate * (t + 1) / 3, after(t - 2)), **OPTIONS[name])


@pytest.fixture(scope="module")
def runner_of():
    kept = {}

    def runner(name):
        if name not in kept:
            kept[name] = Runner(spec_of(name, warm_up=0.23, layers=["layers.0", "layers.1"]))
        return kept[name]

    return runner


def started(runner):
    return runner.network, runner.initial(SEED)


@pytest.mark.parametrize("name", [n if n == "adam" else pytest.param(n, marks=pytest.mark.slow) for n in names()])
def test_runs_of_an_optimiser_are_plain_loops_and_their_rates_share_a_program(name, runner_of):
    runner, rates = runner_of(name), (0.03, 0.003)
    runs = tuple(RunSpec(parse_condition("every-1"), STEPS, rate, SEED) for rate in rates)
    again = runner.make(every(1), spec_of(name, warm_up=0.23, layers=runner.spec.layers))
    made = runner.make(every(1), runner.spec)
    assert len({made, again}) == 1  # so that later jobs and studies find the compiled program
    records = runner.train(Job("compare", runs)).filter(step=STEPS)
    (apply, params), (x, y), test = started(runner), runner.data, runner.test

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

    for rate in rates:
        now, optimiser = params, by_hand(name, rate)
        state, step = optimiser.init(params), jax.jit(optimiser.update)
        for _ in range(STEPS):
            updates, state = step(jax.grad(loss)(now, x, y), state, now)
            now = optax.apply_updates(now, updates)
        record = records.filter(learning_rate=rate)
        assert record["network_test_loss"].item() == pytest.approx(float(loss(now, *test)), rel=1e-4)
        moved = optax.tree.norm(jax.tree.map(jnp.subtract, now, params)) / optax.tree.norm(params)
        assert record["parameter_movement"].item() == pytest.approx(float(moved), rel=1e-4)


CONDITIONS = {
    "every-3+clip-0.5+trust-0.3+proximal-0.5+reset": (0.5, {"proximal": 0.5, "on_relinearise": "reset"}),
    "every-3+line-1+shrink-0.5": (None, {"on_relinearise": 0.5}),
    "every-3+sparse": (None, {}),  # Lion's steps do not grow with the gradient
    "rich-1+clip-0.5+proximal-0.5": (0.5, {"proximal": 0.5}),
}
SAFEGUARDS = {"trust": il.TrustRegion(0.3), "line": il.LineSearch(1.0)}


# What a modifier does to a state depends on how it is nested: flat for Adam and Lion, by kind of parameter for Muon.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "condition"),
    list(zip(["adam", "muon", "lion", "muon", "adamw"], [*CONDITIONS, "every-3+line-1+shrink-0.5"], strict=True)),
)
def test_an_optimiser_with_a_modifier_is_the_run_put_together_by_hand(name, condition, runner_of):
    runner, rate = runner_of(name), 0.03
    records = runner.train(Job("compare", (RunSpec(parse_condition(condition), STEPS, rate, SEED),)))
    (apply, params), (clip, options) = started(runner), CONDITIONS[condition]
    optimiser = by_hand(name, rate)
    if clip is not None:
        optimiser = optax.chain(optax.clip_by_global_norm(clip), optimiser)
    rich = il.PerParameter({"layers.1*": il.Every(1), "*": il.Never()})
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optimiser, **options),
        rich if condition.startswith("rich") else il.Every(3),
        params,
        runner.data,
        num_steps=STEPS,
        batch_size=40,
        key=jax.random.fold_in(jax.random.key(SEED), 1),
        safeguard=next((s for part, s in SAFEGUARDS.items() if part in condition), None),
        observers=[il.Performance(runner.test, "test"), il.Movement()],
        record_every=STEPS,
    )
    for column in ("test_loss", "parameter_movement"):
        np.testing.assert_allclose(records[column], solution.records[column], rtol=1e-4)


@pytest.mark.parametrize("outputs", ["last", "first", "none"])
def test_muon_is_for_matrices_and_its_adam_for_all_else(outputs):
    """The singular values of a matrix' update are about 0.2 √(larger side); kernels of convolutions are matrices to
    their outputs, or move as by Adam where it is not said which axis these are."""
    rng = np.random.default_rng(0)
    params = {"matrix": jnp.zeros((8, 5)), "kernel": jnp.zeros((3, 2, 2, 5)), "bias": jnp.zeros(4)}
    gradients = [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params) for _ in range(2)]
    options = {"optimiser": "muon", "decay": "none", "optimiser_options": {"output_axis": outputs}}
    optimiser = read_spec("frequency", overrides=options).trained_by.make(0.1, 5)
    adam = optax.adam(0.1, nesterov=True)
    state, own = optimiser.init(params), adam.init(params)
    for gradient in gradients:
        updates, state = optimiser.update(gradient, state, params)
        wanted, own = adam.update(gradient, own, params)
        for name in ("kernel", "bias") if outputs == "none" else ("bias",):
            np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-9)
        matrices = [updates["matrix"]]
        if outputs != "none":
            kernel = np.moveaxis(updates["kernel"], 0 if outputs == "first" else -1, -1)
            matrices.append(kernel.reshape(-1, kernel.shape[-1]))
        for matrix in matrices:
            values = np.linalg.svd(matrix, compute_uv=False) / (0.1 * 0.2 * math.sqrt(max(matrix.shape)))
            assert ((values > 0.5) & (values < 1.5)).all()


def test_of_which_axis_a_kernels_outputs_are_is_known_of_named_networks_alone():
    def outputs(**settings):
        options = {"optimiser": "muon", **settings}
        return read_spec("frequency", overrides=options).optimiser_options["output_axis"]

    assert outputs(model="cnn") == "last"
    assert outputs(model=f"{__file__}:build") == "none"
    assert outputs(model=f"{__file__}:build", optimiser_options={"output_axis": "first"}) == "first"
    with pytest.raises(SpecError, match="output_axis of muon must be one of last, first, none, got 0"):
        outputs(optimiser_options={"output_axis": 0})


def test_settings_of_muon_stored_without_an_axis_are_of_runs_whose_kernels_adam_trained():
    settings = FrequencySpec(optimiser="muon", model="cnn").model_dump(mode="json")
    assert FrequencySpec.model_validate(settings, context=STORED).optimiser_options["output_axis"] == "last"
    del settings["optimiser_options"]["output_axis"]
    assert FrequencySpec.model_validate(settings, context=STORED).optimiser_options["output_axis"] == "none"


@pytest.mark.parametrize("decay", ["linear", "cosine", "none"])
@pytest.mark.parametrize(("warm_up", "first"), [(0.0, 0), (0.29, 29), (0.99, 99)])
def test_the_rate_over_a_run(decay, warm_up, first):
    steps, course = np.arange(100), RateCourse(decay, warm_up)
    done = (steps - first) / (100 - first)
    falls = {"linear": 1 - done, "cosine": (1 + np.cos(np.pi * done)) / 2, "none": 1 + 0 * done}[decay]
    wanted = [(t + 1) / (first + 1) if t < first else falls[t] for t in steps]
    np.testing.assert_allclose(course.shares(steps, 100), wanted, rtol=1e-12)
    rates = course.rates(0.3, 100)
    found = [rates(t) for t in steps] if callable(rates) else 100 * [rates]
    np.testing.assert_allclose(found, 0.3 * np.array(wanted), rtol=1e-6, atol=1e-9)


def test_an_optimiser_brings_its_own_rates_and_options():
    for name in names():
        spec = read_spec("kernel", overrides={"optimiser": name, "data": "mnist1d"})
        rates = spec.learning_rates
        assert name == "momentum" or (len(rates) == 7 and 999 < rates[0] / rates[-1] < 1001)
        assert type(spec).model_validate_json(spec.model_dump_json()) == spec
    assert read_spec("kernel", overrides={"optimiser": "momentum"}) == read_spec("kernel")
    assert read_spec("kernel", overrides={"optimiser": "lion", "learning_rates": [0.5]}).learning_rates == [0.5]
    assert read_spec("frequency", "mnist1d", {"optimiser": "adam"}).reference_rate is None
    same = [{"b1": 0.9}, {"b1": 0.9, "b2": 0.999, "eps": 1e-8}, {}]
    assert len({str(read_spec("layers", overrides={"optimiser": "adam", "optimiser_options": o})) for o in same}) == 1


def test_settings_of_before_there_were_optimisers_are_those_of_sgd_with_momentum():
    spec = FrequencySpec.model_validate({"study": "frequency", "momentum": 0.5, "decay": "cosine"})
    assert (spec.optimiser, spec.momentum, spec.optimiser_options, spec.warm_up) == ("momentum", 0.5, {}, 0)
    assert FrequencySpec().momentum == 0.9
    assert FrequencySpec(optimiser="sgd").momentum == 0
    assert FrequencySpec(optimiser="adam").momentum is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimiser": "adm"}, "optimiser: the optimisers are sgd, momentum, adam, adamw, lion, muon"),
        ({"optimiser": "adam", "momentum": 0.5}, "momentum: adam is not SGD with momentum.*; set b1, b2, eps in"),
        ({"optimiser": "sgd", "momentum": 0.5}, "momentum: sgd has no momentum; name the optimiser momentum"),
        (
            {"optimiser": "lion", "optimiser_options": {"eps": 1}},
            "lion has no option eps; its options are b1, b2, weig",
        ),
        ({"optimiser_options": {"b1": 0.5}}, "momentum has no option b1; its only setting is momentum"),
        (
            {"optimiser": "adam", "optimiser_options": {"b1": 1}},
            "b1 of adam must be a number of at least 0 and below 1",
        ),
        (
            {"optimiser": "adam", "optimiser_options": {"eps": math.nan}},
            "eps of adam must be a number of at least 1e-30",
        ),
        (
            {"optimiser": "muon", "optimiser_options": {"ns_steps": 2.5}},
            "ns_steps of muon must be a whole number of at",
        ),
        ({"optimiser": "muon", "optimiser_options": {"beta": True}}, "beta of muon must be a number"),
        ({"warm_up": 1}, "warm_up: Input should be less than or equal to 0.99"),
        ({"decay": "step"}, "decay: Input should be 'linear', 'cosine' or 'none'"),
    ],
)
def test_wrong_optimisers_are_refused(settings, message):
    with pytest.raises(SpecError, match=message) as refusal:
        read_spec("frequency", overrides=settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("study", ["damping", "interpolation"])
def test_studies_of_gradient_descent_take_no_optimiser(study):
    with pytest.raises(SpecError, match=f"optimiser: the study {study} is about gradient descent on the full batch"):
        read_spec(study, overrides={"optimiser": "adam"})


def test_the_page_of_optimisers_says_their_options_and_rates():
    page = (Path(__file__).parents[2] / "docs" / "optimisers.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `") and row.count("|") == 4}
    assert sorted(set(rows) - {"optimiser"}) == sorted(names())
    for name in names():
        spec = FrequencySpec(optimiser=name)
        _, _, options, rates, _ = rows[name].split("|")
        assert rates.strip() == ", ".join(f"{rate:g}" for rate in spec.learning_rates)
        wanted = ", ".join(
            f"`{option}` {value if isinstance(value, str) else f'{value:g}'}"
            for option, value in spec.optimiser_options.items()
        )
        assert options.strip() == (wanted or {"sgd": "–", "momentum": "the setting `momentum`, 0.9"}[name])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rate: optax.contrib.schedule_free_sgd(rate), "^optimiser: .*schedule_free, .*; pass its base"),
        (lambda rate: optax.lookahead(optax.sgd(rate), 2, 0.5), "^optimiser: .*lookahead, .*; pass its fast"),
        (lambda rate: rate, "^optimiser: .*must return an optax.GradientTransformation"),
    ],
)
def test_own_optimisers_that_cannot_train_are_refused_before_a_study_trains(make, message, tmp_path):
    study = il.study.Frequency(**SMALL, steps=4, optimiser=make)
    with pytest.raises(ValueError, match=message):
        study.run(tmp_path / "study", progress=False)


def test_windows_of_equal_time_need_the_course_of_the_rate():
    with pytest.raises(ValueError, match=r"equal-time-3 needs the course of the learning rate, which .* name an opt"):
        il.study.Frequency(**SMALL, steps=8, optimiser=lambda rate: optax.sgd(rate), methods=["equal-time-3"])


def test_an_own_optimiser_may_gather_gradients_and_pass_over_some():
    def make(rate):
        return optax.MultiSteps(optax.apply_if_finite(optax.sgd(rate), 3), 2)

    runner = Runner(il.study.Frequency(**SMALL, steps=STEPS, num_records=1, optimiser=make).spec)
    records = runner.train(Job("compare", (RunSpec(parse_condition("every-3"), STEPS, 0.1, SEED),)))
    apply, params = started(runner)
    solver = il.WeightSpace(optax.chain(optax.apply_every(2), optax.sgd(0.05)))  # two gradients, summed
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()), solver, il.Every(3), params, runner.data, num_steps=STEPS, key=KEY,
        observers=[il.Performance(runner.test, "test")], record_every=STEPS,
    )  # fmt: skip
    np.testing.assert_allclose(records["test_loss"], solution.records["test_loss"], rtol=1e-5)
