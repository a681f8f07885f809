"""The progress bar of `train`: where it is shown, what it says, and that it changes nothing."""

import io
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import relin as il
from relin._common import bar
from relin._loop import watching

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.arange(24) % 2
PARAMS = {"a": jnp.arange(12.0).reshape(3, 4) / 12, "b": jnp.eye(4, 2)}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def run(rate=0.1):
    problem = il.Problem(apply, il.CrossEntropy())
    return il.Run(problem, il.WeightSpace(optax.sgd(rate, momentum=0.9)), il.Every(3), PARAMS, jax.random.key(0))


def trained(**options):
    one = run()
    return il.train(
        one.problem, one.solver, one.schedule, PARAMS, (X, Y), num_steps=200, batch_size=8, key=one.key, **options
    )


@pytest.fixture
def moves(monkeypatch):
    """Where the bar stood, each time it was told."""
    seen, told = [], watching.Bar.__call__

    def telling(self, done, total):
        seen.append((done, total))
        told(self, done, total)

    monkeypatch.setattr(watching.Bar, "__call__", telling)
    return seen


@pytest.mark.as_shipped
@pytest.mark.parametrize("drive", ["compiled", "host"])
def test_a_bar_moves_within_a_record_and_changes_no_bit(moves, capsys, monkeypatch, drive):
    monkeypatch.setattr(watching, "_SECONDS", 1e-3)
    without = trained(drive=drive, progress=False)
    assert not moves
    with_bar = trained(drive=drive, progress=True)
    assert len(moves) > 2, "not only at the record, which is the end"
    assert moves == sorted(moves)
    assert moves[-1] == (200, 200)
    for one, other in zip(jax.tree.leaves(without.params), jax.tree.leaves(with_bar.params), strict=True):
        np.testing.assert_array_equal(one, other)
    for name, column in without.records.items():
        np.testing.assert_array_equal(column, with_bar.records[name])
    assert with_bar.final_loss == without.final_loss
    assert not capsys.readouterr().out, "what is printed stays apart from it"


@pytest.mark.parametrize("drive", ["map", "host"])
def test_the_bar_of_lanes_goes_once_from_nothing_to_all(moves, drive):
    il.train_lanes(run, jnp.array([0.1, 0.2]), (X, Y), num_steps=20, batch_size=8, drive=drive, progress=True)
    assert moves[-1] == ((20, 20) if drive == "map" else (40, 40))
    assert moves == sorted(moves)


def test_it_is_shown_only_where_someone_sees_it(moves, monkeypatch):
    trained()
    assert not moves, "stderr of a test is no terminal"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    trained(progress=False)
    assert not moves
    thread = threading.Thread(target=trained)
    thread.start()
    thread.join()
    assert not moves, "threads of a study have a bar of their own"
    calls = []
    trained(progress=lambda done, total: calls.append(done))
    assert (calls, moves) == ([200], [])
    trained()
    assert moves
    assert "training" in sys.stderr.getvalue()
    assert "left:" in sys.stderr.getvalue()


def test_where_none_can_be_drawn_it_is_a_few_lines(capsys, monkeypatch):
    monkeypatch.setattr(watching, "_PAUSE", 0.0)
    monkeypatch.setattr(watching, "_SECONDS", 1e-3)
    trained(progress=True, drive="host")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert not out
    at = [*range(21, 200, 20), 200]  # a tenth and more after the last, the first call being that of step 1
    assert [line.partition(" of 200 steps, ")[0] for line in lines] == [f"training: {n}" for n in at]
    assert lines[4].startswith("training: 101 of 200 steps, 50%, 0:00:0")
    trained(progress=None, drive="host")
    assert capsys.readouterr().err == ""


def test_notebooks_need_widgets(monkeypatch):
    notebook = Console(stderr=True, force_jupyter=True)
    assert bar.is_watched(notebook)
    monkeypatch.setattr(bar, "find_spec", lambda name: None)
    assert not bar.is_watched(notebook)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not bar.is_watched(Console(stderr=True, _environ={"TERM": "dumb"}))
    monkeypatch.setattr(sys, "stderr", None)
    assert not bar.is_watched(Console(file=io.StringIO()))


def test_no_bar_for_the_limit_of_lazy_training(moves):
    problem = il.Problem(apply, il.SquaredError())
    solver = il.SpectralDescent(0.1)
    options = {"num_steps": float("inf"), "key": jax.random.key(0), "progress": True}
    il.train(problem, solver, il.Never(), PARAMS, (X, np.eye(2)[Y]), **options)
    assert not moves


def test_what_is_no_progress_is_refused():
    with pytest.raises(TypeError, match=r"function of \(done, total\), True, False or None, got 5"):
        trained(progress=5)
