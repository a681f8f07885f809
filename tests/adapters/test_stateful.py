"""Networks with BatchNorm and dropout: one mode and one mask a step, running statistics from the anchor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stateful
from stateful import FRAMEWORKS, KEY

import relin as il

RNG = np.random.default_rng(1)
X, Y = jnp.asarray(RNG.normal(size=(12, 8))), jnp.asarray(RNG.integers(0, 3, 12))
BATCHES = [(jnp.asarray(RNG.normal(size=(6, 8))), jnp.asarray(RNG.integers(0, 3, 6))) for _ in range(6)]


def in_double(framework, **mode):
    return stateful.network(framework, dtype=jnp.float64, **mode)


def trained(apply, params, schedule, data=None, **options):
    options = {"num_steps": 6, "key": KEY} | options
    solver = options.pop("solver", il.WeightSpace(optax.sgd(0.1, momentum=0.9)))
    return il.train(stateful.problem(apply), solver, schedule, params, data or BATCHES, **options)


def assert_close(tree, other, rtol=1e-9, atol=1e-12):
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def quickly(framework):
    """All frameworks, the others marked slow: what a test says of them follows from code that they share."""
    return [each if each == framework else pytest.param(each, marks=pytest.mark.slow) for each in FRAMEWORKS]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_network_and_its_derivative_share_a_mode_and_a_mask(framework):
    apply, params = in_double(framework)
    problem = stateful.problem(apply)
    linearised = problem.trained(problem.variables).linearise(params)
    delta = jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), params)
    difference = linearised.network(jax.tree.map(lambda d: 1e-6 * d, delta), X)
    difference -= linearised.network(jax.tree.map(lambda d: -1e-6 * d, delta), X)
    np.testing.assert_allclose(linearised.jvp(delta, X), difference / 2e-6, rtol=1e-5, atol=1e-7)
    evaluated = problem.evaluated(problem.variables).linearise(params)
    assert not np.allclose(evaluated.jvp(delta, X), linearised.jvp(delta, X), rtol=1e-2)


def dense_training(period):
    """Linen's own forward passes, dense Jacobians by finite differences of the flat parameters, plain momentum."""
    module, variables = stateful.LinenNetwork(jnp.float64), stateful.linen_variables(jnp.float64)
    anchor, unflatten = jax.flatten_util.ravel_pytree(variables["params"])
    statistics, delta, velocity = variables["batch_stats"], jnp.zeros_like(anchor), jnp.zeros_like(anchor)

    @jax.jit
    def forward(flat, statistics, x, key):
        own = {"params": unflatten(flat), "batch_stats": statistics}
        return module.apply(own, x, False, False, mutable=["batch_stats"], rngs={"dropout": key})

    @jax.jit
    def forwards(many, *here):
        return jax.vmap(lambda flat: forward(flat, *here)[0].ravel())(many)

    for step, (x, y) in enumerate(BATCHES):
        if step and step % period == 0:
            anchor, delta = anchor + delta, jnp.zeros_like(delta)

        here = statistics, x, jax.random.fold_in(KEY, step)
        ups, downs = (forwards(anchor[None] + sign * 1e-6 * jnp.eye(len(anchor)), *here) for sign in (1, -1))
        jacobian = ((ups - downs) / 2e-6).T
        outputs, changed = forward(anchor, *here)
        linear = (outputs.ravel() + jacobian @ delta).reshape(outputs.shape)
        residual = (jax.nn.softmax(linear) - jax.nn.one_hot(y, 3)) / len(y)
        velocity = 0.9 * velocity + jacobian.T @ residual.ravel()
        delta, statistics = delta - 0.1 * velocity, changed["batch_stats"]
    return unflatten(anchor + delta), statistics


@pytest.mark.parametrize("period", [2, pytest.param(4, marks=pytest.mark.slow), 100])
def test_training_is_that_of_a_dense_oracle(period):
    apply, params = in_double("linen")
    solution = trained(apply, params, il.Every(period))
    wanted, statistics = dense_training(period)
    assert_close(solution.params, wanted, 1e-5, 1e-8)  # a bias before BatchNorm has no gradient, only rounding
    assert_close(apply.with_variables(solution.variables).combine(params)["batch_stats"], statistics, 1e-7)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_running_statistics_are_of_the_anchor(framework):
    apply, params = in_double(framework)
    solution = trained(apply, params, il.Never())
    variables = apply.variables
    for x, _ in BATCHES:
        variables = apply.with_variables(variables).forward(params, x)[1]
    assert_close(solution.variables, variables)
    assert_close(trained(apply, params, il.Never(), solver=il.WeightSpace(optax.sgd(1.0))).variables, variables)


@pytest.mark.parametrize(
    ("framework", "schedule"),
    [("linen", il.Every(1)), ("linen", il.WhenError(0.05)), ("nnx", il.Every(3)), ("equinox", il.WhenError(0.05))],
)
@pytest.mark.slow
def test_every_drive_is_the_same(framework, schedule):
    apply, params = in_double(framework)
    test = il.Performance((X, Y))
    options = {"batch_size": 4, "observers": [test], "record_every": 3}
    host = trained(apply, params, schedule, (X, Y), drive="host", **options)
    compiled = trained(apply, params, schedule, (X, Y), drive="compiled", **options)
    solver = il.WeightSpace(optax.sgd(0.1, momentum=0.9))

    def make(lane):
        return il.Run(stateful.problem(apply), solver, schedule, params, lane)

    many = {
        drive: il.train_lanes(make, jnp.stack([KEY, KEY]), (X, Y), num_steps=6, drive=drive, **options)[1]
        for drive in ("map", "vmap", "host")
    }
    for other in (compiled, *many.values()):
        assert_close(host.params, other.params)
        assert_close(host.variables, other.variables)
        assert_close(host.records, other.records, 1e-7)
        assert other.mode == "batch statistics and dropout"


@pytest.mark.parametrize("framework", quickly("nnx"))
def test_records_are_of_the_network_as_it_is_evaluated(framework):
    apply, params = in_double(framework)
    solution = trained(apply, params, il.Every(1), observers=[il.Performance((X, Y), "test")])
    outputs = apply.with_variables(solution.variables)(solution.params, X)
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, Y).mean()
    np.testing.assert_allclose(solution.records["network_test_loss"][-1], loss, rtol=1e-9)


MODES = [("frozen", False, "frozen"), ("batch", False, "batch statistics"), ("frozen", True, "dropout")]
QUICK_MODES = list(zip(FRAMEWORKS, MODES, strict=True))


@pytest.mark.parametrize(
    ("framework", "statistics", "dropout", "mode"),
    [
        pytest.param(framework, *mode, marks=[] if (framework, mode) in QUICK_MODES else pytest.mark.slow)
        for framework in FRAMEWORKS
        for mode in MODES
    ],
)
def test_modes(framework, statistics, dropout, mode):
    apply, params = in_double(framework, statistics=statistics, dropout=dropout)
    problem = stateful.problem(apply)
    solution = trained(apply, params, il.Every(2))
    assert solution.mode == problem.mode == problem.trained(problem.variables).mode == mode
    found = il.check(problem, params, (X, Y))
    assert (found.mode, found.obstacle, found.deterministic) == (mode, None, True)
    if not dropout:  # a mask is drawn for a batch at once
        assert found.independent == (statistics == "frozen")
    if mode == "frozen":
        assert solution.variables is None
        return
    again = trained(apply, params, il.Every(2))
    assert_close(solution.params, again.params, 0)
    frozen = trained(*in_double(framework, statistics="frozen", dropout=False), il.Every(2))
    assert not np.allclose(*(jax.flatten_util.ravel_pytree(s.params)[0] for s in (solution, frozen)))


def test_frozen_statistics_stay():
    apply, params = in_double("linen", statistics="frozen")
    solution = trained(apply, params, il.Every(2))
    after = apply.with_variables(solution.variables).combine(params)["batch_stats"]
    assert_close(after, apply.combine(params)["batch_stats"], 0)


@pytest.mark.parametrize("framework", quickly("linen"))
def test_saved_and_loaded(framework, tmp_path):
    apply, params = in_double(framework)
    solution = trained(apply, params, il.Every(2))
    loaded = il.load(solution.save(tmp_path), params, variables=apply.variables)
    assert_close(loaded.variables, solution.variables, 0)
    assert loaded.mode == solution.mode
    assert_close(
        apply.with_variables(loaded.variables)(loaded.params, X),
        apply.with_variables(solution.variables)(solution.params, X),
        0,
    )


@pytest.mark.parametrize("framework", quickly("equinox"))
def test_a_part_of_the_parameters(framework):
    apply, params = in_double(framework)
    part, own = il.trainable(apply, params, "*readout*" if framework != "linen" else "Dense_1*")
    assert (part.mode, len(own)) == (apply.mode, 2)
    solution = trained(part, own, il.Every(2))
    moved = part.with_variables(solution.variables)
    assert not np.allclose(moved(own, X), part(own, X))
    np.testing.assert_array_equal(moved(own, X), apply.with_variables(solution.variables)(params, X))


@pytest.mark.parametrize("framework", quickly("linen"))
def test_safeguards_and_other_solvers(framework):
    apply, params = in_double(framework)
    guarded = trained(apply, params, il.Every(2), safeguard=il.LineSearch())
    assert np.isfinite(guarded.records["training_loss"][-1])
    newton = trained(apply, params, il.Every(1), solver=il.GaussNewton(damping=1.0))
    assert newton.records["training_loss"][-1] < np.log(3) + 0.5
    with pytest.raises(ValueError, match=r"FunctionSpace needs a network that is the same at every step.*dropout"):
        trained(apply, params, il.Every(2), (X, Y), solver=il.FunctionSpace(optax.sgd(0.1)))


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_running_statistics_cost_no_forward_pass_of_their_own():
    apply, params = in_double("linen", dropout=False)
    problem = stateful.problem(apply)

    def own(params, variables):
        def loss(p):
            outputs, after = apply.with_variables(variables).forward(p, X)
            return stateful.loss_of(outputs, Y), after

        return jax.value_and_grad(loss, has_aux=True)(params)

    def ordinary(params, variables):
        return problem.trained(variables).value_grad_and_variables(params, X, Y)

    def linearised(params, variables, delta):
        return problem.trained(variables).linearised_value_grad_and_variables(params, delta, X, Y)

    arguments = params, apply.variables
    assert flops(ordinary, *arguments) == pytest.approx(flops(own, *arguments), rel=1e-2)
    assert flops(linearised, *arguments, params) < 1.75 * flops(own, *arguments)


REFUSALS = [
    (lambda: il.from_nnx(stateful.NNXNetwork(), statistics="running"), r'must be "frozen" or "batch"'),
    (lambda: il.from_nnx(stateful.NNXNetwork(), dropout=0.3), r"must be True or False"),
    (lambda: il.from_nnx(nnx_linear(), dropout=True), r"dropout to be on, got Linear"),
    (lambda: il.from_nnx(nnx_linear(), statistics="batch"), r"BatchNorm for batch statistics, got Linear"),
    (lambda: network_of_linen(mutable=["cache"]), r"collections of `variables`, got 'cache'; there are batch_stats"),
    (lambda: network_of_linen(rngs={"dropout": 3}), r"`key` must be one random key"),
    (lambda: equinox_of(statistics=None), r"must say how a module with a state is trained"),
    (lambda: equinox_of(state=None), r"Batch statistics need .* its `state`, got none"),
    (lambda: equinox_of(state=3), r"`state` must be an equinox\.nn\.State, got int"),
    (lambda: equinox_of(dropout=True), r"Dropout in training needs a `key`, got none"),
]


def nnx_linear():
    from flax import nnx

    return nnx.Linear(2, 2, rngs=nnx.Rngs(0))


def network_of_linen(**options):
    variables = stateful.linen_variables()
    return il.from_linen(stateful.LinenNetwork(), variables, **stateful.EVALUATED, **options)


def equinox_of(**options):
    import equinox as eqx

    module, state = eqx.nn.make_with_state(stateful.EquinoxNetwork)()
    return il.from_equinox(module, **({"state": state, "statistics": "batch"} | options))


@pytest.mark.parametrize(("make", "match"), REFUSALS)
def test_refusals_say_what_to_do(make, match):
    with pytest.raises((ValueError, TypeError), match=match) as refusal:
        make()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("period", [1, 2])
def test_a_batch_that_the_optimiser_passes_over_leaves_the_statistics_alone(period):
    apply, params = in_double("linen")
    solver = il.WeightSpace(optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 1))
    bad = (BATCHES[0][0] * jnp.nan, BATCHES[0][1])
    runs = [
        trained(apply, params, il.AtSteps(at) if period > 1 else il.Every(1), batches, solver=solver, num_steps=steps)
        for at, batches, steps in (((2, 5), [*BATCHES[:3], bad, *BATCHES[3:]], 7), ((2, 4), BATCHES, 6))
    ]
    assert_close(runs[0].params, runs[1].params)
    assert_close(runs[0].variables, runs[1].variables)
