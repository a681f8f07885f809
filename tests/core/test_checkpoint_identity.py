"""A checkpoint is of one run: another is refused, with what differs."""

import equinox as eqx
import jax
import optax
import pytest

import relin as il
from core.checkpoint_runs import X, Y, apply, bits, train


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("solver", {"solver": il.WeightSpace(optax.adam(0.02))}),
        ("schedule", {"schedule": 4}),
        ("data", {"data": (X + 1e-9, Y)}),
        ("batches", {"batch_size": 6}),
        ("key", {"key": jax.random.key(4)}),
        ("problem", {"loss": il.SquaredError(), "data": (X, Y)}),
        ("problem", {"apply": lambda p, x: apply(p, x) + 0}),
        ("observers", {"observers": [il.Movement()]}),
        ("drive", {"drive": "host"}),
        ("record_every", {"record_every": 4}),
        ("safeguard", {"safeguard": il.LineSearch()}),
    ],
)
def test_another_run_is_refused_by_name(tmp_path, name, change):
    train(folder=tmp_path, drive="compiled")
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds a run that differs in .*{name}.*; restore what it was trained with"):
        train(**({"folder": tmp_path, "drive": "compiled"} | change))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held


SCALE = 1.0


def scaled(params, x):
    return SCALE * apply(params, x)


def test_a_global_that_a_network_names_is_part_of_it(tmp_path, monkeypatch):
    train(folder=tmp_path, apply=scaled)
    train(folder=tmp_path, apply=scaled)
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(ValueError, match="differs in problem"):
        train(folder=tmp_path, apply=scaled)


class Scaled(eqx.Module):
    def __call__(self, params, x):
        return SCALE * apply(params, x)


def test_so_is_one_that_a_method_of_its_class_names(tmp_path, monkeypatch):
    train(folder=tmp_path, apply=Scaled())
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    with pytest.raises(ValueError, match="differs in problem"):
        train(folder=tmp_path, apply=Scaled())


def test_another_version_or_device_is_told(tmp_path, monkeypatch):
    alone = bits(train(folder=tmp_path))
    monkeypatch.setattr("relin._loop.checkpoint.environment", lambda: "another machine")
    with pytest.warns(UserWarning, match="was written by relin .*, and the run goes on with another machine"):
        assert bits(train(folder=tmp_path)) == alone
