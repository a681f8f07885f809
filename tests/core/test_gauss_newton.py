"""Gauss–Newton steps against dense matrices: G, its pseudo-inverse, and the convex problem by SciPy."""

import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
import scipy.optimize

import relin as il
from core import oracles
from core.quadratic import ENTROPY, HUBER, SQUARED, Model, assert_near, derivatives, duplicated, one_step, values
from relin._solver._spaces import Functions, Weights, space_of


@pytest.mark.parametrize("space", ["weights", "functions"])
@pytest.mark.parametrize("loss", [SQUARED, ENTROPY, HUBER], ids=["squared", "entropy", "huber"])
def test_a_step_is_the_dense_one_from_no_damping_to_gradient_descent(loss, space):
    """Without damping the step of minimum norm. Huber's loss then has none: its slopes are outside G's range."""
    (x, y), theta = duplicated(loss), oracles.flat(oracles.mlp_params())
    model = Model(loss, theta, x, y)
    assert np.linalg.matrix_rank(model.gauss_newton) < min(len(theta), model.outputs.size)
    for damping in (0.0, 1e-4, 0.1, 1e6)[loss is HUBER :]:
        found, measures, value = one_step(loss, damping, (x, y), space=space)
        assert_near(found, model.step(damping), 1e-8)
        assert value == pytest.approx(values(loss, model.outputs, y), rel=1e-14)
        after = values(loss, oracles.dense_of(oracles.mlp).value(theta + model.step(damping), x), y)
        assert measures["gain_ratio"] == pytest.approx((value - after) / model.decrease(found), rel=1e-6)
        assert measures["damping"] == damping
        assert measures["solve_failed"] == 0
        assert 0 < measures["linear_iterations"] <= 20
    assert_near(found, -model.gradient / damping, 1e-5)
    if loss is HUBER:
        assert 0 < np.sum(model.hessian) < model.outputs.size


def test_curvature_may_vanish_where_the_gradient_does_not():
    """The right class has a probability of 10⁻²⁰ in one example: H has eigenvalues of its size."""
    params = oracles.mlp_params()
    params["v"] *= 40
    x, y = duplicated(ENTROPY)
    model = Model(ENTROPY, oracles.flat(params), x, y)
    assert -model.cotangent[np.arange(8), y].min() > 1 - 1e-15
    found, measures, _ = one_step(ENTROPY, 1e-2, (x, y), params, space="functions")
    assert_near(found, model.step(1e-2), 1e-8)
    assert measures["solve_failed"] == 0


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_a_quadratic_model_without_a_minimum_is_a_failure(space):
    """Huber's loss falls for ever along slopes without curvature."""
    data = duplicated(HUBER)
    found, measures, _ = one_step(HUBER, 0.0, data, space=space)
    assert measures["solve_failed"] == 1
    assert Model(HUBER, oracles.flat(oracles.mlp_params()), *data).decrease(found) > 0
    assert np.linalg.norm(found) < 1e6


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_a_damping_below_rounding_is_none(space):
    data = duplicated(ENTROPY)
    model = Model(ENTROPY, oracles.flat(oracles.mlp_params()), *data)
    found, measures, _ = one_step(ENTROPY, 1e-18, data, space=space)
    assert_near(found, model.step(0), 1e-8)
    assert measures["solve_failed"] == 0


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_single_precision(space):
    (x, y), theta = oracles.data(ENTROPY), oracles.flat(oracles.mlp_params())
    found, measures, _ = one_step(ENTROPY, 1e-2, (x.astype("f4"), y), oracles.mlp_params("f4"), space=space)
    assert found.dtype == np.float32
    assert_near(found, Model(ENTROPY, theta, x, y).step(1e-2), 1e-3)
    assert measures["solve_failed"] == 0


def convex_minimum(loss, model, y, damping):
    def objective(step):
        outputs = model.outputs + model.jacobian @ step
        cotangent, _ = derivatives(loss, outputs, y)
        gradient = np.einsum("ncp,nc->p", model.jacobian, cotangent) / len(outputs)
        return values(loss, jnp.asarray(outputs), y) + damping / 2 * step @ step, gradient + damping * step

    options = {"gtol": 1e-10, "maxiter": 2000}
    return scipy.optimize.minimize(objective, 0 * model.gradient, jac=True, method="BFGS", options=options).x


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_the_convex_model_is_minimised_itself(space):
    (x, y), theta = duplicated(ENTROPY), oracles.flat(oracles.mlp_params())
    model = Model(ENTROPY, theta, x, y)
    for damping in (0.1, 0.01):
        found, measures, value = one_step(ENTROPY, damping, (x, y), loss_model="convex", space=space)
        wanted = convex_minimum(ENTROPY, model, y, damping)
        assert_near(found, wanted, 1e-6)
        assert np.linalg.norm(wanted - model.step(damping)) > 0.1 * np.linalg.norm(wanted)
        assert measures["solve_failed"] == 0
        promised = value - values(ENTROPY, jnp.asarray(model.outputs + model.jacobian @ wanted), y)
        after = values(ENTROPY, oracles.dense_of(oracles.mlp).value(theta + wanted, x), y)
        assert measures["gain_ratio"] == pytest.approx((value - after) / promised, rel=1e-4)


def test_the_convex_model_of_the_squared_error_is_the_quadratic_one():
    data = duplicated(SQUARED)
    model = Model(SQUARED, oracles.flat(oracles.mlp_params()), *data)
    for damping in (0.0, 0.1):
        found, measures, _ = one_step(SQUARED, damping, data, loss_model="convex")
        assert_near(found, model.step(damping), 1e-7)
        assert measures["solve_failed"] == 0


def test_newtons_method_goes_back_where_a_whole_step_is_too_long():
    """From confident mistakes a Newton step of the linearised cross-entropy overshoots by orders of magnitude."""
    params = oracles.mlp_params()
    params["v"] *= 6
    x, y = duplicated(ENTROPY)
    model, damping = Model(ENTROPY, oracles.flat(params), x, y), 0.01

    def objective(step):
        outputs = jnp.asarray(model.outputs + model.jacobian @ step)
        return values(ENTROPY, outputs, y) + damping / 2 * step @ step

    assert objective(model.step(damping)) > objective(0 * model.gradient)
    found, measures, _ = one_step(ENTROPY, damping, (x, y), params, loss_model="convex", space="functions")
    assert_near(found, convex_minimum(ENTROPY, model, y, damping), 1e-5)
    assert measures["solve_failed"] == 0


def test_the_smaller_space_is_the_default():
    x, _ = oracles.data(SQUARED)  # 36 outputs and 48 parameters
    for inputs, kind in ((x, Functions), (jnp.concatenate([x, x]), Weights)):
        linearised = il.Linearisation(oracles.mlp, oracles.mlp_params()).on(inputs)
        outputs, space = space_of("auto", linearised, oracles.mlp_params(), jnp.asarray(0.1))
        assert isinstance(space, kind)
        assert outputs.shape == (len(inputs), 3)


@pytest.mark.parametrize(
    ("solver", "damping", "failed"),
    [
        (lx.Cholesky(), 0.1, 0),
        (lx.SVD(), 0.0, 0),
        (lx.CG(rtol=1e-10, atol=1e-12), 0.1, 0),
        (lx.CG(rtol=1e-10, atol=1e-12, max_steps=2), 0.1, 1),
        (lx.Cholesky(), 0.0, 1),
    ],
    ids=["cholesky", "svd", "cg", "cg stopped early", "cholesky of a singular matrix"],
)
def test_other_linear_solvers_and_their_failures(solver, damping, failed):
    data = duplicated(SQUARED)
    model = Model(SQUARED, oracles.flat(oracles.mlp_params()), *data)
    found, measures, _ = one_step(SQUARED, damping, data, space="weights", linear_solver=solver)
    assert measures["solve_failed"] == failed
    if not failed:
        assert_near(found, model.step(damping), 1e-8)
    elif damping:  # the step it has found, of descent
        assert model.decrease(found) > 0
        assert np.linalg.norm(found - model.step(damping)) > 1e-3
    else:  # not a number
        assert not found.any()


def test_conjugate_gradients_stopped_early_are_a_step_of_descent():
    data = duplicated(ENTROPY)
    model, decreases = Model(ENTROPY, oracles.flat(oracles.mlp_params()), *data), []
    for max_steps in (1, 3, 1000):
        solver = il.ConjugateGradients(max_steps=max_steps)
        found, measures, _ = one_step(ENTROPY, 0.01, data, space="weights", linear_solver=solver)
        decreases.append(model.decrease(found) - 0.005 * found @ found)
        assert measures["solve_failed"] == (max_steps < 1000)
        assert measures["linear_iterations"] <= max_steps
    assert 0 < decreases[0] < decreases[1] < decreases[2]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: il.GaussNewton(-1.0), ValueError, "`damping` must be at least 0 and finite, got -1.0; pass 0"),
        (lambda: il.GaussNewton(np.nan), ValueError, "`damping` must be at least 0 and finite, got nan; pass 0"),
        (
            lambda: il.GaussNewton(0, adapt="levenberg-marquardt"),
            ValueError,
            "`damping` must be above 0 to be adapted by factors, got 0; pass a first guess",
        ),
        (lambda: il.ConjugateGradients(rtol=1.5), ValueError, "`rtol` must be between 0 and 1, got 1.5; pass None"),
        (lambda: il.ConjugateGradients(max_steps=0), ValueError, "`max_steps` must be .*at least 1, got 0; 1000 is"),
        (lambda: il.GaussNewton(1, adapt="lm"), ValueError, "`adapt` must be one of .* got 'lm'; pass one"),
        (lambda: il.GaussNewton(1, loss_model="full"), ValueError, "`loss_model` must be one of .* got 'full'; pass"),
        (lambda: il.GaussNewton(1, space="dual"), ValueError, "`space` must be one of .* got 'dual'; pass one"),
        (
            lambda: il.GaussNewton(1, linear_solver="cg"),
            TypeError,
            "`linear_solver` must be a lineax solver, got 'cg'; pass for example relin",
        ),
        (
            lambda: il.train(
                il.Problem(oracles.mlp, SQUARED),
                il.GaussNewton(1.0),
                il.Every(2),
                oracles.mlp_params(),
                oracles.data(SQUARED),
                num_steps=2,
                key=oracles.KEY,
            ),
            ValueError,
            r"must be used with relin.Every\(1\), got Every\(.*; pass relin.Every\(1\), or .* proximal=damping\)",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_without_damping_it_is_the_step_of_infinite_descent(space):
    x, y = duplicated(SQUARED)
    data = x, y.at[:2].add(1.0)  # examples that contradict others
    problem, params, options = il.Problem(oracles.mlp, SQUARED), oracles.mlp_params(), {"key": oracles.KEY}
    solution = il.train(problem, il.GaussNewton(0.0, space=space), il.Every(1), params, data, num_steps=1, **options)
    descent = il.SpectralDescent(0.01, method="eigh")
    limit = il.train(problem, descent, il.Never(), params, data, num_steps=float("inf"), **options)
    assert_near(oracles.flat(solution.displacement), oracles.flat(limit.displacement), 1e-6)
    assert solution.records["solve_failed"][-1] == 0


def test_steps_of_descent_match_a_damping_of_one_over_rate_times_steps():
    """1 − (1 − ηa)^K against a/(a + λ) at λ = 1/(ηK): method.md, "Gauss–Newton"."""
    data, rate, steps = oracles.data(SQUARED), 0.01, 500
    descent, options = il.SpectralDescent(rate, method="eigh"), {"num_steps": steps, "key": oracles.KEY}
    descended = il.train(
        il.Problem(oracles.mlp, SQUARED), descent, il.Never(), oracles.mlp_params(), data, **options
    ).displacement
    dampings = 1 / (rate * steps) * np.array([0.1, 1.0, 10.0])
    distances = [np.linalg.norm(one_step(SQUARED, d, data)[0] - oracles.flat(descended)) for d in dampings]
    assert np.argmin(distances) == 1


@pytest.mark.parametrize(
    ("solver", "schedule"),
    [(il.GaussNewton(1.0), il.Every(1)), (il.FunctionSpace(optax.sgd(0.1)), il.Never())],
)
def test_low_precision_is_refused(solver, schedule):
    problem, options = il.Problem(oracles.mlp, SQUARED), {"num_steps": 1, "key": oracles.KEY}
    with pytest.raises(ValueError, match="at least single precision, got bfloat16; cast them to float32"):
        il.train(problem, solver, schedule, oracles.mlp_params(jnp.bfloat16), oracles.data(SQUARED), **options)


@pytest.mark.parametrize("options", [{"space": "functions"}, {"space": "weights", "loss_model": "convex"}])
def test_outputs_of_low_precision_are_refused_where_they_are_solved_in(options):
    problem = il.Problem(lambda params, x: oracles.mlp(params, x).astype(jnp.bfloat16), SQUARED)
    with pytest.raises(ValueError, match=r"outputs of at least single precision .* got bfloat16; cast them to float32"):
        il.train(
            problem,
            il.GaussNewton(1.0, **options),
            il.Every(1),
            oracles.mlp_params(),
            oracles.data(SQUARED),
            num_steps=1,
            key=oracles.KEY,
        )


def test_batches_from_an_iterable_are_checked_too():
    batches = [oracles.data(SQUARED)] * 2
    problem, options = il.Problem(oracles.mlp, SQUARED), {"num_steps": 2, "key": oracles.KEY}
    with pytest.raises(ValueError, match=r"must be used with relin.Every\(1\)"):
        il.train(problem, il.GaussNewton(1.0), il.Never(), oracles.mlp_params(), batches, **options)
    theta = oracles.flat(oracles.mlp_params())
    solution = il.train(problem, il.GaussNewton(1.0), il.Every(1), oracles.mlp_params(), batches, **options)
    for x, y in batches:
        theta = theta + Model(SQUARED, theta, x, y).step(1.0)
    assert_near(oracles.flat(solution.params), theta, 1e-8)
