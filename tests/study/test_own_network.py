"""Studies of networks of the user's own: each framework, what identifies them, and what is refused."""

import json
import shutil
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest
from tiny_studies import TINY

import relin as il
from relin import study
from relin.study._code import digest_of, keep, load
from relin.study._network import key_of_network
from relin.study._own_network import OwnNetworks

SETTINGS = TINY | {"data": "digits", "train_limit": 64, "periods": [1, 4, "inf"]}
EXAMPLE = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)


def apply(params, x):
    return jnp.tanh(x.reshape(len(x), -1) @ params["w"]) @ params["v"]


def build(key, width=4):
    first, second = jax.random.split(key)
    return apply, {"w": jax.random.normal(first, (64, width)) / 8, "v": jax.random.normal(second, (width, 10))}


def networks(function, **options):
    return OwnNetworks(*keep(function), json.dumps(options), EXAMPLE)


@pytest.mark.slow
def test_a_study_trains_the_network_that_a_loop_by_hand_trains(tmp_path):
    answer = study.Frequency(network=build, **SETTINGS).run(tmp_path / "study", progress=False)
    data = il.datasets.load("digits", limit=64)
    key = jax.random.key(1)
    solution = il.train(
        il.Problem(apply, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(optax.linear_schedule(0.1, 0.0, 8), momentum=0.9)),
        il.Every(4),
        build(key_of_network(1))[1],
        data,
        num_steps=8,
        batch_size=16,
        key=jax.random.fold_in(key, 1),
        observers=[il.Performance(data.test, "test")],
        record_every=4,
    )
    own = answer.records.filter(pl.col("schedule") == "every-4", pl.col("seed") == 1).sort("step")
    np.testing.assert_allclose(own["test_loss"], solution.records["test_loss"], rtol=1e-5)
    assert (answer.result.data, answer.result.model) == ("digits", "build")
    assert answer.table["schedule"].to_list() == ["every-1", "every-4", "never"]
    assert answer.table.to_pandas()["period"].tolist() == [1, 4, np.inf]

    assert "learning-curves" in answer.figures
    assert answer.report.is_file()
    shown = answer._repr_html_()
    assert "data:image/png;base64," in shown
    assert answer.verdict.split(";")[0] in shown
    again = study.Frequency(network=build, **SETTINGS).run(tmp_path / "study", progress=False)
    assert again.records.equals(answer.records)


def test_another_function_is_another_study(tmp_path):
    folder = tmp_path / "study"
    settings = SETTINGS | {"periods": [1, "inf"], "steps": 2}
    study.Frequency(network=build, **settings).run(folder, progress=False)
    factor = 2.0

    def other(key):
        function, params = build(key)
        return function, jax.tree.map(lambda leaf: factor * leaf, params)

    with pytest.raises(study.SpecError, match=r"other settings .digests, model."):
        study.Frequency(network=other, **settings).run(folder, progress=False)
    first = keep(other)
    factor = 3.0
    assert keep(other) != first


def test_code_in_a_file_is_known_by_its_text_and_run_only_when_it_trains(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("import helper\ndef build(key): return helper.f, {'w': 1}\n")
    (tmp_path / "helper.py").write_text("f = abs\n")
    place, digest = f"{file}:build", digest_of(f"{file}:build")
    assert load(place, digest)(0) == (abs, {"w": 1})
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(file, other / "mine.py")
    (other / "helper.py").write_text("f = len\n")
    assert load(f"{other}/mine.py:build", digest)(0) == (len, {"w": 1})  # its own helper
    spec = study.read_spec("frequency", overrides={"model": place, "data": "digits"})
    assert spec.digests == {"model": digest}
    assert study.read_spec("frequency", overrides=spec.model_dump(mode="json")) == spec
    file.write_text("raise SystemError\n")
    changed = study.read_spec("frequency", overrides={"model": place, "data": "digits"})
    assert changed.digests != spec.digests
    with pytest.raises(study.SpecError, match="has changed since the study began"):
        load(place, digest)
    with pytest.raises(study.SpecError, match=r"cannot be run .SystemError"):
        load(place, digest_of(place))
    with pytest.raises(study.SpecError, match="cannot be read"):
        digest_of(f"{tmp_path}/missing.py:build")
    with pytest.raises(study.SpecError, match=r"There is no module nosuch\.module"):
        digest_of("nosuch.module:build")
    assert digest_of("relin.study._code:load").startswith("relin ")


def another_shape(key):
    return build(key, width=4 + int(jax.random.randint(key, (), 0, 40)))


COUNTER = iter(range(100))


def calls():
    return next(COUNTER)


def unlike(key):
    function, params = build(key)
    return function, params | {"w": params["w"] + calls()}


def of_the_key(key):
    scale = jax.random.uniform(key)
    return lambda params, x: scale * apply(params, x), build(key)[1]


def failing(key):
    raise RuntimeError("no weights here")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (another_shape, "gives other shapes for another key, float32.4, 10. after|gives other shapes for another key"),
        (unlike, "gives other parameters when it is called again with the same key"),
        (of_the_key, "gives an `apply` that depends on the key"),
        (failing, "could not build the network of seed 0 .RuntimeError: no weights here."),
        (lambda key: 3, "must return `.apply, params.`, or a module of Equinox"),
    ],
)
def test_what_is_no_network_of_a_key_is_refused(function, message):
    own = networks(function)
    with pytest.raises(ValueError, match=message):
        own.lanes([0, 1, 2])


def of_equinox(key):
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), eqx.nn.Linear(64, 10, key=key)])


def of_nnx(key):
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x):
            return self.linear(x.reshape(len(x), -1))

    return Net(nnx.Rngs(key))


def of_linen(key):
    from flax import linen

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(10)(x.reshape(len(x), -1))

    module = Net()
    return module, module.init(key, EXAMPLE)


def of_torch(seed):
    import torch

    del seed
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


@pytest.mark.parametrize("function", [of_equinox, of_nnx, of_linen, of_torch])
def test_modules_of_every_framework(function):
    own = networks(function)
    lanes = own.lanes([3, 5])
    for lane, seed in enumerate((3, 5)):
        network, params = own.of_lane(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes))
        expected, initial = own.of_seed(seed)
        np.testing.assert_array_equal(network(params, EXAMPLE), expected(initial, EXAMPLE))
        assert network(params, EXAMPLE).shape == (2, 10)
    assert not np.array_equal(*(jax.tree.leaves(own.of_seed(seed)[1])[-1] for seed in (3, 5)))
    assert own == networks(function)
    assert hash(own) == hash(networks(function))


class Options:
    def __init__(self, width):
        self.width = width


TABLE = {"width": 1}


def of_a_table(key):
    return TABLE["width"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Options(1), Options(2)),
        (eqx.nn.Linear(2, 2, key=jax.random.key(0)), eqx.nn.Linear(2, 2, key=jax.random.key(1))),
        (jax.random.key(0), jax.random.key(1)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        ([1, {"a": Options(2)}], [1, {"a": Options(3)}]),
        (optax.adam(1e-3), optax.adam(1e-2)),
        (lambda x: x + 1, lambda x: x + 2),  # of one line, and so of one source
        (jax.jit(lambda x: x * 1), jax.jit(lambda x: x * 2)),
    ],
)
def test_what_a_function_closes_over_tells_it_apart(one, other):
    def closing(inner):
        return lambda key: inner

    assert keep(closing(one)) == keep(closing(one))
    assert keep(closing(one)) != keep(closing(other))


def test_weights_and_globals_tell_functions_apart(monkeypatch):
    import torch

    layers = [torch.nn.Linear(2, 2) for _ in range(2)]
    assert keep(lambda seed, inner=layers[0]: inner) != keep(lambda seed, inner=layers[1]: inner)
    before = keep(of_a_table)
    monkeypatch.setitem(TABLE, "width", 2)
    assert keep(of_a_table) != before


def test_what_cannot_be_told_apart_is_refused():
    lock = threading.Lock()
    with pytest.raises(study.SpecError, match=r"lock cannot be told from another one; .* FILE\.py:NAME"):
        keep(lambda key: lock)
