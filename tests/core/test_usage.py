"""What is meant is taken, and what is not is answered in one sentence."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from torch import nn

import relin as il
from core import oracles

KEY = jax.random.key(0)
X, Y = np.random.default_rng(1).normal(size=(6, 4)), np.arange(6) % 3
PROBLEM = il.Problem(oracles.mlp, il.CrossEntropy())
PARAMS = oracles.mlp_params()
DATASET = il.datasets.Dataset("made", *(il.datasets.Examples(X, Y) for _ in range(3)), 3, "none", "all in each")


def trained(schedule=2, data=(X, Y), optimiser=None, **rest):
    solver = il.WeightSpace(optimiser or optax.sgd(0.1))
    return il.train(PROBLEM, solver, schedule, PARAMS, data, num_steps=3, key=KEY, **rest)


def test_a_number_is_a_period_and_a_data_set_its_training_part():
    expected = trained(il.Every(2))
    for found in (trained(2), trained(np.int64(2)), trained(data=DATASET)):
        assert found.feature_updates == expected.feature_updates
        np.testing.assert_array_equal(found.params["w"], expected.params["w"])
    assert il.check(PROBLEM, PARAMS, DATASET).num_examples == 6


MODULES = [
    (lambda: il.models.MLP((4,), 3, key=KEY), "MLP", "from_equinox"),
    (lambda: eqx.nn.BatchNorm(3, "batch", mode="ema"), "BatchNorm", "from_equinox"),
    (lambda: nnx.Linear(4, 3, rngs=nnx.Rngs(0)), "Linear", "from_nnx"),
    (lambda: linen.Dense(3), "Dense", "from_linen"),
    (lambda: nn.Linear(4, 3), "Linear", "from_torch"),
    (lambda: nn.Linear, "Linear", "from_torch"),
]


@pytest.mark.parametrize(("make", "name", "adapter"), MODULES)
def test_a_module_is_sent_to_its_adapter(make, name, adapter):
    with pytest.raises(TypeError, match=rf"got the module {name}; write apply, params = relin\.{adapter}\(module\)"):
        il.Problem(make(), il.CrossEntropy())


def test_an_equinox_module_of_parameters_and_inputs_is_a_function():
    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, params, x):
            return self.scale * oracles.mlp(params, x)

    assert il.Problem(Scaled(jnp.ones(())), il.CrossEntropy()).mode == "frozen"
    il.Problem(eqx.filter_jit(oracles.mlp), il.CrossEntropy())


class Observer(il.AbstractObserver):
    result: object = eqx.field(static=True)

    def compute(self, context, state):
        return self.result


@pytest.mark.parametrize(
    ("result", "got"), [(None, "NoneType"), (1.0, "float"), ((1.0, ()), "a tuple of 2"), (({}, (), ()), "a tuple of 3")]
)
def test_an_observer_without_a_state_is_named(result, got):
    match = f"must return a dictionary of what it records and its state, got {got} from Observer"
    with pytest.raises(TypeError, match=match):
        trained(observers=[Observer(result)])


@pytest.mark.parametrize(
    ("record", "got"),
    [({"a": "x"}, "str under 'a'"), ({"a": [1.0, 2.0]}, "list under 'a'"), ({1: 2.0}, "the name 1")],
)
def test_an_observer_that_records_no_numbers_is_named(record, got):
    with pytest.raises(TypeError, match=f"one number for each name, a text, got {got} from Observer; give a mean"):
        trained(observers=[Observer((record, ()))])


@pytest.mark.parametrize(
    "data",
    [
        (X, np.array(list("abcabc"))),
        (X, list("abcabc")),
        [(X, np.array(list("abcabc")))],
        (X, np.array(["a"] * 6, object)),
    ],
)
def test_text_is_no_target(data):
    with pytest.raises(
        TypeError, match=r"The targets must be numbers, got 'a'; number classes from 0, .*return_inverse"
    ):
        trained(data=data)


def needs_more():
    return optax.GradientTransformationExtraArgs(lambda p: (), lambda g, s, p=None, *, hessian, **_: (g, s))


def test_an_optimiser_that_needs_more_is_answered():
    for solver, schedule in ((il.WeightSpace, il.Every(2)), (il.FunctionSpace, il.Never())):
        with pytest.raises(
            TypeError, match="the keywords `value`, `grad` and `value_fn`, got one that needs more"
        ) as refusal:
            il.train(PROBLEM, solver(needs_more()), schedule, PARAMS, (X, Y), num_steps=2, key=KEY)
        assert "\n" not in str(refusal.value)
    assert trained(optimiser=optax.polyak_sgd(1.0)).result is il.Result.successful


APPLY, _ = il.from_equinox(il.models.MLP((4,), 3, key=KEY))
LINES = [
    (DATASET, "Dataset('made', train=6, validation=6, test=6, input_shape=(4,), num_classes=3)"),
    (il.models.MLP((4,), 3, width=8, depth=1, key=KEY), "MLP(input_shape=(4,), activation='relu', 67 parameters)"),
    (APPLY, "EquinoxApply(MLP, mode='frozen')"),
    (il.from_torch(nn.Linear(4, 3))[0], "TorchApply(Linear, mode='frozen')"),
    (il.from_nnx(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))[0], "NNXApply(Linear, mode='frozen')"),
    (il.from_linen(linen.Dense(3), {"params": PARAMS})[0], "LinenApply(Dense, mode='frozen')"),
]


def test_what_people_print_fits_on_a_line():
    for value, line in LINES:
        assert repr(value) == line
    lines = [
        PROBLEM,
        DATASET.train,
        il.WeightSpace(optax.adam(1e-3)),
        il.kernel.NTKOperator(oracles.mlp, PARAMS, X),
        il.kernel.features(oracles.mlp, PARAMS, X),
        PROBLEM.linearise(PARAMS),
        il.Run(PROBLEM, il.WeightSpace(optax.sgd(0.1)), il.Every(3), PARAMS, KEY),
        il.LaneSolutions((trained(), trained())),
        il.trainable(oracles.mlp, PARAMS, "w")[0],
    ]
    for value in lines:
        assert "\n" not in repr(value)
        assert len(repr(value)) < 220
    assert repr(lines[-2]) == "LaneSolutions(2 failed to train)"
    assert repr(il.Every(jnp.asarray(5))) == "Every(k=5)"
    assert repr(jax.jit(lambda k: il.Every(k))(5)) == "Every(k=5)"
    assert repr(il.AtSteps([3, 1])) == "AtSteps(steps=[1, 3])"
    assert "5" in repr(il.Until(il.Every(jnp.asarray(5)), 10))


def test_the_version_is_known():
    assert re.fullmatch(r"\d+\.\d+.*", il.__version__)
