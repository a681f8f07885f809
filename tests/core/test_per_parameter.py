"""Parts of a network re-linearise on schedules of their own, as a dense loop does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

STEPS = 13
LOSS = il.CrossEntropy()
X, Y = oracles.data(LOSS)
SGD = optax.sgd(0.3, momentum=0.5)
NAMES = ["b", "v", "w"]  # the order of the PyTree, and of the flat vector


def train(schedule, optimiser=SGD, solver=None, num_steps=STEPS, **options):
    return il.train(
        il.Problem(oracles.mlp, LOSS),
        solver or il.WeightSpace(optimiser),
        schedule,
        oracles.mlp_params(),
        (X, Y),
        num_steps=num_steps,
        batch_size=oracles.BATCH,
        key=oracles.KEY,
        **options,
    )


def dense(optimiser, moves):
    """The explicit linear model at the parts' joint anchor; `moves(step, name, now)` says which parts move."""
    model, params = oracles.dense_of(oracles.mlp), oracles.mlp_params()
    sizes = {name: params[name].size for name in NAMES}
    ends = np.cumsum([sizes[name] for name in NAMES])
    slices = {name: slice(end - sizes[name], end) for name, end in zip(NAMES, ends, strict=True)}
    anchor = oracles.flat(params).copy()
    displacement, state = np.zeros_like(anchor), optimiser.init(jnp.asarray(anchor))
    for step, (x, y) in enumerate(oracles.minibatches(X, Y, STEPS)):
        moving = [slices[n] for n in NAMES if step > 0 and moves(step, n, (model, anchor, displacement, x))]
        for part in moving:
            anchor[part] += displacement[part]
            displacement[part] = 0
        jacobian = model.jacobian(anchor, x)
        gradient = oracles.dense_gradient(LOSS, model.value(anchor, x) + jacobian @ displacement, jacobian, y)
        updates, state = optimiser.update(jnp.asarray(gradient), state, jnp.asarray(anchor + displacement))
        displacement = displacement + np.asarray(updates)
    return anchor, displacement


@pytest.mark.parametrize("optimiser", [SGD, optax.adamw(0.05)], ids=["sgd", "adamw"])
@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_periods_of_their_own(drive, optimiser):
    periods = {"b": 3, "v": 1, "w": 1000}
    anchor, displacement = dense(optimiser, lambda step, name, now: step % periods[name] == 0)
    schedule = il.PerParameter({"b": il.Every(3), "w": il.Never(), "*": il.Every(1)})
    solution = train(schedule, optimiser, drive=drive)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-11)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-11)
    np.testing.assert_array_equal(solution.anchor["w"], oracles.mlp_params()["w"])
    assert solution.feature_updates == STEPS - 1
    counts = {name: int(column[-1]) for name, column in solution.records.items() if "/" in name}
    assert counts == {"feature_updates/b": 4, "feature_updates/w": 0, "feature_updates/*": 12}


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_an_adaptive_part(drive):
    """One part asks for the linearisation error of the whole network at every second step, another has a period."""
    tolerance, asked = 0.15, []

    def moves(step, name, now):
        model, anchor, displacement, x = now
        if name != "w":
            return name == "v" and step % 3 == 0
        if step % 2:
            return False
        x = x[: len(x) // 2]
        network, at_anchor = model.value(anchor + displacement, x), model.value(anchor, x)
        linearised = model.linearised(anchor, displacement, x)
        asked.append(np.linalg.norm(network - linearised) / np.linalg.norm(network - at_anchor))
        return asked[-1] >= tolerance

    anchor, displacement = dense(SGD, moves)
    assert min(asked) < tolerance < max(asked)
    schedule = il.PerParameter({"w": il.WhenError(tolerance, 2), "v": il.Every(3), "b": il.Never()})
    solution = train(schedule, drive=drive)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-11)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-11)
    assert solution.records["feature_updates/w"][-1] == sum(error >= tolerance for error in asked)


def test_it_is_kept(tmp_path):
    solution = train(il.PerParameter({"w": il.Every(3), "*": il.Never()}))
    loaded = il.load(solution.save(tmp_path / "run"), oracles.mlp_params())
    assert oracles.same_bits((loaded.anchor, loaded.displacement), (solution.anchor, solution.displacement))
    np.testing.assert_array_equal(loaded.records["feature_updates/w"], solution.records["feature_updates/w"])


def test_one_schedule_for_all_parts_is_that_schedule():
    for schedule in (il.Every(4), il.Never(), il.WhenError(0.1, 2)):
        parts = train(il.PerParameter({"w": schedule, "*": schedule}))
        whole = train(schedule)
        assert oracles.same_bits((parts.anchor, parts.displacement), (whole.anchor, whole.displacement))
        assert parts.feature_updates == whole.feature_updates


def test_every_step_for_all_parts_is_ordinary_training():
    parts, whole = train(il.PerParameter({"w": il.Every(1), "*": il.Every(1)})), train(il.Every(1))
    assert oracles.same_bits(parts.params, whole.params)
    assert parts.records["feature_updates/w"][-1] == whole.feature_updates


def test_full_batches_are_linearised_anew_where_a_part_moves():
    """Between them the residuals are reused, see `_program.repeats`."""
    options = {"num_steps": STEPS, "key": oracles.KEY}
    schedule = il.PerParameter({"w": il.Every(5), "*": il.Every(2)})
    problem, params = il.Problem(oracles.mlp, LOSS), oracles.mlp_params()
    found = [
        il.train(problem, il.WeightSpace(SGD), schedule, params, (X, Y), drive=drive, **options)
        for drive in ("compiled", "host")
    ]
    batches = il.train(problem, il.WeightSpace(SGD), schedule, params, [(X, Y)], **options)  # each is linearised
    for solution in found:
        np.testing.assert_allclose(oracles.flat(solution.params), oracles.flat(batches.params), atol=1e-12)


def test_frozen_from_a_step_on():
    schedule = il.Until(il.PerParameter({"w": il.Every(2), "*": il.Every(3)}), 7)
    solution = train(schedule)
    anchor, displacement = dense(SGD, lambda step, name, now: step < 7 and step % (2 if name == "w" else 3) == 0)
    np.testing.assert_allclose(oracles.flat(solution.anchor), anchor, atol=1e-11)
    np.testing.assert_allclose(oracles.flat(solution.displacement), displacement, atol=1e-11)


def test_lanes_with_periods_of_their_own():
    problem, params = il.Problem(oracles.mlp, LOSS), oracles.mlp_params()

    def make(k):
        schedule = il.PerParameter({"w": il.Every(k), "*": il.Every(2 * k)})
        return il.Run(problem, il.WeightSpace(SGD), schedule, params, oracles.KEY)

    for drive in ("map", "vmap"):
        lanes = il.train_lanes(
            make, jnp.asarray([2, 3]), (X, Y), num_steps=STEPS, batch_size=oracles.BATCH, drive=drive
        )
        for k, lane in zip((2, 3), lanes, strict=True):
            single = train(il.PerParameter({"w": il.Every(k), "*": il.Every(2 * k)}))
            np.testing.assert_allclose(oracles.flat(lane.params), oracles.flat(single.params), atol=1e-12)
            assert lane.feature_updates == single.feature_updates


def parts_of(**schedules):
    return il.PerParameter(schedules)


EVERY = il.Every(2)
REFUSALS = [
    (lambda: il.PerParameter({}), TypeError, "must map patterns of names to schedules"),
    (lambda: il.PerParameter({"w": 3}), TypeError, "got {'w': 3}; pass"),
    (lambda: il.PerParameter({"*": il.Until(parts_of(w=EVERY), 3)}), TypeError, "a PerParameter for '\\*'"),
    (lambda: train(parts_of(w=EVERY)), ValueError, 'got none for b, v; add a pattern "\\*"'),
    (lambda: train(parts_of(w=EVERY, x=EVERY)), ValueError, "got 'x'; the names are b, v, w"),
    (lambda: train(il.PerParameter({"*": EVERY, "w": EVERY})), ValueError, "got none for 'w'.*put it first"),
    (
        lambda: train(il.PerParameter({"*": EVERY}), solver=il.FunctionSpace(SGD)),
        ValueError,
        r"must be used with WeightSpace.*got FunctionSpace\(",
    ),
    (
        lambda: train(il.PerParameter({"*": EVERY}), solver=il.WeightSpace(SGD, on_relinearise="reset")),
        ValueError,
        "on_relinearise='reset'",
    ),
    (
        lambda: train(il.PerParameter({"*": EVERY}), safeguard=il.TrustRegion(1.0)),
        ValueError,
        "without a safeguard, got TrustRegion",
    ),
]


@pytest.mark.parametrize(("run", "error", "match"), REFUSALS)
def test_refusals(run, error, match):
    with pytest.raises(error, match=match):
        run()


def test_names_of_nested_parameters():
    names = il.PerParameter({"layers.0.*": il.Never(), "head": il.Every(1), "layers.*": il.Every(2)})
    params = {"layers": [{"w": jnp.ones(2)}, {"w": jnp.ones(2)}], "head": jnp.ones(3)}
    flags = names.relinearised(jnp.asarray([False, True, False]), params)
    assert jax.tree.map(bool, flags) == {"layers": [{"w": False}, {"w": False}], "head": True}
