"""What people bring to a study of their own: each works, or is refused in a sentence before the folder is made."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
import pytest
from tiny_studies import TINY

import relin as il
from relin import study
from relin.study._network import key_of_network
from relin.study._settings import STORED

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 6)).astype(np.float32)
Y = np.argmax(X[:, :3] + 0.1 * RANDOM.normal(size=(60, 3)), axis=1)
KERNEL = {"periods": [1, "inf"], "frozen_methods": [], "kernel_probe": 8}


def linear(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def start(key, inputs=6):
    first, second = jax.random.split(key)
    return {"w": jax.random.normal(first, (inputs, 4)) / 2, "v": jax.random.normal(second, (4, 3)) / 2}


def build(key):
    return linear, start(key)


def data(x=X, y=Y, **options):
    return study.Data((x, y), **options)


def answer(network, given, folder, **settings):
    return study.Frequency(network=network, data=given, **TINY | settings).run(folder, progress=False)


def refused(network, given, folder, match, question=study.Frequency, **settings):
    """That a study is refused, before there is a folder."""
    with pytest.raises(ValueError, match=match) as error:
        question(network=network, data=given, **settings or TINY).run(folder / "refused", progress=False)
    assert not (folder / "refused").exists()
    assert str(error.value).count("\n") == 0


@jax.custom_vjp
def backward_only(x):
    return x


backward_only.defvjp(lambda x: (x, None), lambda _, g: (jnp.sign(g),))


def test_a_network_that_cannot_be_linearised_is_refused(tmp_path):
    def network(key):
        return lambda params, x: backward_only(linear(params, x)), start(key)

    refused(network, data(), tmp_path, "network: network cannot be trained on a batch of 16 examples: .*custom_vjp")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda params, x: linear(params, x)[:, :2], "classes|class"),
        (lambda params, x: linear(params, x).sum(0), "outputs of shape"),
        (lambda params, x: linear(params, x[:, :5]), "cannot be trained on a batch of 16 examples: .*dot_general"),
        (lambda params, x: linear(params, x) + np.random.normal(), "random"),
    ],
)
def test_a_network_that_does_not_fit_its_data_is_refused(wrong, message, tmp_path):
    refused(lambda key: (wrong, start(key)), data(), tmp_path, message)


def coupled(params, x):
    return linear(params, x - x.mean(0, keepdims=True))


@pytest.mark.slow
def test_a_coupled_network_is_measured_on_whole_parts_and_refused_by_studies_of_kernels(tmp_path):
    def network(key):
        return coupled, start(key)

    found = answer(network, data(np.repeat(X, 3, 0), np.repeat(Y, 3)), tmp_path / "study", steps=2).records
    row = found.filter(schedule="every-1", seed=0, step=0).row(0, named=True)
    dataset = data(np.repeat(X, 3, 0), np.repeat(Y, 3))
    params = start(key_of_network(0))
    outputs = coupled(params, jnp.asarray(dataset.test.x))
    assert len(outputs) > 16, "more than a chunk"
    expected = il.CrossEntropy().mean(outputs, jnp.asarray(dataset.test.y))
    np.testing.assert_allclose(row["test_loss"], expected, rtol=1e-5)
    kernels = {"seeds": 2, "select_seeds": 1, "steps": 2, "batch_size": 16, "learning_rates": [0.1]}
    message = "the outputs of .*network for an example depend on the others of its batch, .*study kernel"
    refused(network, data(), tmp_path / "kernel", message, study.Kernel, **kernels)
    few = {"seeds": 2, "train_limit": 20}
    refused(network, data(), tmp_path / "damping", "study damping measures kernels", study.Damping, **few)


NODES = 12
NEIGHBOURS = np.asarray(RANDOM.random((NODES, NODES)) < 0.3, np.float32) + np.eye(NODES, dtype=np.float32)


def graph(params, x):
    return jnp.asarray(NEIGHBOURS) @ jnp.tanh(jnp.asarray(NEIGHBOURS) @ x @ params["w"]) @ params["v"]


def test_one_graph_whose_nodes_are_the_batch_is_trained_in_their_order(tmp_path):
    def network(key):
        return graph, start(key)

    x, y = X[:NODES], np.arange(NODES) % 3
    parts = study.Data((x, y), (x + 0.1, y), (x - 0.1, y))
    found = answer(network, parts, tmp_path / "study", batch_size=NODES, steps=4).records
    row = found.filter(schedule="every-1", seed=0).sort("step").row(-1, named=True)
    solution = il.train(
        il.Problem(graph, il.CrossEntropy()),
        il.WeightSpace(optax.sgd(optax.linear_schedule(0.1, 0.0, 4), momentum=0.9)),
        il.Every(1),
        start(key_of_network(0)),
        (x, y),
        num_steps=4,
        key=jax.random.key(0),
        observers=[il.Performance((x - 0.1, y), "test", NODES)],
    )
    np.testing.assert_allclose(row["test_loss"], solution.records["test_loss"][-1], rtol=1e-5)
    whole = "takes a whole batch of 12 examples only .* when-error-0.1 looks at half of one; leave adaptive"
    refused(network, parts, tmp_path, whole, **TINY | {"batch_size": NODES, "tolerances": [0.1]})
    other = study.Data((x, y), (X[:5], y[:5]), (x, y))
    refused(network, other, tmp_path, "cannot measure on validation and test", **TINY | {"batch_size": NODES})
    preflight = il.check(il.Problem(graph, il.CrossEntropy()), start(key_of_network(0)), (x, y))
    assert (preflight.obstacle, preflight.independent) == (None, False)


TOKENS = RANDOM.integers(0, 7, (60, 5))


def of_tokens(params, x):
    return jnp.tanh(params["table"][x].mean(1)) @ params["v"]


def test_integer_inputs_are_indices(tmp_path):
    def network(key):
        return of_tokens, {"table": jax.random.normal(key, (7, 4)), "v": jax.random.normal(key, (4, 3))}

    found = answer(network, data(TOKENS, TOKENS[:, 0] % 3), tmp_path / "study")
    assert set(found.records["result"]) <= {"successful", "failed to train"}
    few = study.Damping(network=network, data=data(TOKENS, TOKENS[:, 0] % 3), train_limit=20)
    assert few.trainer(None)


def of_both(params, x):
    return linear(params, jnp.concatenate([x["a"], x["b"]], 1))


@pytest.mark.slow
@pytest.mark.parametrize("question", [study.Frequency, pytest.param(study.Kernel, marks=pytest.mark.slow)])
def test_inputs_that_are_a_dictionary(question, tmp_path):
    def network(key):
        return of_both, start(key)

    both = TINY if question is study.Frequency else {**_grid(), **KERNEL}
    split = data({"a": X[:, :2], "b": X[:, 2:]})
    parts = question(network=network, data=split, **both).run(tmp_path / "parts", progress=False)
    whole = question(network=build, data=data(), **both).run(tmp_path / "whole", progress=False)
    for column in ("test_loss", "linearisation_error", "validation_accuracy"):
        np.testing.assert_allclose(parts.records[column], whole.records[column], rtol=1e-5, atol=1e-6)
    if question is study.Kernel:
        np.testing.assert_allclose(parts.records["target_alignment"], whole.records["target_alignment"], rtol=1e-4)
    assert parts.report.is_file()


def _grid():
    return {name: value for name, value in TINY.items() if name in study.Kernel.settings.model_fields}


@pytest.mark.slow
def test_labels_of_text_a_missing_class_and_double_precision(tmp_path):
    species = np.array(["rose", "iris", "lily"])[Y]
    text = data(y=species)
    assert text.classes == ("iris", "lily", "rose")
    found = answer(build, text, tmp_path / "text").records
    assert set(found["num_classes"]) == {3}
    first = [np.flatnonzero(label == Y)[:3] for label in range(3)]
    with pytest.warns(UserWarning, match="rose"):
        lacking = study.Data(
            (X, species), (X[np.concatenate(first[1:])], species[np.concatenate(first[1:])]), (X, species)
        )
    assert answer(build, lacking, tmp_path / "lacking").records["validation_loss"].is_finite().all()
    assert np.array_equal(data(X.astype(np.float64)).train.x, data().train.x)
    with jax.enable_x64(False):
        refused(build, data(dtype=np.float64), tmp_path, "data: arrays is in float64, and JAX computes in float32")


def test_data_with_a_number_that_is_not_finite_are_refused(tmp_path):
    def load():
        return np.where(np.arange(60)[:, None] == 7, np.nan, X), Y

    refused(build, load, tmp_path, "nan|finite")


def small_resnet(seed):
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.convolutions = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1)
            )

        def forward(self, x):
            return nn.functional.relu(x + self.convolutions(x))

    del seed  # the study seeds PyTorch's generator with it
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    return il.from_torch(module, statistics="batch")


def small_transformer(seed):
    import torch
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(7, 8)
            self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.encoder(self.embedding(x)).mean(1))

    torch.manual_seed(seed)
    return Classifier()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "x", "mode"),
    [
        (small_resnet, RANDOM.normal(size=(60, 1, 6, 6)).astype(np.float32), "batch statistics"),
        (small_transformer, TOKENS, "frozen"),
    ],
)
def test_modules_of_pytorch(network, x, mode, tmp_path):
    found = answer(network, data(x, TOKENS[:, 0] % 3), tmp_path / "study", optimiser="adam", learning_rates=[0.01])
    records = found.records
    assert records.filter(pl.col("step") > 0)["train_loss"].is_finite().all()
    assert not set(records["result"]) & {"diverged"}
    assert set(records["mode"]) == {mode}
    steps = records.filter(schedule="every-1").sort("seed", "step")
    assert steps.filter(step=0)["test_loss"].n_unique() == 2, "each seed its own network"
    assert found.report.is_file()


def test_files_of_data_that_change_on_the_way_are_refused(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, x=X, y=Y)
    folder = tmp_path / "study"
    study.Frequency(network=build, data=str(file), **TINY).run(folder, progress=False)
    spec = study.read_spec(str(folder / "spec.json"))
    next((folder / "packs").glob("*.parquet")).unlink()  # something is left to train
    np.savez(file, x=X + 1, y=Y)
    with pytest.raises(ValueError, match=r"the files of .*npz have changed since the study began"):
        study.run_study(spec, folder)


def test_a_report_needs_no_data(tmp_path):
    file, folder = tmp_path / "x.npz", tmp_path / "study"
    np.savez(file, x=X, y=Y)
    first = study.Frequency(network=build, data=str(file), **TINY).run(folder, progress=False)
    file.unlink()
    assert study.stored_study(folder)[1] == first.result
    old = {name: value for name, value in first.settings.items() if name != "digests"}  # as earlier versions wrote them
    assert study.Frequency.settings.model_validate(old, context=STORED).digests == {}


def test_runs_on_other_data_of_the_same_function_are_refused(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef load():\n    data = np.load(__file__.replace('mine.py', 'x.npz'))\n"
        "    return data['x'], data['y']\n"
    )
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    folder, place = tmp_path / "study", f"{tmp_path}/mine.py:load"
    study.Frequency(network=build, data=place, **TINY).run(folder, progress=False)
    next((folder / "packs").glob("*.parquet")).unlink()
    np.savez(tmp_path / "x.npz", x=X + 1, y=Y)
    with pytest.raises(study.StoreError, match=r"holds runs on different data: what .*:load gives has changed"):
        study.Frequency(network=build, data=place, **TINY).run(folder, progress=False)


def test_settings_that_name_other_code_have_its_digest(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(f"def build(key): return {name!r}\n")
    first, second = (study.read_spec("frequency", overrides={"model": f"{tmp_path}/{n}.py:build"}) for n in "ab")
    (tmp_path / "spec.toml").write_text(
        f'study = "frequency"\nmodel = "{first.model}"\ndigests = {{ model = "{first.digests["model"]}" }}\n'
    )
    asked = study.read_spec(str(tmp_path / "spec.toml"), overrides={"model": second.model})
    assert asked.digests == second.digests != first.digests
