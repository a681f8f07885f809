"""Losses and targets of one's own: every solver and observer against dense float64 algebra on flattened outputs."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(5)
N, LENGTH, VOCABULARY = 8, 3, 4
VOID = -100


def log_softmax(f):
    return f - jax.scipy.special.logsumexp(f, axis=-1, keepdims=True)


def at_labels(values, labels):
    return jnp.take_along_axis(values, jnp.maximum(labels, 0)[..., None], -1)[..., 0]


class Ignoring(il.AbstractLoss):
    """Weighted cross-entropy over the positions that have a label."""

    def __call__(self, outputs, targets):
        labels, weights = targets["labels"], targets["weights"]
        kept, axes = labels != VOID, tuple(range(1, labels.ndim))
        losses = jnp.where(kept, -at_labels(log_softmax(outputs), labels), 0)
        return weights * losses.sum(axes) / jnp.maximum(kept.sum(axes), 1)

    def correct(self, outputs, targets):
        kept = targets["labels"] != VOID
        axes = tuple(range(1, kept.ndim))
        right = kept & (outputs.argmax(-1) == targets["labels"])
        return right.sum(axes) / jnp.maximum(kept.sum(axes), 1)

    def check_targets(self, outputs, targets):
        labels = targets["labels"]
        allowed = (labels == VOID) | (labels >= 0) & (labels < outputs.shape[-1])
        return il.TargetCheck(labels, allowed, f"classes from 0 to {outputs.shape[-1] - 1}, or {VOID} to ignore")


class Survival(il.AbstractLoss):
    """Exponential lifetimes, some of which are censored: targets are a tuple (died, time)."""

    def __call__(self, outputs, targets):
        died, time = targets
        return jnp.exp(outputs[:, 0]) * time - died * outputs[:, 0]

    def correct(self, outputs, targets):
        return None


class ClassWeights(il.AbstractLoss):
    weights: jax.Array | np.ndarray

    def __call__(self, outputs, targets):
        residual = outputs - jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
        return 0.5 * jnp.asarray(self.weights)[targets] * jnp.sum(residual**2, -1)

    def correct(self, outputs, targets):
        return outputs.argmax(-1) == targets


def tokens(params, x):
    return jnp.tanh(params["e"][x]) @ params["r"]


def images(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def line(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def some_void(labels):
    labels = np.array(labels)
    labels[0, 1:] = VOID
    labels[2] = VOID
    return labels


IDS = RANDOM.integers(0, VOCABULARY, (N, LENGTH))
VALUES = RANDOM.normal(size=(N, 4))
WEIGHTS = np.linspace(0.2, 2, N)
CASES = {
    "tokens": (
        tokens,
        {"e": RANDOM.normal(size=(VOCABULARY, 3)), "r": RANDOM.normal(size=(3, VOCABULARY))},
        Ignoring(),
        (IDS, {"labels": some_void(np.roll(IDS, 1, 1)), "weights": WEIGHTS}),
    ),
    "segmentation": (
        images,
        {"w": RANDOM.normal(size=(2, 3)), "v": RANDOM.normal(size=(3, 3))},
        Ignoring(),
        (
            RANDOM.normal(size=(N, 2, 2, 2)),
            {"labels": some_void(RANDOM.integers(0, 3, (N, 2, 2))), "weights": np.ones(N)},
        ),
    ),
    "survival": (
        line,
        {"w": RANDOM.normal(size=(4, 3)), "v": RANDOM.normal(size=(3, 1))},
        Survival(),
        (VALUES, (RANDOM.integers(0, 2, N).astype(float), RANDOM.uniform(0.5, 2, N))),
    ),
}


class Dense:
    """The linearised problem of a case, with J and H as matrices."""

    def __init__(self, name):
        apply, params, loss, (x, y) = CASES[name]
        self.theta, self.unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.asarray, params))
        y = jax.tree.map(jnp.asarray, y)
        shape = apply(params, x).shape
        self.network = lambda theta: apply(self.unravel(theta), jnp.asarray(x)).reshape(-1)
        self.outputs, self.jacobian = self.network(self.theta), jax.jacfwd(self.network)(self.theta)
        self.mean = lambda f: jnp.mean(loss(f.reshape(shape), y))
        self.slope, self.curvature = jax.grad(self.mean)(self.outputs), jax.hessian(self.mean)(self.outputs)

    def descended(self, rate, momentum, num_steps):
        displacement, velocity = jnp.zeros_like(self.theta), jnp.zeros_like(self.theta)
        for _ in range(num_steps):
            gradient = self.jacobian.T @ jax.grad(self.mean)(self.outputs + self.jacobian @ displacement)
            velocity = momentum * velocity + gradient
            displacement = displacement - rate * velocity
        return displacement

    def gauss_newton(self, damping):
        matrix = self.jacobian.T @ self.curvature @ self.jacobian + damping * jnp.eye(len(self.theta))
        return -jnp.linalg.solve(matrix, self.jacobian.T @ self.slope)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param, Dense(request.param)


def trained(name, solver, schedule, num_steps, data=None, **options):
    apply, params, loss, own = CASES[name]
    problem = il.Problem(apply, loss)
    return il.train(problem, solver, schedule, params, data or own, num_steps=num_steps, key=KEY, **options)


def flat(tree):
    return jax.flatten_util.ravel_pytree(tree)[0]


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


class BatchMean(il.AbstractLoss):
    def __call__(self, outputs, targets):
        return jnp.mean((outputs - targets) ** 2)

    def correct(self, outputs, targets):
        return None


class PerOutput(BatchMean):
    def __call__(self, outputs, targets):
        return (outputs - targets) ** 2


class Counting(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(outputs > targets, -1)


class ByPosition(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum((outputs - targets) ** 2, -1)

    def correct(self, outputs, targets):
        return outputs > targets


class Normalised(BatchMean):
    def __call__(self, outputs, targets):
        weights = jnp.abs(targets[:, 0])
        return weights / jnp.sum(weights) * jnp.sum((outputs - targets) ** 2, -1)


class Contrastive(BatchMean):
    def __call__(self, outputs, targets):
        return -jnp.diagonal(log_softmax(outputs @ targets.T))


class OwnMean(ByPosition):
    def correct(self, outputs, targets):
        return None

    def mean(self, outputs, targets):
        return jnp.sum(self(outputs, targets)) / 3


class Detached(BatchMean):
    def __call__(self, outputs, targets):
        errors = jnp.sum((outputs - targets) ** 2, -1)
        return jax.lax.stop_gradient(errors) * errors


@jax.custom_vjp
def straight_through(x):
    return jnp.sin(x)


straight_through.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (g,))


class StraightThrough(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(straight_through(outputs - targets), -1)


class OfThisBatch(BatchMean):
    weights: jax.Array = eqx.field(default_factory=lambda: jnp.ones(N))

    def __call__(self, outputs, targets):
        return self.weights * jnp.sum((outputs - targets) ** 2, -1)


def trained_on_values(loss, data=(VALUES, VALUES[:, :3])):
    problem, solver = il.Problem(lambda p, x: x @ p["w"], loss), il.WeightSpace(optax.sgd(0.1))
    return il.train(problem, solver, il.Every(2), {"w": jnp.zeros((4, 3))}, data, num_steps=4, key=KEY)


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (BatchMean(), ValueError, r"one floating-point value for each example, shape \(8,\), got one number for the b"),
        (PerOutput(), ValueError, r"shape \(8,\), got shape \(8, 3\); sum or average over all axes but the first"),
        (Counting(), TypeError, r"shape \(8,\), got int64 of shape \(8,\); return one array, of the outputs' type"),
        (ByPosition(), ValueError, r"`correct` must return .*shape \(8,\), or None, got bool of shape \(8, 3\); aver"),
        (Normalised(), ValueError, r"depend on its own example alone, got .* by itself and .* among 8; do not normal"),
        (Contrastive(), ValueError, "depend on its own example alone"),
        (OwnMean(), ValueError, "`mean` must be the mean of the loss over the batch, got .*; leave `mean` as it is"),
        (
            Detached(),
            ValueError,
            "gradient must be that of its values, got a slope of .* where finite .*; check its",
        ),
        (StraightThrough(), ValueError, "gradient must be that of its values"),
        (OfThisBatch(), ValueError, "must take any number of examples, got an error for 1: .* Put what differs"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, il.AbstractLoss) else "",
)
def test_a_loss_that_breaks_its_contract_is_refused(loss, error, message):
    with pytest.raises(error, match=message):
        trained_on_values(loss)


class Absolute(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(jnp.abs(outputs - targets), -1)


class Rounded(BatchMean):
    def __call__(self, outputs, targets):
        residual = (outputs - targets).astype(jnp.bfloat16).astype(jnp.float32)
        return jnp.sum(residual**2, -1)


class Probabilities(BatchMean):
    def __call__(self, outputs, targets):
        return -jnp.sum(jnp.log(outputs) + jnp.log1p(-outputs), -1)


@jax.custom_vjp
def squares(x):
    return x**2


squares.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


class BackwardOnly(BatchMean):
    def __call__(self, outputs, targets):
        return jnp.sum(squares(outputs - targets), -1)


class MultiLabel(BatchMean):
    def __call__(self, outputs, targets):
        return optax.losses.sigmoid_binary_cross_entropy(outputs, targets).sum(-1)


@pytest.mark.parametrize("loss", [Absolute(), Rounded(), Probabilities(), BackwardOnly(), MultiLabel()])
def test_a_loss_that_keeps_it_is_not(loss):
    shape = jax.ShapeDtypeStruct((N, 3), jnp.float32)
    il._loss_contract.check_contract(loss, shape, jnp.asarray(VALUES[:, :3] > 0, jnp.float32))


def test_a_loss_with_a_backward_rule_alone_trains():
    found, wanted = (trained_on_values(loss).params["w"] for loss in (BackwardOnly(), il.SquaredError()))
    assert not np.array_equal(found, wanted)
    solver = il.WeightSpace(optax.sgd(0.2))  # squares are twice ½ squares
    problem, data = il.Problem(lambda p, x: x @ p["w"], il.SquaredError()), (VALUES, VALUES[:, :3])
    wanted = il.train(problem, solver, il.Every(2), {"w": jnp.zeros((4, 3))}, data, num_steps=4, key=KEY).params["w"]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_the_contract_is_tried_once(monkeypatch):
    tried = []
    original = il._loss_contract._try
    monkeypatch.setattr(il._loss_contract, "_try", lambda *a: tried.append(original(*a)))
    shape, targets = jax.ShapeDtypeStruct((N, 2), jnp.float32), jnp.zeros((N, 2))
    for loss in (ClassWeights(jnp.ones(2)), ClassWeights(jnp.zeros(2)), ClassWeights(jnp.ones(3))):
        il._loss_contract.check_contract(loss, shape, targets[:, 0].astype(int))
    assert len(tried) == 2  # the second differs from the first in values alone


SOLVERS = {"ordinary": il.Every(1), "linearised": il.Every(2)}


@pytest.mark.parametrize("schedule", SOLVERS)
@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("kind", ["numpy", "jax"])
def test_targets_of_later_batches_are_checked(schedule, label, kind):
    x, y = VALUES, np.arange(N) % 3
    wrong = y.copy()
    wrong[5] = label
    batches = [(x, y)] * 3 + [(x, wrong)] + [(x, y)] * 4
    if kind == "jax":
        batches = [jax.tree.map(jnp.asarray, batch) for batch in batches]
    problem, solver = il.Problem(lambda p, x: x @ p["w"], il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1))
    message = rf"the batch of step 3: .* classes from 0 to 2, .*, got {label} at example 5; relabel"
    with pytest.raises(ValueError, match=message):
        il.train(problem, solver, SOLVERS[schedule], {"w": jnp.zeros((4, 3))}, batches, num_steps=8, key=KEY)


def test_targets_of_ones_own_in_later_batches_are_checked():
    x, y = CASES["tokens"][3]
    wrong = {**y, "labels": np.where(y["labels"] == VOID, -1, y["labels"])}
    with pytest.raises(ValueError, match=r"the batch of step 1: .* 0 to 3, or -100 to ignore, got -1 at example 0; ch"):
        trained("tokens", il.WeightSpace(optax.sgd(0.1)), il.Every(2), 2, data=[(x, y), (x, wrong)])


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (
            (VALUES, np.zeros(N)),
            TypeError,
            r"step 1: All batches .* int64 of 1 axes, got .* float64 of 1 axes; conv",
        ),
        ((VALUES.astype(np.float32), np.arange(N) % 3), TypeError, "first one's types, float64 .*, got float32"),
        ((VALUES, np.arange(N - 1) % 3), ValueError, r"step 1: .* the same number of examples, got \[7, 8\]"),
        ((VALUES[:3], np.array([0, 4, 1])), ValueError, "step 1: .* from 0 to 2, .*, got 4 at example 1"),
    ],
)
def test_later_batches_are_checked_as_the_first(batch, error, message):
    with pytest.raises(error, match=message):
        trained_on_values(il.CrossEntropy(), [(VALUES, np.arange(N) % 3), batch])


def test_pytorchs_batches_are_arrays():
    torch = pytest.importorskip("torch")
    died, time = CASES["survival"][3][1]
    dataset = torch.utils.data.TensorDataset(*map(torch.as_tensor, (VALUES, died, time)))
    loader = torch.utils.data.DataLoader(dataset, batch_size=3)
    batches = [[x, [died, time]] for x, died, time in loader]  # as its collation nests them
    plain = [(np.asarray(x), (np.asarray(died), np.asarray(time))) for x, (died, time) in batches]
    found, wanted = (
        trained("survival", il.WeightSpace(optax.sgd(0.1)), il.Every(2), 5, data=data).params
        for data in (batches, plain)
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"observers": [il.Performance((VALUES, np.full(N, 3)))]}, "`data` of Performance"),
        ({"observers": [il.Sharpness((VALUES, np.full(N, 3)))]}, "`probe` of Sharpness"),
        ({"safeguard": il.LineSearch(probe=(VALUES, np.full(N, 3)))}, "`probe` of LineSearch"),
        ({"schedule": il.Until(il.WhenLossGap(0.1, probe=(VALUES, np.full(N, 3))), 9)}, "`probe` of WhenLossGap"),
    ],
    ids=["performance", "sharpness", "line search", "loss gap"],
)
def test_targets_that_parts_of_a_run_hold_are_checked(part, place):
    problem, solver = il.Problem(lambda p, x: x @ p["w"], il.CrossEntropy()), il.WeightSpace(optax.sgd(0.1))
    part = {"schedule": il.Every(2)} | part
    data = VALUES, np.arange(N) % 3
    with pytest.raises(ValueError, match=f"In {place}: .* from 0 to 2, .*, got 3 at example 0; relabel"):
        il.train(problem, solver, params={"w": jnp.zeros((4, 3))}, data=data, num_steps=2, key=KEY, **part)


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


class Given(BatchMean):
    function: Callable = eqx.field(static=True)

    def __call__(self, outputs, targets):
        return self.function(outputs, targets)


OPERATIONS = {
    "cross-entropy": optax.losses.softmax_cross_entropy_with_integer_labels,
    "poly": lambda f, y: optax.losses.poly_loss_cross_entropy(f, jax.nn.one_hot(y, 3)),
    "focal": lambda f, y: optax.losses.sigmoid_focal_loss(f, jax.nn.one_hot(y, 3), alpha=0.3).sum(-1),
    "huber": lambda f, y: optax.losses.huber_loss(f, jax.nn.one_hot(y, 3)).sum(-1),
    "hinge": lambda f, y: jnp.maximum(0, 1 - f[jnp.arange(len(y)), y] + f.min(-1)),
    "out of range": lambda f, y: jnp.nan_to_num(jnp.take_along_axis(f, 2 * y[:, None], 1)[:, 0]),
    "clipped": lambda f, y: jnp.take(f, 2, axis=1, mode="clip") * jnp.clip(f[:, 0], -0.5, 0.5),
    "ordinal": lambda f, y: -jax.nn.log_sigmoid(jnp.cumsum(f, -1)).sum(-1) + jax.scipy.special.gammaln(1.0 + y),
    "matrix": lambda f, y: jnp.einsum("ni,ij,nj->n", f, jnp.arange(9.0).reshape(3, 3), f),
    "concatenated": lambda f, y: jax.nn.logsumexp(jnp.concatenate([f, jnp.zeros((len(y), 1))], 1), 1),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_losses_are_tried_without_compiling(name):
    """NumPy's numbers are those of a compiled program."""
    loss, (f, v) = Given(OPERATIONS[name]), (RANDOM.normal(size=(N, 3)) for _ in range(2))
    arguments = f, np.arange(N) % 3, v, 1e-3
    found = il._interpret.interpreted(lambda *a: il._loss_contract._tried(loss, *a), *arguments)
    wanted = il._loss_contract._compiled(loss, *map(jnp.asarray, arguments))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)
