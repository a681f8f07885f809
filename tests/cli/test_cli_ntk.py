"""`relin ntk` on a run that `relin train` saved."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import polars as pl
import pytest
from cli_sample import SMALL

from relin._common.files import as_json
from relin.study import StoreError, read_spec
from relin.study._grid import single_run
from relin.study._runner import Runner
from relin.study._saved import load_run, save_run, train_run
from relin.study._saved_kernel import eigenvalues, saved_kernels

SPEC = read_spec("frequency", overrides={"model_options": {"width": 8, "depth": 1}, "steps": 60, "num_records": 3})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Runs that moved, that stayed lazy and that diverged, as `relin train --out` stores them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, schedule in (("moved", "every-4"), ("lazy", "never")):
        run = train_run(SPEC, schedule, 0.05, 3)
        save_run(run, folder / name)
        run.records.write_parquet(folder / name / "records.parquet")
    anchor = jax.tree.map(lambda a: a * jnp.nan, run.anchor)
    lost = dataclasses.replace(run, solution=dataclasses.replace(run.solution, anchor=anchor))
    save_run(lost, folder / "diverged")
    run.records.with_columns(result=pl.lit("diverged")).write_parquet(folder / "diverged" / "records.parquet")
    return folder


@pytest.fixture
def runs(saved, tmp_path):
    """A copy of them in the folder in which commands run."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def oracle(params, x, runner):
    """The full kernel from explicit Jacobians."""
    jacobian = jax.jacobian(runner.network)(params, x)
    flat = np.concatenate([np.asarray(j).reshape(*j.shape[:2], -1) for j in jax.tree.leaves(jacobian)], axis=2)
    return np.einsum("icp,jdp->ijcd", flat, flat)


@pytest.mark.slow
def test_a_trained_run_is_saved_and_its_kernel_computed(relin_command, tmp_path):
    code, out, err = relin_command(
        "train", "--steps", 40, "--schedule", "every-8", "--rate", 0.05, "--out", "run", *SMALL
    )
    assert (code, err) == (0, "")
    assert "Parameters: run/solution.safetensors" in out
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (settings["schedule"], settings["learning_rate"], settings["seed"]) == ("every-8", 0.05, 0)
    assert (settings["step"], settings["feature_updates"], settings["result"]) == (40, 4, "successful")
    assert settings["versions"]["jax"] == jax.__version__
    code, out, err = relin_command("ntk", "run", "--probe", 20, "--per-layer", "--per-class")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "…" not in out
    for words in ("distance to step 0", "energy alignment", "eigenvalue 1", ".layers[0].weight", "class 9"):
        assert words in out
    metrics = pl.read_csv(tmp_path / "run" / "metrics.csv", infer_schema_length=None)
    told = metrics.filter(pl.col("part").is_null() | (pl.col("part") == ""), metric="kernel_distance")["value"].item()
    assert f"{told:.4g}" in next(line for line in out.splitlines() if line.startswith("distance to step 0"))
    image = matplotlib.image.imread(tmp_path / "run" / "kernel.png")
    assert np.ptp(image[..., :3]) > 0.5
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])[:, :3]
    assert np.all(border > 0.99)  # nothing runs over the edge


@pytest.mark.parametrize("outputs", ["mean", pytest.param("full", marks=pytest.mark.slow), "diagonal"])
def test_kernels_are_those_of_explicit_jacobians(saved, outputs):
    found = saved_kernels(saved / "moved", probe=12, outputs=outputs, per_layer=True, per_class=True)
    runner = Runner(SPEC)
    x = runner.dataset.validation.x[:12]
    reduce = {
        "full": lambda k: k,
        "mean": lambda k: np.einsum("ijcc->ij", k) / 10,
        "diagonal": lambda k: np.einsum("ijcc->ijc", k),
    }[outputs]
    for params, parts in ((runner.initial(3), found.initial), (found.run.anchor, found.final)):
        expected = reduce(oracle(params, x, runner))
        np.testing.assert_allclose(parts[""], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(sum(v for k, v in parts.items() if k), parts[""], rtol=1e-5)
    whole = found.metrics.filter(part="", metric="kernel_change")["value"].item()
    change = np.linalg.norm(found.final[""] - found.initial[""]) / np.linalg.norm(found.initial[""])
    assert whole == pytest.approx(change, rel=1e-4)
    assert found.eigenvalues[0].sum() == pytest.approx(
        np.trace(found.initial[""])
        if outputs == "mean"
        else np.einsum("iic->" if outputs == "diagonal" else "iicc->", found.initial[""]),
        rel=1e-5,
    )
    assert found.metrics.filter(part="").drop_nulls("class").height == 20


def test_eigenvalues_of_every_shape_are_those_of_its_matrix():
    generator = np.random.default_rng(0)
    factor = generator.standard_normal((12, 5))
    full = (factor @ factor.T).reshape(4, 3, 4, 3).swapaxes(1, 2)
    np.testing.assert_allclose(eigenvalues(full)[:5], np.linalg.eigvalsh(factor.T @ factor)[::-1], rtol=1e-10)
    blocks = np.stack([full[:, :, c, c] for c in range(3)], axis=2)
    expected = np.sort(np.concatenate([np.linalg.eigvalsh(blocks[..., c]) for c in range(3)]))[::-1]
    np.testing.assert_allclose(eigenvalues(blocks), expected, rtol=1e-10, atol=1e-12)


def test_the_kernel_of_lazy_training_is_that_of_step_0_bit_for_bit(runs, relin_command):
    code, _, err = relin_command("ntk", "lazy", "--probe", 16, "--outputs", "full")
    assert (code, err) == (0, "")
    arrays = np.load(runs / "lazy" / "kernel.npz")
    assert arrays["initial"].shape == (16, 16, 10, 10)
    np.testing.assert_array_equal(arrays["initial"], arrays["final"])
    code, _, err = relin_command("ntk", "lazy", "--probe", 16, "--at", "end")
    assert (code, err) == (0, "")
    arrays = np.load(runs / "lazy" / "kernel.npz")
    assert np.abs(arrays["initial"] - arrays["final"]).max() > 1e-3  # the network at θ_T has another one


def test_what_was_saved_is_found_again(saved):
    run, runner = load_run(saved / "moved", Runner)
    assert run.spec == SPEC
    assert (run.schedule, run.learning_rate, run.seed) == ("every-4", 0.05, 3)
    again = runner.train(single_run(SPEC, "every-4", 0.05, 3))
    assert again["test_accuracy"][-1] == run.records["test_accuracy"][-1]
    for first, second in zip(jax.tree.leaves(run.initial), jax.tree.leaves(runner.initial(3)), strict=True):
        np.testing.assert_array_equal(first, second)


def damage(folder, name, content):
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", b"{", "run.json is not a run's settings; restore it"),
        ("run.json", b"[1]", "run.json is not a run's settings"),
        ("run.json", b'{"format": 9}', "has the format 9, and this version of relin reads 1"),
        ("parameters.safetensors", None, "parameters.safetensors is missing"),
        ("parameters.safetensors", b"nonsense", "parameters.safetensors is damaged"),
        ("solution.safetensors", None, "solution.safetensors is missing"),
        ("solution.safetensors", b"nonsense", "solution.safetensors is damaged"),
        ("records.parquet", None, "records.parquet is missing"),
        ("records.parquet", b"nonsense", "records.parquet is damaged"),
    ],
)
def test_damaged_files_are_told_in_one_sentence(runs, relin_command, name, content, message):
    damage(runs / "moved", name, content)
    code, _, err = relin_command("ntk", "moved")
    assert code == 1
    assert message in err
    assert err.startswith("relin: ")
    assert err.count("\n") == 1


def test_parameters_of_another_network_are_refused(saved, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(saved / "moved", folder)
    settings = json.loads((folder / "run.json").read_text())
    settings["spec"]["model_options"]["width"] = 9
    (folder / "run.json").write_bytes(as_json(settings))
    with pytest.raises(StoreError, match=r"must have shape \(9, 64\)|must have shape \(64, 9\)|must have shape \(9,\)"):
        load_run(folder, Runner)


@pytest.mark.parametrize(
    ("line", "message", "expected"),
    [
        ("ntk", "Missing argument 'folder'", 2),
        ("ntk missing", "missing holds no saved run (no run.json); name the folder given to `relin train --out`", 2),
        ("ntk moved --outputs all", "--outputs must be one of mean, full, diagonal, got 'all'", 2),
        ("ntk moved --at start", "--at must be one of anchor, end, got 'start'", 2),
        ("ntk moved --probe 1", "The probe must have at least 2 examples, got 1", 2),
        ("ntk moved --probe 5000", "validation examples of digits, got 5000; choose fewer", 2),
        ("ntk moved --probe many", "Invalid value for '--probe'", 2),
        ("ntk moved --data-dir nowhere", "--data-dir nowhere does not exist", 1),
        ("ntk diverged", "The run in diverged diverged: its kernel there is zero or not finite", 1),
        ("ntk diverged --out k.npy", "The run in diverged diverged, and has no kernel at its end", 1),
        ("ntk moved --out kernel", "`out` must be a file that ends in .npy, got 'kernel'", 2),
        ("ntk moved --out k.npy --per-class", "A kernel in a file is not measured; leave out --per-layer and", 2),
        ("ntk moved --out k.npy --examples all", "--examples must be one of training, validation, test, got 'all'", 2),
        ("ntk moved --examples test", "--examples belongs to a kernel in a file; name one with --out kernel.npy", 2),
    ],
)
@pytest.mark.usefixtures("runs")
def test_mistakes_are_told_in_one_sentence(relin_command, line, message, expected):
    code, _, err = relin_command(*line.split())
    assert message in err
    assert code == expected
    assert err.startswith("relin: ")
    assert err.count("\n") == 1
    assert err.rstrip().endswith(".")


def test_a_kernel_in_a_file(runs, relin_command):
    line = "ntk moved --probe 40 --examples training --outputs full --at end --out kernel.npy"
    code, out, err = relin_command(*line.split())
    assert (code, err) == (0, "")
    assert "kernel ━" in out
    assert "100%" in out
    assert "left:" in out
    assert "Kernel: kernel.npy (40 × 40 × 10 × 10, float" in out
    run, runner = load_run(runs / "moved", Runner)
    x = runner.data[0][:40]
    expected = oracle(run.params, x, runner)
    np.testing.assert_allclose(np.load(runs / "kernel.npy"), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    before = (runs / "kernel.npy").read_bytes()
    assert relin_command(*line.split())[0] == 0
    code, _, err = relin_command("ntk", "lazy", "--out", "kernel.npy", "--probe", 40)
    assert code == 2
    assert (
        "kernel.npy is of a kernel that differs in network, parameters, x1, outputs, shape; choose another" in err
        or ("kernel.npy is of a kernel that differs in parameters, x1, outputs, shape" in err)
    )
    assert (runs / "kernel.npy").read_bytes() == before
