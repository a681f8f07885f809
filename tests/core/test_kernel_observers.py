"""The kernel while training: against dense Jacobians, in every way of driving a run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._observer import _frozen_kernel, _kernel_drift

LOSS = il.CrossEntropy()
TRACES = []


def network(params, x):
    """The oracles' network, noting each time it is traced."""
    TRACES.append(x.shape)
    return oracles.mlp(params, x)


PROBLEM = il.Problem(network, LOSS)
OPTIMISER = optax.sgd(0.5, momentum=0.5)
LAZY = optax.sgd(0.2, momentum=0.9)
X, Y = oracles.data(LOSS)
PROBE = X[:7], Y[:7]
STEPS = [0, 2, 4, 6, 8, 9]
OPTIONS = {"num_steps": 9, "batch_size": oracles.BATCH, "record_every": 2}
DRIFT = ("kernel_distance", "kernel_change", "kernel_cka")
LAST = ("kernel_distance_last", "kernel_change_last", "kernel_cka_last", "kernel_velocity")
COLUMNS = (*DRIFT, *LAST, "target_alignment", "effective_rank")
FROZEN = ("frozen_kernel_loss", "frozen_kernel_accuracy")


def trained(schedule, observers, problem=PROBLEM, params=None, data=(X, Y), **options):
    params = oracles.mlp_params() if params is None else params
    options = OPTIONS | {"key": oracles.KEY} | options
    return il.train(problem, il.WeightSpace(OPTIMISER), schedule, params, data, observers=observers, **options)


def frozen(**options):
    options = {"batch_size": 4, "key": oracles.KEY} | options
    return il.FrozenKernelAccuracy((X, Y), PROBE, LAZY, 6, **options)


def both(scale=1.0):
    return il.KernelDrift((scale * PROBE[0], PROBE[1])), frozen()


@pytest.fixture(scope="module", autouse=True)
def computed():
    """One entry for every kernel that a program of these tests computes."""
    entries, ntk = [], _kernel_drift.unchecked_ntk

    def counted(*arguments, **options):
        jax.debug.callback(lambda: entries.append(1))
        return ntk(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_kernel_drift, "unchecked_ntk", counted)
        yield entries


def seen_by(observer, params, problem=PROBLEM):
    """What the observer records from the host where each of these parameters is a new anchor, a step after the last."""
    found, state = [], None
    for step, anchor in enumerate(params):
        still = jax.tree.map(jnp.zeros_like, anchor)
        context = il.Context(problem, anchor, still, jnp.asarray(step), jnp.asarray(step), traced=False)
        record, state = observer.compute(context, observer.init(context) if step == 0 else state)
        found.append({name: float(value) for name, value in record.items()})
    return found


def assert_same(one, other, names=(*COLUMNS, *FROZEN)):
    assert set(names) <= set(one)
    for name in names:
        np.testing.assert_allclose(one[name], other[name], atol=1e-11, rtol=0, err_msg=name)


def dense_kernel(params, x, apply=oracles.mlp):
    """J Jᵀ as one matrix, rows and columns the pairs (example, output); `params` as a PyTree or a flat vector."""
    jacobian = np.asarray(oracles.dense_of(apply).jacobian(oracles.flat(params), x))
    matrix = jacobian.reshape(-1, jacobian.shape[-1])
    return matrix @ matrix.T


def as_asked(matrix, y, outputs):
    """The matrix of the kernel that `outputs` asks for, that of its targets, and the one that centres both."""
    count, classes = len(y), oracles.NUM_CLASSES
    centring, targets = np.eye(count) - 1 / count, np.eye(classes)[np.asarray(y)]
    blocks = matrix.reshape(count, classes, count, classes)
    if outputs == "mean":
        return np.einsum("icjc->ij", blocks) / classes, targets @ targets.T, centring
    if isinstance(outputs, int):
        column = targets[:, outputs]
        return blocks[:, outputs, :, outputs], np.outer(column, column), centring
    kept = np.tile(np.eye(classes), (count, count)) if outputs == "diagonal" else 1.0
    return matrix * kept, np.outer(targets, targets) * kept, np.kron(centring, np.eye(classes))


def alignment(a, b, centring):
    a, b = centring @ a @ centring, centring @ b @ centring
    return np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b))


def compared(now, then, centring):
    distance = 1 - np.sum(now * then) / (np.linalg.norm(now) * np.linalg.norm(then))
    return distance, np.linalg.norm(now - then) / np.linalg.norm(then), alignment(now, then, centring)


def expected(matrices, y, outputs, steps):
    """Every column of the record, from the kernel of each record."""
    rows = []
    first, targets, centring = as_asked(matrices[0], y, outputs)
    last, before = first, 0
    for matrix, step in zip(matrices, steps, strict=True):
        now = as_asked(matrix, y, outputs)[0]
        to_last = compared(now, last, centring)
        shares = np.maximum(np.linalg.eigvalsh(now), 0)
        shares = shares[shares > 0] / np.sum(shares)
        rank = np.exp(-np.sum(shares * np.log(shares)))
        velocity = to_last[0] / max(1, step - before)
        rows.append((*compared(now, first, centring), *to_last, velocity, alignment(now, targets, centring), rank))
        last, before = now, step
    return dict(zip(COLUMNS, np.transpose(rows), strict=True))


@functools.cache
def kernels(period):
    """The dense oracle's kernel at the anchor of each record."""
    batches, start = oracles.minibatches(X, Y, 9), oracles.mlp_params()

    def due(step, now):
        return step % period == 0

    anchors = [oracles.dense_loop(oracles.mlp, LOSS, OPTIMISER, start, batches[:n], due)[1] for n in STEPS]
    return [dense_kernel(anchor, PROBE[0]) for anchor in anchors]


@pytest.fixture(scope="module")
def alone():
    """Records of runs with both observers."""
    return {period: trained(il.Every(period), both()).records for period in (2, 4, 100)}


@pytest.mark.parametrize("period", [2, 4, 100])
def test_every_column_equals_dense_formulas(alone, period):
    records = alone[period]
    assert set(records) == {"step", "feature_updates", "training_loss", *COLUMNS, *FROZEN}
    assert_same(records, expected(kernels(period), PROBE[1], "mean", STEPS), COLUMNS)
    assert (records["kernel_distance"][-1] > 1e-3) == (period < 100)


def test_ordinary_training_shows_the_kernel_before_the_step():
    records = trained(il.Every(1), (il.KernelDrift(PROBE),)).records
    assert_same(records, expected(kernels(1), PROBE[1], "mean", STEPS), COLUMNS)
    assert records["feature_updates"].tolist() == [0, 1, 3, 5, 7, 8]


@pytest.mark.parametrize(("outputs", "batch_size"), [("full", 3), ("diagonal", None), (1, None)])
def test_columns_of_other_kernels_equal_dense_formulas(outputs, batch_size):
    params = [jax.tree.map(lambda a, k=k: a + 0.1 * k * jnp.cos(a + k), oracles.mlp_params()) for k in range(3)]
    found = seen_by(il.KernelDrift(PROBE, outputs=outputs, batch_size=batch_size), params)
    columns = {name: [record[name] for record in found] for name in found[0]}
    dense = [dense_kernel(anchor, PROBE[0]) for anchor in params]
    assert_same(columns, expected(dense, PROBE[1], outputs, range(3)), COLUMNS)


def assert_constant(never, four):
    """Without feature updates all stays as it is; with `Every(4)` it changes where the anchor moved since a record."""
    for name, value in zip((*DRIFT, *LAST), (0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0), strict=True):
        assert never[name].tolist() == [value] * 6, name
    assert four["feature_updates"].tolist() == [0, 0, 0, 1, 1, 2]
    for name in (*DRIFT, "target_alignment", "effective_rank"):
        column = four[name].tolist()
        assert column[0] == column[1] == column[2] != column[3] == column[4] != column[5], name
        assert len(set(never[name].tolist())) == 1, name
    for name, value in zip(LAST, (0.0, 0.0, 1.0, 0.0), strict=True):
        assert np.flatnonzero(four[name] != value).tolist() == [3, 5], name


def test_the_kernel_is_constant_exactly_between_feature_updates(alone):
    assert_constant(alone[100], alone[4])


def lane(period):
    return il.Run(PROBLEM, il.WeightSpace(OPTIMISER), il.Every(period), oracles.mlp_params(), oracles.KEY)


@pytest.mark.parametrize("drive", ["map", "vmap", "host"])
def test_lanes_equal_runs_alone(alone, computed, drive):
    computed.clear()
    together = il.train_lanes(lane, jnp.asarray([2, 4, 100]), (X, Y), observers=both(), drive=drive, **OPTIONS)
    jax.effects_barrier()
    for one, period in zip(together, (2, 4, 100), strict=True):
        assert_same(one.records, alone[period])
    assert_constant(together[2].records, together[1].records)
    if drive != "vmap":  # one kernel at step 0 of each lane, and one for each record after feature updates
        assert len(computed) == 3 + 4 + 2
    TRACES.clear()
    il.train_lanes(lane, jnp.asarray([3, 1, 5]), (X, Y), observers=both(2.0), drive=drive, **OPTIONS)
    assert not TRACES  # other periods and another probe: the same program


def test_an_iterable_of_batches_gives_the_same_numbers(alone):
    records = trained(il.Every(4), both(), data=oracles.minibatches(X, Y, 9), batch_size=None).records
    assert_same(records, alone[4])


def test_convolutions_are_driven_from_the_host(monkeypatch):
    """A loop or a conditional would run them ten times slower on CPU."""
    steps, step = [], _frozen_kernel._compiled_step
    monkeypatch.setattr(_frozen_kernel, "_compiled_step", lambda *a: steps.append(1) or step(*a))
    monkeypatch.setattr(jax.lax, "cond", None)
    x, y = data = oracles.data(LOSS, images=True)
    observers = il.KernelDrift((x[:5], y[:5])), il.FrozenKernelAccuracy(data, data, LAZY, 2, batch_size=5)
    params, options = oracles.cnn_params(), {"data": data, "num_steps": 2, "record_every": 2}
    records = trained(il.Every(1), observers, il.Problem(oracles.cnn, LOSS), params, **options).records
    assert len(steps) == 2 * 2
    batches = [(x[i], y[i]) for i in oracles.batch_indices(2)]
    anchors = [params, oracles.ordinary_loop(oracles.cnn, LOSS, OPTIMISER, params, batches[:1])]
    kernels = [dense_kernel(anchor, x[:5], oracles.cnn) for anchor in anchors]
    assert_same(records, expected(kernels, y[:5], "mean", [0, 2]), COLUMNS)


def test_frozen_kernel_accuracy_is_that_of_lazy_training_from_here():
    """With an optimiser that has a state, is shown the loss and may evaluate it elsewhere."""
    search = optax.scale_by_backtracking_linesearch(max_backtracking_steps=3)
    test, optimiser = (X[::-1] + 0.3, Y), optax.chain(optax.adam(2.0), search)
    options = {"batch_size": 4, "key": jax.random.key(5), "num_steps": 8}
    starts = [oracles.mlp_params(), jax.tree.map(lambda a: 1.5 * a, oracles.mlp_params())]
    found = seen_by(il.FrozenKernelAccuracy((X, Y), test, optimiser, **options), starts)
    for record, start in zip(found, starts, strict=True):
        solver, observers = il.WeightSpace(optimiser), (il.Performance(test),)
        lazy = il.train(PROBLEM, solver, il.Never(), start, (X, Y), observers=observers, **options).records
        assert abs(record["frozen_kernel_loss"] - lazy["test_loss"][-1]) < 1e-10
        assert record["frozen_kernel_accuracy"] == lazy["test_accuracy"][-1]
        assert abs(lazy["test_loss"][-1] - lazy["test_loss"][0]) > 1e-2
    assert found[0] != found[1]


def test_frozen_kernel_loss_is_that_of_the_dense_linear_model(alone):
    """Of the model linearised at θ_t, not at the anchor: at steps 6 and 9 of the run with K = 4."""
    due = [4, 8]
    for row, step in ((3, 6), (5, 9)):
        batches = oracles.minibatches(X, Y, 9)[:step]
        now = oracles.dense_loop(
            oracles.mlp, LOSS, OPTIMISER, oracles.mlp_params(), batches, lambda step, now: step in due
        )
        batches = [(X[i], Y[i]) for i in oracles.batch_indices(6, 4)]
        lazy = oracles.dense_loop(oracles.mlp, LOSS, LAZY, now[0], batches, lambda step, now: False)
        outputs = np.asarray(oracles.dense_of(oracles.mlp).linearised(lazy[1], lazy[2], PROBE[0]))
        assert abs(alone[4]["frozen_kernel_loss"][row] - oracles.mean_loss(LOSS, outputs, PROBE[1])) < 1e-10
        assert alone[4]["frozen_kernel_accuracy"][row] == np.mean(np.argmax(outputs, 1) == np.asarray(PROBE[1]))


def test_lazy_training_and_frozen_kernels_of_some_records_only(alone):
    some = trained(il.Never(), (both()[0], frozen(every=2)), drive="host").records
    assert_constant(some, alone[4])
    assert len(set(alone[100]["frozen_kernel_loss"].tolist())) == 6  # θ_t moves though the anchor does not
    for name in FROZEN:
        assert np.isnan(some[name]).tolist() == [False, True] * 3
        np.testing.assert_allclose(some[name][::2], alone[100][name][::2], atol=1e-12)


@pytest.mark.parametrize("every", [1, 2])
def test_nothing_is_trained_again_at_the_same_step(monkeypatch, every):
    trained_steps, step = [], _frozen_kernel._compiled_step
    monkeypatch.setattr(_frozen_kernel, "_compiled_step", lambda *a: trained_steps.append(1) or step(*a))
    params, observer = oracles.mlp_params(), frozen(every=every)
    still, found, state = jax.tree.map(jnp.zeros_like, params), [], None
    for at, count in ((0, 6), (0, 6), (1, 12)):
        context = il.Context(PROBLEM, params, still, jnp.asarray(at), jnp.asarray(0), traced=False)
        record, state = observer.compute(context, observer.init(context) if state is None else state)
        found.append(float(record["frozen_kernel_loss"]))
        assert len(trained_steps) == count
    assert found[2] == found[0]
    assert np.isnan(found[1]) if every == 2 else found[1] == found[0]


def test_values_as_targets_have_a_loss_but_no_accuracy():
    loss = il.SquaredError()
    (x, y), problem = oracles.data(loss), il.Problem(oracles.mlp, loss)
    (record,) = seen_by(il.FrozenKernelAccuracy((x, y), (x, y), LAZY, 2), [oracles.mlp_params()], problem)
    assert set(record) == {"frozen_kernel_loss"}
    (record,) = seen_by(il.KernelDrift((x, y)), [oracles.mlp_params()], problem)
    kernel, _, centring = as_asked(dense_kernel(oracles.mlp_params(), x), Y, "mean")
    y = np.asarray(y)
    assert abs(record["target_alignment"] - alignment(kernel, y @ y.T, centring)) < 1e-12


def test_what_is_not_defined_is_not_a_number():
    """One example has no centred kernel, and parameters that are not finite have no kernel at all."""
    params = oracles.mlp_params()
    moved = jax.tree.map(lambda a: 1.5 * a, params)
    broken = jax.tree.map(lambda a: jnp.nan * a, params)
    first, second, third = seen_by(il.KernelDrift((X[:1], Y[:1])), [params, moved, broken])
    for record in (first, second, third):
        assert all(np.isnan(record[name]) for name in ("kernel_cka", "kernel_cka_last", "target_alignment"))
    assert first["kernel_change"] == first["kernel_distance"] == first["kernel_velocity"] == 0
    assert second["kernel_change"] > 0.1
    assert all(np.isnan(value) for value in third.values())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: il.KernelDrift(X), TypeError, r"`probe` must be a pair \(x, y\) of inputs and targets, got .*; pass"),
        (lambda: il.KernelDrift((X, Y[:5])), ValueError, r"All arrays of `probe` must have the same .*got \[5, 12\];"),
        (lambda: il.KernelDrift(PROBE, outputs="all"), ValueError, "`outputs` must be 'full', .*, got 'all'; pass"),
        (lambda: il.KernelDrift(PROBE, outputs=True), ValueError, "`outputs` must be 'full', .*, got True; pass"),
        (lambda: il.KernelDrift(PROBE, batch_size=0), ValueError, "`batch_size` must be at least 1, got 0; leave"),
        (lambda: frozen(batch_size=13), ValueError, "`batch_size` must be at most the number of examples, 12, got 13;"),
        (lambda: frozen(batch_size=2.0), TypeError, "`batch_size` must be an integer, got 2.0; pass None"),
        (lambda: frozen(every=0), ValueError, "`every` must be at least 1, got 0; pass 1"),
        (lambda: frozen(key=3), TypeError, "`key` must be one random key such as .*, got 3; make one"),
        (
            lambda: il.FrozenKernelAccuracy(X, PROBE, OPTIMISER, 2),
            TypeError,
            r"`data` must be a pair \(x, y\) of inputs and targets, got .*; pass both",
        ),
        (
            lambda: il.FrozenKernelAccuracy(PROBE, (X, Y[:2]), OPTIMISER, 2),
            ValueError,
            r"All arrays of `test` must have the same .*got \[2, 12\];",
        ),
        (
            lambda: il.FrozenKernelAccuracy(PROBE, PROBE, OPTIMISER, 0),
            ValueError,
            "`num_steps` must be at least 1, got 0; pass",
        ),
        (
            lambda: il.FrozenKernelAccuracy(PROBE, PROBE, 0.1, 2),
            TypeError,
            "`optimiser` must be an Optax gradient transformation, got 0.1; pass",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message) as caught:
        make()
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("observer", "message"),
    [
        (il.KernelDrift(PROBE, outputs=3), "`outputs` must be from 0 to 2 for a network of 3 outputs, got 3; pass"),
        (il.KernelDrift((X, jnp.zeros((12, 2)))), r"Targets must have shape .*, got \(12, 2\); reshape"),
        (il.KernelDrift((X, jnp.zeros(12))), r"Targets of shape \(12,\) must be integer classes, got float64; cast"),
    ],
)
def test_refusals_when_training_begins(observer, message):
    with pytest.raises(ValueError, match=message):
        trained(il.Every(4), (observer,))
