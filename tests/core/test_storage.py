"""A solution saved and found again, bit for bit."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import relin as il
from core import oracles
from relin._common.files import as_json

LOSS = il.CrossEntropy()


@pytest.fixture(scope="module")
def solved():
    solver = il.WeightSpace(optax.adam(0.1))
    options = {"num_steps": 6, "key": oracles.KEY, "record_every": 3, "observers": [il.Movement()]}
    problem = il.Problem(oracles.mlp, LOSS)
    return solver, il.train(problem, solver, il.Every(4), oracles.mlp_params(), oracles.data(LOSS), **options)


def test_a_solution_is_found_again(solved, tmp_path):
    solver, solution = solved
    folder = solution.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["solution.json", "solution.safetensors"]
    like = jax.tree.map(jnp.zeros_like, oracles.mlp_params())
    found = il.load(folder, like, solver.init(like).optimiser)
    for name in ("params", "anchor", "displacement", "optimiser_state"):
        assert oracles.same_bits(getattr(found, name), getattr(solution, name))
        assert jax.tree.structure(getattr(found, name)) == jax.tree.structure(getattr(solution, name))
    assert list(found.records) == list(solution.records)
    for name, column in solution.records.items():
        np.testing.assert_array_equal(found.records[name], column)
        assert found.records[name].dtype == column.dtype
    assert (found.result, found.diverged_at, found.feature_updates) == (il.Result.successful, None, 1)
    assert il.load(folder, like).optimiser_state is None


def test_low_precision_and_divergence_are_kept(tmp_path):
    options = {"num_steps": 50, "key": oracles.KEY, "throw": False}
    problem, solver = il.Problem(oracles.mlp, il.SquaredError()), il.WeightSpace(optax.sgd(1e3))
    params = oracles.mlp_params(jnp.bfloat16)
    solution = il.train(problem, solver, il.Never(), params, oracles.data(il.SquaredError()), **options)
    found = il.load(solution.save(tmp_path), params)
    assert found.result is il.Result.diverged
    assert found.diverged_at == solution.diverged_at
    assert oracles.same_bits(found.anchor, solution.anchor)
    assert found.anchor["w"].dtype == jnp.bfloat16


def test_what_could_not_be_read_again_is_not_saved(solved, tmp_path):
    _, solution = solved
    folder = solution.save(tmp_path)
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    low = replace(solution, anchor={"w": jnp.zeros(2, jnp.float8_e5m2)})
    with pytest.raises(TypeError, match=r"anchor\['w'\] holds numbers of the type float8_e5m2, which cannot be saved"):
        low.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == held


def test_what_cannot_be_loaded(solved, tmp_path):
    _, solution = solved
    params = oracles.mlp_params()
    with pytest.raises(ValueError, match=r"holds no solution \(no solution.json\); name one that was saved"):
        il.load(tmp_path, params)
    solution.save(tmp_path)
    with pytest.raises(
        ValueError, match=r"another network's solution: params\['w'\] must have shape \(2, 2\), got shape"
    ):
        il.load(tmp_path, {"w": jnp.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"params\['x'\] must have shape \(2,\), got none; pass the parameters it had"):
        il.load(tmp_path, {"x": jnp.zeros(2)})
    settings = tmp_path / "solution.json"
    content = settings.read_text()
    settings.write_bytes(as_json({**json.loads(content), "format": 99}))
    with pytest.raises(ValueError, match="has another format; use the version"):
        il.load(tmp_path, params)
    settings.write_text(content)
    tensors = tmp_path / "solution.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged; restore it, or train again"):
        il.load(tmp_path, params)
    settings.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        il.load(tmp_path, params)
