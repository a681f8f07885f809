"""What is said where a number is not one: in training, kernels and their spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from core.quadratic import ENTROPY, SQUARED
from relin.kernel._ntk import unchecked_ntk

X, Y = oracles.data(SQUARED)
CLASSES = oracles.data(ENTROPY)[1]
PARAMS = oracles.mlp_params()


def rooted(p, x):
    """Finite everywhere; its derivative with respect to w is not where x is 0."""
    return oracles.mlp(p, x) * jnp.sqrt(jnp.sum(jnp.square(x @ p["w"]), axis=1, keepdims=True))


DEAD = X.at[3].set(0.0)
DERIVATIVE = (
    r"the derivative of the outputs for example 3 with respect to params\['w'\] is not finite, though the outputs"
)
SGD = il.WeightSpace(optax.sgd(0.01))


def trained(data, solver=SGD, apply=oracles.mlp, loss=SQUARED, schedule=None, params=PARAMS, **options):
    options = {"num_steps": 4, "key": oracles.KEY} | options
    return il.train(il.Problem(apply, loss), solver, schedule or il.Every(2), params, data, **options)


@pytest.mark.parametrize("schedule", [il.Every(1), il.Every(2)], ids=["ordinary", "linearised"])
def test_numbers_in_the_data_are_answered_with_their_place(schedule):
    """In the data's own order, whatever the batch."""
    bad = X.at[7, 1].set(jnp.nan)
    with pytest.raises(il.TrainingError, match=r"since the inputs of example 7 hold nan at \[1\]: leave") as error:
        trained((bad, Y), schedule=schedule, num_steps=9, batch_size=3)
    assert error.value.solution.diverged_at > 0
    assert "learning rate" not in str(error.value)
    quiet = trained((X, Y.at[2, 0].set(jnp.inf)), schedule=schedule, throw=False)
    assert (quiet.result, quiet.diverged_at) == (il.Result.diverged, 0)
    assert quiet.reason.startswith("the targets of example 2 hold inf at [0]")


def test_inputs_by_name_and_integers():
    numbered = {"a": X.at[5, 0].set(-jnp.inf), "b": jnp.arange(len(X))}
    with pytest.raises(il.TrainingError, match=r"inputs of example 5 hold -inf in x\['a'\] at \[0\]"):
        trained((numbered, CLASSES), apply=lambda p, x: oracles.mlp(p, x["a"]), loss=ENTROPY)


@pytest.mark.parametrize("schedule", [il.Every(1), il.Every(2)], ids=["ordinary", "linearised"])
def test_batches_of_an_iterable_say_where_they_came(schedule):
    batches = [(X, Y), (X, Y), (X.at[4, 1].set(jnp.nan), Y), (X, Y)]
    with pytest.raises(il.TrainingError, match="inputs of example 4 of the batch at step 2 hold a number that is not"):
        trained(batches, schedule=schedule)


@pytest.mark.parametrize(
    ("solver", "schedule"),
    [
        (SGD, il.Every(1)),
        (SGD, il.Every(2)),
        (il.FunctionSpace(optax.sgd(0.01), kernel="dense"), il.Every(2)),
        (il.SpectralDescent(0.01), il.Every(2)),
        (il.GaussNewton(0.1), il.Every(1)),
    ],
    ids=["ordinary", "weights", "functions", "spectral", "Gauss-Newton"],
)
def test_a_derivative_that_is_not_finite_is_named_by_every_solver(solver, schedule):
    with pytest.raises(il.TrainingError, match=DERIVATIVE):
        trained((DEAD, Y), solver, rooted, schedule=schedule)


def test_an_example_that_comes_later_is_named_too():
    with pytest.raises(il.TrainingError, match=DERIVATIVE) as error:
        trained((DEAD, Y), apply=rooted, schedule=il.Every(1), num_steps=9, batch_size=2)
    assert error.value.solution.diverged_at > 1


def test_lanes_say_why():
    def make(rate):
        solver = il.WeightSpace(optax.sgd(rate))
        return il.Run(il.Problem(rooted, SQUARED), solver, il.Every(2), PARAMS, oracles.KEY)

    lanes = il.train_lanes(make, jnp.asarray([0.01, 0.02]), (DEAD, Y), num_steps=2)
    assert all("for example 3 with respect to params['w']" in lane.reason for lane in lanes)


def test_a_rate_too_high_is_still_told_to_be_lower(tmp_path):
    with pytest.raises(il.TrainingError, match="is not finite; lower the learning rate") as error:
        trained((X, Y), il.WeightSpace(optax.sgd(1e3)), schedule=il.Every(1), num_steps=200)
    assert error.value.solution.reason is None
    failed = trained((X.at[0, 0].set(jnp.nan), Y), throw=False)
    assert il.load(failed.save(tmp_path), PARAMS).reason == failed.reason


def test_observers_of_such_a_run_record_it_and_warn_once():
    probe = (DEAD, Y)
    observers = [il.KernelDrift(probe), il.Sharpness(probe), il.Performance((X, Y)), il.LinearisationError(X)]
    for drive in ("compiled", "host"):
        with pytest.warns(UserWarning, match="records what is not finite: in its `probe`, " + DERIVATIVE) as told:
            solution = trained((X, Y), apply=rooted, observers=observers, drive=drive)
        assert [str(warning.message).split()[0] for warning in told] == ["KernelDrift", "Sharpness"]
        assert solution.result is not il.Result.diverged
        assert np.isnan(solution.records["kernel_distance"]).all()
        assert np.isnan(solution.records["sharpness"]).all()
        assert np.isfinite(solution.records["test_loss"]).all()


def test_kernels_name_the_example_and_the_parameter():
    with pytest.raises(ValueError, match=f"The kernel must be finite, got one that is not: {DERIVATIVE}"):
        il.kernel.ntk(rooted, PARAMS, DEAD)
    for pair, side in (((DEAD, X), "x1"), ((X, DEAD), "x2")):
        with pytest.raises(ValueError, match=f"for example 3 of {side} with respect to"):
            il.kernel.ntk(rooted, PARAMS, *pair, outputs="mean")
    with pytest.raises(ValueError, match=r"the inputs of example 1 hold nan at \[0\]"):
        il.kernel.ntk(oracles.mlp, PARAMS, X.at[1, 0].set(jnp.nan), per_layer=True)
    bad = PARAMS | {"v": PARAMS["v"].at[0, 1].set(jnp.inf)}
    with pytest.raises(ValueError, match=r"the parameter params\['v'\] holds inf at \[0, 1\]"):
        il.kernel.ntk(oracles.mlp, bad, X)


def test_rows_of_kernels_that_are_not_checked():
    """The mechanism of the check: an example's own entry is not finite, and no other's."""
    kernel = unchecked_ntk(rooted, PARAMS, DEAD, outputs="mean")
    assert np.flatnonzero(~np.isfinite(np.diagonal(kernel))).tolist() == [3]
    traced = jax.jit(lambda x: il.kernel.ntk(rooted, PARAMS, x, outputs="mean"))(DEAD)
    assert np.isnan(traced[3]).all()


@pytest.mark.parametrize("function", ["spectrum", "trace"])
def test_spectra_say_it_too(function):
    more = {"k": 2} if function == "spectrum" else {}
    with pytest.raises(ValueError, match=f"must have finite products, got some that are not: {DERIVATIVE}"):
        getattr(il.kernel, function)((rooted, PARAMS, DEAD), **more, key=oracles.KEY)


def test_a_gauss_newton_step_that_raises_the_loss_far_is_a_failure():
    """In single precision; adapting the damping ends well."""
    shapes = {"w": (8, 16), "v": (16, 3), "x": (12, 8)}
    made = {name: jax.random.normal(jax.random.key(i), s, jnp.float32) for i, (name, s) in enumerate(shapes.items())}
    params, data = {"w": made["w"] / 3, "v": made["v"] / 4}, (made["x"], jnp.arange(12) % 3)

    def run(adapt, **options):
        apply = lambda p, x: jnp.tanh(x @ p["w"]) @ p["v"]  # noqa: E731
        return trained(data, il.GaussNewton(1e-12, adapt), apply, ENTROPY, il.Every(1), params, num_steps=12, **options)

    with pytest.raises(il.TrainingError, match=r"raised the loss of its batch to .*damping 1e-12: .* larger") as error:
        run("none")
    assert error.value.solution.result is il.Result.solver_failed
    assert run("none", throw=False).reason == error.value.solution.reason
    assert run("levenberg-marquardt").result is il.Result.successful
