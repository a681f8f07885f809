"""Presets: what they are made of, that their parts run together, and that they train where a period alone diverges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import relin as il
from core import oracles

LOSS = il.CrossEntropy()
X, Y = oracles.data(LOSS)
TRACES = []


def counted(params, x):
    TRACES.append(x.shape)
    return oracles.mlp(params, x)


PROBLEM = il.Problem(counted, LOSS)
RATE, MOMENTUM, PERIOD, STEPS, CLIP = 0.5, 0.8, 3, 10, 0.5


def sgd(rate=RATE):
    return optax.sgd(rate, momentum=MOMENTUM)


def trained(preset, steps=STEPS):
    return il.train(
        PROBLEM,
        preset.solver,
        preset.schedule,
        oracles.mlp_params(),
        (X, Y),
        num_steps=steps,
        batch_size=oracles.BATCH,
        key=oracles.KEY,
        safeguard=preset.safeguard,
    )


def by_hand():
    """Clipped linearised SGD with momentum on dense parameters; also how often it clipped."""
    dense = oracles.dense_of(oracles.mlp)
    anchor = np.asarray(oracles.flat(oracles.mlp_params()))
    displacement, velocity, clipped = np.zeros_like(anchor), np.zeros_like(anchor), 0
    for step, index in enumerate(oracles.batch_indices(STEPS)):
        if step % PERIOD == 0 and step > 0:
            anchor, displacement = anchor + displacement, np.zeros_like(anchor)
        outputs, jacobian = dense.linearised(anchor, displacement, X[index]), dense.jacobian(anchor, X[index])
        gradient = oracles.dense_gradient(LOSS, outputs, jacobian, Y[index])
        length = np.linalg.norm(gradient)
        clipped += length > CLIP
        velocity = MOMENTUM * velocity + gradient * min(1.0, CLIP / length)
        displacement = displacement - RATE * velocity
    return anchor + displacement, clipped


def test_it_is_clipped_linearised_training():
    solution = trained(il.preset.sparse(sgd(), PERIOD, clip=CLIP))
    expected, clipped = by_hand()
    assert 0 < clipped < STEPS  # the comparison sees both kinds of step
    np.testing.assert_allclose(oracles.flat(solution.params), expected, atol=1e-12, rtol=0)
    assert solution.feature_updates == -(-STEPS // PERIOD) - 1


def test_the_default_is_a_bound_of_0_3_and_no_safeguard():
    preset = il.preset.sparse(sgd(), PERIOD)
    assert isinstance(preset.schedule, il.Every)
    assert preset.schedule.k == PERIOD
    assert (preset.solver.on_relinearise, preset.safeguard) == ("keep", None)
    optimiser = optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(RATE))
    steep, gentle = jnp.asarray([6.0, 8.0]), jnp.asarray([0.03, 0.04])
    for gradient, length in ((steep, 0.3), (gentle, 0.05)):
        ours = il.preset.sparse(optax.sgd(RATE), PERIOD).solver.optimiser
        update, _ = ours.update(gradient, ours.init(gradient), gradient)
        theirs, _ = optimiser.update(gradient, optimiser.init(gradient), gradient)
        np.testing.assert_array_equal(update, theirs)
        np.testing.assert_allclose(np.linalg.norm(update), RATE * length, rtol=1e-12)


GROWING = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "warming up": optax.sgd(optax.linear_schedule(0.0, 0.1, 50)),
    "injected": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
    "clipped at more": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
    "gathering": optax.MultiSteps(optax.sgd(0.1), 4),
    "decayed": optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1)),
    "noisy": optax.noisy_sgd(0.1, key=0),
    "of one part": optax.partition({"a": optax.adam(1.0), "s": optax.sgd(0.1)}, {"w": "a", "b": "s", "v": "a"}),
    "at a tiny rate": optax.sgd(1e-30),
    "bounded above 0.3": optax.adagrad(0.1),
    "bounded above 0.03": optax.yogi(0.1),
}
BOUNDED = {
    "adam": optax.adam(1e-3),
    "adamw": optax.adamw(1e-3),
    "warming up": optax.adam(optax.linear_schedule(0.0, 0.1, 50)),
    "lion": optax.lion(1e-3),
    "muon": optax.contrib.muon(0.02, muon_weight_dimension_numbers=il.preset.matrices()),
    "rmsprop": optax.rmsprop(1e-3),
    "lars": optax.lars(0.1),
    "gathering": optax.MultiSteps(optax.adam(1e-3), 4),
    "normalised": optax.chain(optax.contrib.normalize(), optax.sgd(0.1)),
    "prodigy": optax.contrib.prodigy(),
    "waiting": optax.chain(optax.adam(1e-3), optax.apply_every(7)),
    "at a tiny rate": optax.adam(1e-30),
    "with a penalty": optax.chain(optax.add_decayed_weights(0.1), optax.adam(1e-3)),
}


@pytest.mark.parametrize(("kind", "grows"), [*((kind, True) for kind in GROWING), *((kind, False) for kind in BOUNDED)])
def test_only_an_optimiser_whose_step_grows_with_the_gradient_is_clipped(kind, grows):
    optimiser = (GROWING if grows else BOUNDED)[kind]
    ours, params = il.preset.sparse(optimiser, PERIOD, clip=0.5).solver.optimiser, oracles.mlp_params()
    states = [ours.init(params), jax.jit(ours.init)(params)]
    assert [float(state[0].bound) for state in states] == [0.5 if grows else np.inf] * 2
    steep = jax.tree.map(lambda leaf: jnp.full_like(leaf, 7.0), params)
    theirs = optax.chain(optax.clip_by_global_norm(0.5), optimiser) if grows else optimiser
    update, _ = jax.jit(ours.update)(steep, states[0], params)
    expected, _ = jax.jit(theirs.update)(steep, theirs.init(params), params)
    np.testing.assert_allclose(oracles.flat(update), oracles.flat(expected), rtol=1e-12)


@pytest.mark.parametrize("norm", [0.0, 300.0])
@pytest.mark.parametrize("size", [3, 400])
def test_the_kind_of_an_optimiser_does_not_depend_on_the_parameters(size, norm):
    params = {"w": jnp.full((size, size), norm / size, jnp.float32), "b": jnp.zeros(size, jnp.bfloat16)}
    found = {}
    for name in ("rmsprop", "adadelta", "lars", "adam", "sgd"):
        optimiser = optax.chain(optax.add_decayed_weights(5e-4), getattr(optax, name)(0.1))
        found[name] = float(il.preset.sparse(optimiser, PERIOD).solver.optimiser.init(params)[0].bound)
    assert found == {"rmsprop": np.inf, "adadelta": np.inf, "lars": np.inf, "adam": np.inf, "sgd": np.float32(0.3)}


@pytest.mark.parametrize("on_relinearise", ["reset", 0.5])
@pytest.mark.parametrize(("optimiser", "bound"), [(optax.adam(0.03), np.inf), (sgd(), 0.3)], ids=["adam", "sgd"])
def test_the_bound_outlives_a_relinearisation(optimiser, bound, on_relinearise):
    preset = il.preset.sparse(optimiser, PERIOD, on_relinearise=on_relinearise)
    clipped = optimiser if bound == np.inf else optax.chain(optax.clip_by_global_norm(bound), optimiser)
    by_hand = il.preset.Preset(il.WeightSpace(clipped, on_relinearise), preset.schedule, None)
    found, expected = trained(preset), trained(by_hand)
    assert float(found.optimiser_state[0].bound) == bound
    np.testing.assert_allclose(oracles.flat(found.params), oracles.flat(expected.params), rtol=1e-12)


def test_muon_takes_kernels_as_matrices_of_their_outputs():
    params = {
        "bias": jnp.ones(3),
        "dense": jnp.ones((5, 3)),
        "kernel": jnp.ones((2, 4, 5, 3)),
        "first": jnp.ones((3, 5, 2)),
    }
    last, first = il.preset.matrices()(params), il.preset.matrices(0)(params)
    assert last["bias"] is first["bias"] is None
    assert last["dense"] == first["dense"] == optax.contrib.MuonDimensionNumbers()
    assert last["kernel"] == optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    assert first["first"] == optax.contrib.MuonDimensionNumbers((1, 2), 0)
    kernel = jax.random.normal(oracles.KEY, (2, 4, 5, 3))
    as_matrix = kernel.reshape(40, 3)
    options = {"muon_weight_dimension_numbers": il.preset.matrices()}
    muon, plain = optax.contrib.muon(0.02, **options), optax.contrib.muon(0.02)
    update, _ = muon.update(kernel, muon.init(kernel), kernel)
    expected, _ = plain.update(as_matrix, plain.init(as_matrix), as_matrix)
    np.testing.assert_allclose(update.reshape(40, 3), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="`output_axis` must be -1, the last, or 0, got 2"):
        il.preset.matrices(2)


def test_a_schedule_a_safeguard_and_the_rest_are_passed_on():
    schedule, safeguard = il.Geometric(2, 2.0), il.LineSearch()
    preset = il.preset.sparse(sgd(), schedule, safeguard=safeguard, on_relinearise="reset")
    assert preset.schedule is schedule
    assert preset.safeguard is safeguard
    assert preset.solver.on_relinearise == "reset"
    assert trained(preset).records["safeguard_evaluations"][-1] > 0
    with pytest.raises(AttributeError):
        preset.schedule = il.Never()


def made(lane):
    preset = il.preset.sparse(sgd(lane["rate"]), lane["k"], clip=lane["clip"])
    return il.Run(PROBLEM, preset.solver, preset.schedule, oracles.mlp_params(), oracles.KEY, preset.safeguard)


def lanes(*periods):
    return {"k": jnp.asarray(periods), "rate": jnp.asarray([RATE, 0.2]), "clip": jnp.asarray([CLIP, 2.0])}


def test_lanes_with_other_periods_rates_and_bounds_share_a_program():
    options = {"num_steps": STEPS, "batch_size": oracles.BATCH}
    TRACES.clear()
    together = il.train_lanes(made, lanes(PERIOD, 100), (X, Y), **options)
    assert TRACES
    TRACES.clear()
    il.train_lanes(made, lanes(2, 4), (X, Y), **options)
    assert not TRACES
    alone = trained(il.preset.sparse(sgd(), PERIOD, clip=CLIP))
    np.testing.assert_allclose(oracles.flat(together[0].params), oracles.flat(alone.params), atol=1e-12, rtol=0)
    assert (together[0].feature_updates, together[1].feature_updates) == (alone.feature_updates, 0)


def test_a_preset_with_another_period_finds_its_program():
    optimiser, counts = sgd(), []
    preset = il.preset.sparse(optimiser, 2)
    for period in (2, 3):
        TRACES.clear()
        trained(il.preset.Preset(preset.solver, il.Every(period), preset.safeguard), steps=7)
        counts.append(len(TRACES))
    assert counts[0] > 0
    assert counts[1] <= 2  # the input is checked by tracing it; no program is made


@pytest.mark.slow
def test_digits_train_where_the_period_alone_diverges():
    digits = load_digits()
    x, y = jnp.asarray(digits.data[:400] / 16), jnp.asarray(digits.target[:400])
    apply, params = il.from_equinox(il.models.build("mlp", (64,), 10, key=jax.random.key(0), width=32, depth=2))
    optimiser = optax.sgd(optax.linear_schedule(0.1, 0, 320), momentum=0.9)
    options = {"num_steps": 320, "batch_size": 40, "throw": False}
    preset = il.preset.sparse(optimiser, 16)
    results, accuracies = [], []
    for solver in (il.WeightSpace(optimiser), preset.solver):
        arguments = (il.Problem(apply, LOSS), solver, preset.schedule, params, (x, y))
        end = il.train(*arguments, key=oracles.KEY, safeguard=preset.safeguard, **options)
        results.append(end.result.value)
        accuracies.append(np.mean(np.argmax(apply(end.params, x), 1) == np.asarray(y)))
    assert results == ["diverged", "successful"]
    assert accuracies[0] < 0.2
    assert accuracies[1] > 0.97


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0.1, 16), {}, TypeError, "`optimiser` must be an Optax gradient transformation, got 0.1"),
        ((sgd(), "16"), {}, TypeError, "`schedule` must be a relin schedule or a period K in whole steps, got '16'"),
        ((sgd(), True), {}, TypeError, "`schedule` must be a relin schedule or a period K in whole steps, got True"),
        ((sgd(), np.inf), {}, TypeError, "relin.Never.. for K = ∞"),
        ((sgd(), 0), {}, ValueError, "The period K must be at least 1, got 0"),
        ((sgd(), 16), {"clip": 0.0}, ValueError, "`clip` must be a number above 0, got 0.0"),
        ((sgd(), 16), {"clip": np.nan}, ValueError, "`clip` must be a number above 0, got nan"),
        ((sgd(), 16), {"clip": None}, ValueError, "`clip` must be a number above 0, got None"),
        ((sgd(), 16), {"clip": jnp.ones(2)}, ValueError, "`clip` must be one number, got shape .2,."),
        ((sgd(), 16), {"on_relinearise": "drop"}, ValueError, "`on_relinearise` must be"),
        ((sgd(), 16), {"safeguard": "search"}, TypeError, "`safeguard` must be a relin safeguard or None"),
    ],
)
def test_refusals(arguments, options, error, message):
    with pytest.raises(error, match=message) as raised:
        il.preset.sparse(*arguments, **options)
    assert str(raised.value).endswith(".")
    assert "; " in str(raised.value)
