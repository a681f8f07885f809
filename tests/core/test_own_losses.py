"""Losses and targets of one's own: every solver and observer against dense float64 algebra on flattened outputs."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core.own_losses import CASES, IDS, KEY, LENGTH, RANDOM, VALUES, VOCABULARY, ClassWeights, Dense, N, flat, trained


@pytest.fixture(
    scope="module", params=[name if name == "tokens" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def case(request):
    return request.param, Dense(request.param)


@pytest.mark.parametrize(
    "solver",
    [
        il.WeightSpace(optax.sgd(0.1, momentum=0.5)),
        il.FunctionSpace(optax.sgd(0.1, momentum=0.5), kernel="dense"),
        il.FunctionSpace(optax.sgd(0.1, momentum=0.5), kernel="operator"),
    ],
    ids=["weights", "dense", "operator"],
)
def test_descent_is_that_of_the_dense_problem(case, solver):
    name, dense = case
    solution = trained(name, solver, il.Never(), 4)
    np.testing.assert_allclose(flat(solution.displacement), dense.descended(0.1, 0.5, 4), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_gauss_newton_is_that_of_the_dense_problem(case, space):
    name, dense = case
    solver = il.GaussNewton(0.3, space=space, linear_solver=il.ConjugateGradients(rtol=1e-13))
    solution = trained(name, solver, il.Every(1), 1)
    np.testing.assert_allclose(flat(solution.displacement), dense.gauss_newton(0.3), rtol=1e-7, atol=1e-9)
    assert solution.records["solve_failed"][-1] == 0


@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_observers_measure_the_dense_problem(drive):
    dense, data = Dense("tokens"), CASES["tokens"][3]
    lazy = il.FrozenKernelAccuracy(data, data, optax.sgd(0.1, momentum=0.5), 2)
    observers = [
        il.Performance(data, chunk_size=3),
        il.LinearisationError(data[0], chunk_size=3),
        il.KernelDrift(data, outputs="full"),
        il.Sharpness(data, tolerance=1e-9, max_iterations=2000),
        il.Movement(),
        lazy,
    ]
    solver = il.WeightSpace(optax.sgd(0.1, momentum=0.5))
    records = trained("tokens", solver, il.Never(), 2, observers=observers, drive=drive).records
    record = {name: column[-1] for name, column in records.items()}
    displacement = dense.descended(0.1, 0.5, 2)
    linearised, network = dense.outputs + dense.jacobian @ displacement, dense.network(dense.theta + displacement)
    there = jax.jacfwd(dense.network)(dense.theta + displacement)
    error = np.linalg.norm(network - linearised) / np.linalg.norm(network - dense.outputs)
    curvature = jax.hessian(dense.mean)(linearised)
    spectrum = jnp.linalg.eigvalsh(dense.jacobian.T @ curvature @ dense.jacobian)
    kernel = dense.jacobian @ dense.jacobian.T
    p = jnp.linalg.eigvalsh(kernel)
    p = p[p > 1e-12 * p[-1]] / p.sum()
    dense.jacobian, dense.outputs = there, network  # linearised at θ_t
    frozen = dense.mean(network + there @ dense.descended(0.1, 0.5, 2))
    for name, value in {
        "test_loss": dense.mean(linearised),
        "network_test_loss": dense.mean(network),
        "test_accuracy": np.mean(CASES["tokens"][2].correct(linearised.reshape(N, LENGTH, -1), data[1])),
        "linearisation_error": error,
        "effective_rank": np.exp(-np.sum(p * np.log(p))),
        "frozen_kernel_loss": frozen,
    }.items():
        np.testing.assert_allclose(record[name], value, rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(record["sharpness"], spectrum[-1], rtol=1e-5)
    assert record["kernel_change"] == 0
    assert np.isnan(record["target_alignment"])


def test_the_kernel_is_aligned_with_classes_at_positions():
    apply, params, _, (x, _) = CASES["tokens"]
    labels, loss = jnp.asarray(np.roll(IDS, 1, 1)), il.CrossEntropy()
    solver, observers = il.WeightSpace(optax.sgd(0.1)), [il.KernelDrift((x, labels))]
    problem = il.Problem(apply, loss)
    solution = il.train(problem, solver, il.Never(), params, (x, labels), num_steps=1, key=KEY, observers=observers)
    kernel = il.kernel.ntk(lambda p, x: apply(p, x).reshape(len(x), -1), params, x, outputs="mean")
    one_hot = np.eye(VOCABULARY)[labels].reshape(N, -1)
    wanted = il.kernel.target_alignment(kernel, one_hot)
    np.testing.assert_allclose(solution.records["target_alignment"][-1], wanted, rtol=1e-10)


@pytest.mark.parametrize("safeguard", [il.LineSearch(), il.TrustRegion(1.0)])
@pytest.mark.parametrize("schedule", [il.WhenLossGap(0.0, 2), il.WhenFunctionMoves(0.0, 2)])
def test_schedules_and_safeguards_take_any_outputs(schedule, safeguard):
    solver = il.WeightSpace(optax.sgd(0.1))
    solution = trained("tokens", solver, schedule, 4, safeguard=safeguard)
    assert solution.feature_updates == 1
    assert solution.records["safeguard_scale"][-1] > 0


@pytest.mark.parametrize("weights", [jnp.array([1.0, 2.0, 5.0]), np.array([1.0, 2.0, 5.0])])
def test_losses_may_hold_arrays(weights):
    x, params, y = VALUES, {"w": jnp.ones((4, 3)) / 4}, np.arange(N) % 3
    problem = il.Problem(lambda p, x: x @ p["w"], ClassWeights(weights))
    answer = il.check(problem, params, (x, y))
    hessian = np.einsum("ni,nj,n->ij", x, x, np.array([1, 2, 5])[y]) / N
    assert answer.ok
    assert answer.largest_rate == pytest.approx(2 / np.linalg.eigvalsh(hessian)[-1], rel=1e-2)
    solver, schedule, options = il.WeightSpace(optax.sgd(0.1)), il.Every(2), {"num_steps": 4}
    alone = il.train(problem, solver, schedule, params, (x, y), key=KEY, observers=[il.Sharpness((x, y))], **options)

    def make(factor):
        own = il.Problem(problem.apply, ClassWeights(factor * jnp.asarray(weights)))
        return il.Run(own, solver, schedule, params, KEY)

    lanes = il.train_lanes(make, jnp.array([1.0, 3.0]), (x, y), **options)
    np.testing.assert_allclose(lanes[0].params["w"], alone.params["w"], rtol=1e-12)
    assert np.max(np.abs(lanes[1].params["w"] - alone.params["w"])) > 1e-3


@pytest.mark.slow
def test_spectral_descent_and_predict_take_any_outputs():
    apply, params, *_ = CASES["tokens"]
    values = RANDOM.normal(size=(N, LENGTH, VOCABULARY))
    problem, data = il.Problem(apply, il.SquaredError()), (IDS, values)
    wanted = il.train(
        problem, il.WeightSpace(optax.sgd(0.05)), il.Never(), params, data, num_steps=40, key=KEY
    ).displacement
    for method in ("chebyshev", "eigh"):
        solver = il.SpectralDescent(0.05, method=method)
        found = il.train(problem, solver, il.Never(), params, data, num_steps=40, key=KEY).displacement
        np.testing.assert_allclose(flat(found), flat(wanted), rtol=1e-8, atol=1e-10)
    outputs = il.predict(problem, params, data, IDS[:2], steps=40, learning_rate=0.05)
    linearised = il.Linearisation(apply, jax.tree.map(jnp.asarray, params)).value(wanted, jnp.asarray(IDS[:2]))
    np.testing.assert_allclose(outputs, linearised, rtol=1e-8, atol=1e-10)


def test_the_kernel_operator_flattens_outputs():
    apply, params, *_ = CASES["tokens"]
    dense = Dense("tokens")
    operator = il.kernel.NTKOperator(apply, params, IDS, batch_size=3)
    np.testing.assert_allclose(operator.as_matrix(), dense.jacobian @ dense.jacobian.T, rtol=1e-10, atol=1e-12)


class Concave(il.AbstractLoss):
    def __call__(self, outputs, targets):
        return jnp.sum(jnp.cos(outputs - targets), -1)

    def correct(self, outputs, targets):
        return None


@pytest.mark.parametrize("space", ["weights", "functions"])
def test_gauss_newton_counts_a_loss_that_curves_down_as_failed(space):
    problem, params = il.Problem(lambda p, x: x @ p["w"], Concave()), {"w": jnp.zeros((4, 2))}
    data = VALUES, np.full((N, 2), 0.1)
    solution = il.train(problem, il.GaussNewton(1e-3, space=space), il.Every(1), params, data, num_steps=1, key=KEY)
    assert solution.records["solve_failed"][-1] == 1


@pytest.mark.parametrize("loss", [il.CrossEntropy(0.1), il.SquaredError()])
@pytest.mark.parametrize("labels", [True, False])
def test_positions_of_relins_own_losses(loss, labels):
    outputs, classes = jnp.asarray(RANDOM.normal(size=(N, LENGTH, VOCABULARY))), jnp.asarray(IDS)
    targets = classes if labels else jnp.eye(VOCABULARY)[classes]
    losses = np.stack([loss(outputs[:, i], targets[:, i]) for i in range(LENGTH)], 1)
    wanted = losses.mean(1) if isinstance(loss, il.CrossEntropy) else losses.sum(1)
    np.testing.assert_allclose(loss(outputs, targets), wanted, rtol=1e-12)
    if labels or isinstance(loss, il.CrossEntropy):
        right = (outputs.argmax(-1) == classes).mean(1)
        np.testing.assert_allclose(loss.correct(outputs, targets), right)
