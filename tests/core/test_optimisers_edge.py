"""Optimisers that want more than a gradient, against loops written out; and those that cannot train here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._core import tree as _tree
from relin._solver import SolverState

LOSS = il.CrossEntropy()
PROBLEM = il.Problem(oracles.mlp, LOSS)
X, Y = oracles.data(LOSS)
STEPS = 7

ASCENT = optax.chain(optax.contrib.normalize(), optax.sgd(0.3))
SAM = optax.contrib.sam(optax.sgd(0.2, momentum=0.5), ASCENT, opaque_mode=True)
OPTIMISERS = {
    "sam": (optax.chain(optax.clip(0.1), SAM), ("grad_fn",)),
    "sophia": (optax.contrib.sophia(0.5, gamma=30.0, update_interval=2), ("obj_fn",)),
    "momo": (optax.contrib.momo(0.5), ("value",)),
    "mechanic": (optax.contrib.mechanize(optax.adamw(0.1, mask={"w": True, "b": False, "v": True}), s_init=0.1), ()),
    "prodigy": (optax.contrib.prodigy(1.0, estim_lr0=0.1), ()),
    "dadapt": (optax.contrib.dadapt_adamw(1.0, estim_lr0=0.1), ()),
    "dog": (optax.contrib.dog(1.0, init_step=("distance", 0.3)), ()),
    "gathered": (optax.MultiSteps(optax.adam(0.1), 2), ()),
    "finite": (optax.apply_if_finite(optax.contrib.reduce_on_plateau(patience=1, rtol=0.5), 3), ("value",)),
}


def trained(optimiser, schedule, data=(X, Y), **options):
    solver = il.WeightSpace(optimiser, **{name: options.pop(name) for name in ("on_relinearise",) if name in options})
    problem = options.pop("problem", PROBLEM)
    return il.train(problem, solver, schedule, oracles.mlp_params(), data, num_steps=STEPS, key=oracles.KEY, **options)


def by_hand(optimiser, asked, period, batches=STEPS * ((X, Y),)):
    """θ after steps of the optimiser on f(θ_s) + J_s (θ − θ_s), with θ_s taken anew every `period` steps, and the
    losses before them. At a period of 1 the optimiser asks the network itself: the plain loop."""

    @jax.jit
    def step(anchor, params, state, x, y):
        def loss(p):
            outputs, change = jax.jvp(lambda q: oracles.mlp(q, x), (anchor,), (jax.tree.map(jnp.subtract, p, anchor),))
            return oracles.mean_loss(LOSS, oracles.mlp(p, x) if period == 1 else outputs + change, y)

        value, gradient = jax.value_and_grad(loss)(params)
        offered = {"value": value, "obj_fn": loss, "grad_fn": lambda p, i: jax.grad(loss)(p)}
        updates, state = optimiser.update(gradient, state, params, **{name: offered[name] for name in asked})
        return optax.apply_updates(params, updates), state, value

    params = anchor = oracles.mlp_params()
    state, losses = optimiser.init(params), []
    for t, (x, y) in enumerate(batches):
        anchor = params if t % period == 0 else anchor
        params, state, loss = step(anchor, params, state, x, y)
        losses.append(float(loss))
    return oracles.flat(params), np.array(losses)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_trains_the_linearised_problem(name):
    optimiser, asked = OPTIMISERS[name]
    wanted = {period: by_hand(optimiser, asked, period)[0] for period in (1, 3)}
    for period in (1, 3):
        found = trained(optimiser, il.Every(period)).params
        np.testing.assert_allclose(oracles.flat(found), wanted[period], atol=1e-10, rtol=0)
    assert np.max(np.abs(wanted[1] - wanted[3])) > 1e-6


BAD = (X.at[3].set(jnp.nan), Y)
FORGIVING = optax.chain(optax.apply_if_finite(optax.sgd(0.3, momentum=0.9), 1), optax.scale(0.5))


@pytest.mark.parametrize(("period", "drive"), [(1, "compiled"), (3, "compiled"), (3, "host")])
def test_a_run_goes_on_where_the_optimiser_passes_over_a_batch(period, drive):
    places = oracles.batch_indices(STEPS)
    bad = (places == 3).any(axis=1)
    assert 0 < bad.sum() < STEPS - 1
    assert not (bad[1:] & bad[:-1]).any()
    wanted, losses = by_hand(FORGIVING, (), period, [(BAD[0][i], BAD[1][i]) for i in places])
    options = {"batch_size": oracles.BATCH, "drive": drive, "record_every": STEPS}
    solution = trained(FORGIVING, il.Every(period), BAD, **options)
    assert solution.result is il.Result.successful
    np.testing.assert_allclose(oracles.flat(solution.params), wanted, atol=1e-11, rtol=0)
    np.testing.assert_allclose(solution.records["training_loss"][-1], losses[~bad].mean(), rtol=1e-10)
    (counters,) = [s for s in solution.optimiser_state if isinstance(s, optax.ApplyIfFiniteState)]
    assert counters.total_notfinite == bad.sum()


def test_it_has_diverged_once_the_optimiser_gives_up():
    first = int(np.argmax((oracles.batch_indices(STEPS) == 3).any(axis=1)))
    options = {"batch_size": oracles.BATCH, "throw": False}
    for optimiser, step in (
        (optax.sgd(0.3), first),
        (optax.apply_if_finite(optax.sgd(0.3), 0), first),
    ):
        assert trained(optimiser, il.Every(1), BAD, **options).diverged_at == step
    solution = trained(FORGIVING, il.Every(3), (X * jnp.nan, Y), throw=False)
    assert (solution.result, solution.diverged_at) == (il.Result.diverged, 1)


def test_a_run_that_ends_while_batches_are_passed_over_has_failed():
    rates = jnp.asarray([1e200, 0.3])  # the first step of the first lane makes the outputs overflow

    def make(rate):
        solver = il.WeightSpace(optax.apply_if_finite(optax.sgd(rate), 1000))
        return il.Run(
            il.Problem(oracles.mlp, il.SquaredError()), solver, il.Every(1), oracles.mlp_params(), oracles.KEY
        )

    data = oracles.data(il.SquaredError())
    lanes = il.train_lanes(make, rates, data, num_steps=STEPS)
    assert [lane.result for lane in lanes] == [il.Result.solver_failed, il.Result.successful]
    assert f"the last {STEPS - 1} gradients were not finite" in lanes[0].reason
    assert np.isfinite(oracles.flat(lanes[0].params)).all()


UNSUITED = {
    "schedule_free, which .*; pass its base optimiser": optax.contrib.schedule_free_adamw(0.1),
    "lookahead, which .*; pass its fast optimiser": optax.lookahead(optax.sgd(0.1), 2, 0.5),
    "sam without opaque_mode, which .*; pass opaque_mode=True": optax.contrib.sam(optax.sgd(0.1), ASCENT),
    "private_aggregate, which .*; train with it in a loop": optax.contrib.differentially_private_aggregate(1.0, 0.1, 0),
}


@pytest.mark.parametrize("message", UNSUITED)
@pytest.mark.parametrize("solver", [il.WeightSpace, il.FunctionSpace])
def test_what_cannot_train_here_is_refused(message, solver):
    optimiser = optax.chain(UNSUITED[message], optax.scale(0.5))
    options = {"num_steps": 2, "key": oracles.KEY}
    with pytest.raises(ValueError, match=message) as refusal:
        il.train(PROBLEM, solver(optimiser), il.Never(), oracles.mlp_params(), (X, Y), **options)
    assert "\n" not in str(refusal.value)


def test_an_optimiser_of_ones_own_that_returns_no_updates_is_refused():
    lost = optax.stateless(lambda updates, params: updates["w"])
    with pytest.raises(ValueError, match="must return an update of each parameter"):
        trained(lost, il.Every(1))


def test_what_is_asked_for_and_not_given_is_refused_before_the_first_step():
    def update(updates, state, params, *, hessian, **others):
        raise AssertionError

    with pytest.raises(TypeError, match=r"given gradients.*`value_fn`.*hessian.*; wrap it") as refusal:
        trained(optax.GradientTransformationExtraArgs(lambda params: (), update), il.Every(1))
    assert not hasattr(refusal.value, "solution")


def test_function_space_does_not_forgive():
    solver = il.FunctionSpace(optax.apply_if_finite(optax.sgd(0.1), 3))
    with pytest.raises(ValueError, match=r"FunctionSpace ends a run .*; use WeightSpace"):
        il.train(PROBLEM, solver, il.Never(), oracles.mlp_params(), (X, Y), num_steps=2, key=oracles.KEY)


def test_function_space_gathers_gradients_in_the_parameters_type_alone():
    def run(solver):
        arguments = il.Every(3), oracles.mlp_params(), (X, Y)
        return oracles.flat(il.train(PROBLEM, solver, *arguments, num_steps=STEPS, key=oracles.KEY).params)

    sgd = optax.sgd(0.3, momentum=0.9)
    with pytest.raises(ValueError, match=r"in the parameters' own types.*accumulator_dtype; pass it"):
        run(il.FunctionSpace(optax.MultiSteps(sgd, 2)))
    gathered = optax.MultiSteps(sgd, 2, accumulator_dtype=jnp.float64)
    np.testing.assert_allclose(run(il.FunctionSpace(gathered)), run(il.WeightSpace(gathered)), atol=1e-12)


@pytest.mark.parametrize("on_relinearise", ["reset", 0.5])
def test_counts_and_courses_outlive_a_linearisation(on_relinearise):
    """Of accumulation, of failures, of noise and of a plateau, where the moments inside begin anew."""
    params = oracles.mlp_params()
    gathered = optax.MultiSteps(optax.adam(0.1), 2)
    optimiser = optax.chain(
        optax.apply_if_finite(gathered.gradient_transformation(), 3),
        optax.add_noise(0.1, 0.5, 7),
        optax.contrib.reduce_on_plateau(patience=1),
    )
    solver, state = il.WeightSpace(optimiser, on_relinearise), optimiser.init(params)
    update = jax.jit(optimiser.update)
    for factor in (1.0, 2.0, jnp.nan, 4.0):
        _, state = update(jax.tree.map(lambda p, f=factor: f * p, params), state, params, value=jnp.asarray(2.0))
    carried = solver.relinearise(SolverState(params, jax.tree.map(jnp.zeros_like, params), state)).optimiser
    kept = 0.5 if on_relinearise == 0.5 else 0.0
    adam, now = (s[0].inner_state.inner_opt_state[0] for s in (state, carried))
    assert adam.mu["w"].any()
    np.testing.assert_allclose(now.mu["w"], kept * adam.mu["w"])
    blank = [s[0]._replace(inner_state=s[0].inner_state._replace(inner_opt_state=())) for s in (state, carried)]
    for one, other in ((blank[0], blank[1]), (state[1:], carried[1:])):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(_tree.numbers(a), _tree.numbers(b)), one, other)
    assert blank[1].total_notfinite == 1
    assert blank[1].inner_state.mini_step == 1
