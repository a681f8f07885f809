"""What cannot be trained is refused before anything is compiled: expected, got, remedy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles

LOSS = il.CrossEntropy()
X, Y = oracles.data(LOSS)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: il.Every(0), ValueError, r"period K must be at least 1, got 0; .*use Never\(\) for K = ∞"),
        (lambda: il.Every(-1), ValueError, r"period K must be at least 1, got -1; .*Never\(\)"),
        (lambda: il.Every(2.5), TypeError, r"period K must be an integer, got 2.5; .*Never\(\)"),
        (lambda: il.Every(float("inf")), TypeError, r"period K must be an integer, got inf; .*Never\(\)"),
        (lambda: il.Every(True), TypeError, "period K must be an integer, got True; pass a whole number"),
        (lambda: il.Every(jnp.asarray(2.0)), TypeError, r"must be one integer, got float64 of shape \(\); pass"),
        (lambda: il.Every(np.arange(3)), TypeError, r"must be one integer, got int64 of shape \(3,\); pass"),
        (lambda: il.Every(np.int64(0)), ValueError, "period K must be at least 1, got 0; pass"),
        (lambda: il.Every(jnp.asarray(0)), ValueError, "period K must be at least 1, got 0; pass"),
        (lambda: il.Until(il.Every(2), -1), ValueError, "`step` must be at least 0, got -1; pass the step"),
        (lambda: il.After(il.Every(2), 1.5), TypeError, "`step` must be an integer, got 1.5; pass the step"),
        (lambda: il.AtSteps([1, -2]), ValueError, "`steps` must not be negative, got -2; steps count from 0"),
        (lambda: il.AtSteps([1.5]), TypeError, r"`steps` must be a sequence of integers, got \[1.5\]; pass"),
        (lambda: il.EqualTime(0.1, 9, 9), ValueError, "`updates` must be below num_steps=9, got 9; use Every"),
        (lambda: il.EqualTime(0.1, 9, 0), ValueError, "`updates` must be at least 1, got 0; pass how many"),
        (lambda: il.EqualTime(0.0, 9, 2), ValueError, "at least 0, finite and not all 0, got 0 to 0; pass the"),
        (lambda: il.EqualTime(lambda t: 1.0 - t, 9, 2), ValueError, "must be at least 0, finite and not all 0, got -7"),
        (lambda: jax.jit(lambda r: il.EqualTime(r, 9, 2).steps)(0.1), ValueError, "known before the run is compiled"),
        (lambda: il.Geometric(1, 1), ValueError, r"`ratio` must be a number greater than 1, got 1; use Every"),
        (lambda: il.Geometric(1, float("nan")), ValueError, "`ratio` must be a number greater than 1, got nan"),
        (lambda: il.Geometric(0, 2), ValueError, "`first` must be at least 1, got 0; pass the step"),
        (
            lambda: il.Every(2**31),
            ValueError,
            "period K must be at most 1,000,000,000, got 2,147,483,648; pass a whole",
        ),
        (lambda: il.Until(il.Every(2), 10**12), ValueError, "`step` must be at most 1,000,000,000, got 1,0"),
        (lambda: il.AtSteps([2, 2**32 + 2]), ValueError, "`steps` must be at most 1,000,000,000, got 4,294,967,298;"),
        (lambda: il.WhenError(-0.1), ValueError, "`tolerance` must be a number of at least 0, got -0.1; typical"),
        (lambda: il.WhenError("0.1"), ValueError, "`tolerance` must be a number of at least 0, got '0.1'; typical"),
        (lambda: il.WhenError(float("nan")), ValueError, "`tolerance` must be a number .*got nan; typical"),
        (lambda: il.WhenError(True), ValueError, "`tolerance` must be a number .*got True; typical"),
        (lambda: il.WhenError(0.1, 0), ValueError, "`check_every` must be at least 1, got 0; pass the number"),
        (lambda: il.WeightSpace(0.1), TypeError, "must be an Optax gradient transformation, got 0.1; pass for"),
        (lambda: il.WhenLossGap(-1), ValueError, "`tolerance` must be a number of at least 0, got -1; it is a diff"),
        (lambda: il.WhenLossGap(0.1, 2.5), TypeError, "`check_every` must be an integer, got 2.5; pass the number"),
        (lambda: il.WhenFunctionMoves(None), ValueError, "`tolerance` must be a number .*got None; it is a dist"),
        (lambda: il.WhenFunctionMoves(1.0, 0), ValueError, "`check_every` must be at least 1, got 0; pass the number"),
        (lambda: weight_space("forget"), ValueError, "\"reset\" or a factor between 0 and 1, got 'forget'; pass"),
        (lambda: weight_space(1.0), ValueError, '"keep", "reset" or a factor between 0 and 1, got 1.0; pass "keep"'),
        (lambda: weight_space(0.0), ValueError, '"keep", "reset" or a factor between 0 and 1, got 0.0; pass "keep"'),
        (lambda: weight_space(proximal=-0.1), ValueError, "`proximal` must be at least 0 and finite, got -0.1; pass 0"),
        (lambda: weight_space(proximal=np.inf), ValueError, "`proximal` must be at least 0 and finite, got inf; pass"),
        (lambda: weight_space(proximal=np.nan), ValueError, "`proximal` must be at least 0 and finite, got nan; pass"),
        (lambda: il.LineSearch(0.9), ValueError, "`factor` must be at least 1, got 0.9; 1 allows no rise"),
        (lambda: il.LineSearch(np.nan), ValueError, "`factor` must be at least 1, got nan; 1 allows no rise"),
        (lambda: il.LineSearch(shrink=1.0), ValueError, "`shrink` must be between 0 and 1, got 1.0; 0.5 halves"),
        (lambda: il.LineSearch(shrink=0), ValueError, "`shrink` must be between 0 and 1, got 0; 0.5 halves"),
        (lambda: il.LineSearch(max_halvings=-1), ValueError, "`max_halvings` must be .*at least 0, got -1; 6 is"),
        (lambda: il.LineSearch(max_halvings=1.5), TypeError, "`max_halvings` must be an integer, got 1.5; 6 is"),
        (lambda: il.TrustRegion(0), ValueError, "`radius` must be above 0, got 0; 1.0 is a usual start"),
        (lambda: il.TrustRegion(np.nan), ValueError, "`radius` must be above 0, got nan; 1.0 is a usual start"),
        (lambda: il.TrustRegion(1, shrink=1.5), ValueError, "`shrink` must be .* and `grow` above 1, got 1.5 and 2.0;"),
        (lambda: il.TrustRegion(1, grow=1.0), ValueError, "`shrink` must be .* and `grow` above 1, got 0.5 and 1.0;"),
        (lambda: il.Problem("net", LOSS), TypeError, r"function apply\(params, x\) -> outputs, got str; use"),
        (lambda: il.Problem(oracles.mlp, oracles.mlp), TypeError, "instance of a relin loss, got .*; pass relin"),
    ],
)
def test_parts(make, error, message):
    with pytest.raises(error, match=message):
        make()


def weight_space(on_relinearise="keep", proximal=0.0):
    return il.WeightSpace(optax.sgd(1.0), on_relinearise, proximal)


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, cotangent: (jnp.clip(cotangent, -1, 1),))


def train(apply=oracles.mlp, loss=LOSS, solver=None, schedule=None, params=None, data=(X, Y), **options):
    params = oracles.mlp_params() if params is None else params
    solver = solver or il.WeightSpace(optax.sgd(0.1))
    options = {"num_steps": 2, "key": oracles.KEY} | options
    return il.train(il.Problem(apply, loss), solver, schedule or il.Every(2), params, data, **options)


INTEGER = {"layer": [jnp.ones(2), jnp.arange(3)]}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 13}, ValueError, "`batch_size` must be at most the number of examples, 12, got 13; pass"),
        ({"batch_size": 4, "batches": il.FullBatch()}, ValueError, "Either .* got both 4 and FullBatch.*; leave one"),
        ({"data": [(X, Y)], "batch_size": 4}, ValueError, "must decide its own batch size, got batch_size=4 .*; leave"),
        ({"data": [(X, Y)], "drive": "compiled"}, ValueError, 'driven from the host, got drive="compiled"; pass'),
        ({"data": []}, ValueError, "at least one batch .* got an iterable without any; pass"),
        ({"data": X}, TypeError, r"Each batch of an iterable must be a pair \(x, y\), got ArrayImpl; pass a tuple"),
        ({"data": (X, Y[:5])}, ValueError, r"the same number of examples, got \[5, 12\]; check `data`"),
        ({"data": (X, Y, Y)}, TypeError, r"must be a pair \(x, y\) of arrays, got a tuple of 3 .*; convert"),
        ({"data": (X, 3.0)}, TypeError, r"must be a pair \(x, y\) of arrays, got a tuple of 2 .*; convert"),
        ({"data": (X[:0], Y[:0])}, ValueError, "at least one example, got none; check"),
        ({"data": (X, jnp.zeros((12, 7)))}, ValueError, r"Targets must have shape \(12,\) .*got \(12, 7\); reshape"),
        ({"data": (X, Y.astype(float))}, ValueError, "must be integer classes, got float64; cast"),
        ({"data": (X, Y - 1)}, ValueError, "classes from 0 to 2, .*, got -1 at example 5; relabel"),
        ({"data": (X, Y + 1)}, ValueError, "classes from 0 to 2, .*, got 3 at example 2; relabel"),
        ({"data": None}, TypeError, r"a pair \(x, y\) of arrays or an iterable of such pairs, got None; pass"),
        ({"observers": il.Movement()}, TypeError, r"must be a list of relin observers, got Movement\(\); pass"),
        ({"observers": [3]}, TypeError, r"must be a list of relin observers, got \[3\]; pass"),
        ({"batches": 16}, TypeError, "`batches` must be one such as .*, got 16; or pass batch_size"),
        ({"augment": abs}, TypeError, r"`augment` must be one such as relin.Flip\(\), got <.*; subclass"),
        ({"augment": il.Flip()}, ValueError, r"Images to augment must have shape .*, got \(12, .*; reshape"),
        ({"params": INTEGER}, TypeError, r"floating-point array, got int64 at params\['layer'\]\[1\]; keep what"),
        ({"params": {"a": 1.0}}, TypeError, r"floating-point array, got float at params\['a'\]; keep what"),
        ({"params": {}}, ValueError, "`params` holds no array; pass"),
        ({"apply": lambda p, x: jnp.zeros((12, 3), int)}, TypeError, "one floating-point array .*got .*int64.*; let"),
        ({"apply": lambda p, x: (x, x)}, TypeError, "one floating-point array of shape .*got .*; let `apply` return"),
        (
            {"apply": lambda p, x: clipped(oracles.mlp(p, x))},
            ValueError,
            "JAX cannot transpose .*must be linear",
        ),
        ({"key": 3}, TypeError, r"`key` must be one random key such as jax.random.key\(0\), got 3; make"),
        ({"key": jax.random.split(oracles.KEY)}, TypeError, "(?s)`key` must be one random key .*got .*; make"),
        ({"num_steps": 0}, ValueError, "`num_steps` must be at least 1, got 0; pass"),
        ({"num_steps": 2.0}, TypeError, "`num_steps` must be an integer, got 2.0; pass"),
        ({"num_steps": np.bool_(True)}, TypeError, "`num_steps` must be an integer, got .*True.*; pass"),
        ({"num_steps": np.float64(2)}, TypeError, "`num_steps` must be an integer, got .*2.0.*; pass"),
        ({"num_steps": np.int64(0)}, ValueError, "`num_steps` must be at least 1, got 0; pass"),
        ({"batch_size": np.float64(2)}, TypeError, "`batch_size` must be an integer, got .*2.0.*; pass None"),
        ({"batch_size": np.int64(0)}, ValueError, "`batch_size` must be at least 1, got 0; pass None"),
        ({"record_every": 0}, ValueError, "`record_every` must be at least 1, got 0; pass"),
        ({"record_every": True}, TypeError, "`record_every` must be an integer, got True; pass"),
        ({"drive": "vmap"}, ValueError, r"`drive` must be one of \('auto', 'compiled', 'host'\), got 'vmap'; pass"),
        ({"safeguard": "search"}, TypeError, "`safeguard` must be a relin safeguard or None, got 'search'; pass for"),
        ({"safeguard": il.LineSearch}, TypeError, "`safeguard` must be a relin safeguard or None, got <class .*; pass"),
        ({"schedule": 6.5}, TypeError, r"`schedule` must be a relin schedule, got 6.5; pass for example relin.Every"),
        (
            {"solver": optax.sgd(0.1)},
            TypeError,
            "`solver` must be a relin solver, got .*; pass for example relin.Weight",
        ),
    ],
)
def test_runs(options, error, message):
    with pytest.raises(error, match=message):
        train(**options)


def lane(k):
    return il.Run(il.Problem(oracles.mlp, LOSS), il.WeightSpace(optax.sgd(0.1)), il.Every(k), oracles.mlp_params(), KEY)


KEY = oracles.KEY


@pytest.mark.parametrize(
    ("lanes", "options", "error", "message"),
    [
        ({"k": jnp.arange(1, 3), "seed": jnp.arange(3)}, {}, ValueError, r"leading axis of lanes, got shapes \[\(2,\)"),
        ({}, {}, ValueError, r"leading axis of lanes, got shapes \[\]; stack"),
        (jnp.asarray(4), {}, ValueError, r"leading axis of lanes, got shapes \[\(\)\]; stack"),
        (jnp.arange(3), {}, ValueError, "period K must be at least 1, got 0"),
        (jnp.arange(1, 3), {"drive": "compiled"}, ValueError, r"one of \('auto', 'map', 'vmap', 'host'\), got 'comp"),
        (jnp.arange(1, 3), {"batch_size": 13}, ValueError, "at most the number of examples, 12, got 13; pass"),
        (jnp.arange(1, 3), {"num_steps": -1}, ValueError, "`num_steps` must be at least 1, got -1; pass"),
    ],
)
def test_lanes(lanes, options, error, message):
    with pytest.raises(error, match=message):
        il.train_lanes(lane, lanes, (X, Y), **({"num_steps": 2} | options))


NUMBERS = {
    "proximal": lambda value: il.WeightSpace(optax.sgd(0.1), proximal=value),
    "decay": il.ExponentialAverage,
    "ratio": il.DisplacementBound,
    "floor": lambda value: il.DisplacementBound(0.1, floor=value),
    "c": lambda value: il.RateCap(value, 0.1),
    "rate": lambda value: il.RateCap(0.5, value),
    "momentum": lambda value: il.RateCap(0.5, 0.1, value),
    "damping": il.GaussNewton,
    "learning_rate": il.SpectralDescent,
    "factor": il.LineSearch,
    "shrink": lambda value: il.TrustRegion(1.0, value),
    "radius": il.TrustRegion,
    "tolerance": il.WhenError,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_checked_whether_pythons_or_an_array(name):
    for value in (-1.0, jnp.asarray(-1.0), np.float32(-1.0), np.asarray(np.nan), jnp.full(2, 0.5), "0.5", None):
        with pytest.raises(ValueError, match=rf"`{name}` must be .*, got "):
            NUMBERS[name](value)
    NUMBERS[name](np.asarray(1.5 if name in ("factor", "radius") else 0.5))
    jax.eval_shape(lambda traced: [NUMBERS[name](traced)] and traced, -1.0)


def test_a_raw_key_is_taken_for_the_typed_one():
    raw = train(key=jax.random.PRNGKey(5), batch_size=5)
    typed = train(key=jax.random.key(5), batch_size=5)
    assert oracles.same_bits(raw.params, typed.params)


def test_numpy_integers_are_taken_for_pythons():
    numbers = {"num_steps": 3, "batch_size": 5, "record_every": 2}
    kinds = dict(zip(numbers, (np.int64, np.uint8, np.int32), strict=True))
    wanted, found = train(**numbers), train(**{name: kinds[name](number) for name, number in numbers.items()})
    assert oracles.same_bits(found.params, wanted.params)
    assert found.records["step"].tolist() == wanted.records["step"].tolist() == [0, 2, 3]
    lanes = il.train_lanes(lane, jnp.arange(1, 3), (X, Y), num_steps=np.int64(3), record_every=np.int8(2))
    assert lanes[1].records["step"].tolist() == [0, 2, 3]


def test_traced_data_are_refused():
    with pytest.raises(TypeError, match=r"must be concrete arrays, got traced ones; call train outside jax\.jit"):
        jax.jit(lambda x: train(data=(x, Y)).params)(X)


def test_lanes_that_are_no_runs_are_refused():
    with pytest.raises(TypeError, match=r"`make` must return a relin\.Run, got tuple"):
        il.train_lanes(lambda k: (k,), jnp.arange(1, 3), (X, Y), num_steps=2)


def test_a_negative_padding_is_refused():
    with pytest.raises(ValueError, match="`padding` must be a whole number of at least 0, got -1; 4 is usual"):
        il.PaddedCrop(-1)


def test_former_names_stand_for_the_new_ones_and_methods_that_were_renamed_are_refused():
    """A schedule's method of a former name would never be called."""
    assert (il.AbstractStretchSolver, il.Verdict) == (il.AbstractMultiStepSolver, il.StepScale)
    for old, new in (("looks", "queried"), ("moves", "relinearised")):
        with pytest.raises(TypeError, match=f"`{new}` was once `{old}`, got Mine; rename it"):
            type("Mine", (il.AbstractSchedule,), {"due": lambda self, step: True, old: lambda self, step, state: True})
