"""What runs, spectra and checks show of themselves in a notebook, and their records as tables."""

import base64
import io
import re
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pandas as pd
import polars as pl
import pytest
from PIL import Image

import relin as il
from relin.kernel import Spectrum, log_density, spectrum

X = np.random.default_rng(0).normal(size=(24, 3))
Y = np.arange(24) % 2
DIAGONAL = lx.DiagonalLinearOperator(jnp.array([8.0, 4.0, 2.0, 1.0, 0.0]))


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


PARAMS = {"a": jnp.arange(12.0).reshape(3, 4) / 12, "b": jnp.eye(4, 2)}
PROBLEM = il.Problem(apply, il.CrossEntropy())


def run(rate=0.1):
    return il.Run(PROBLEM, il.WeightSpace(optax.sgd(rate)), il.Every(4), PARAMS, jax.random.key(0))


OPTIONS = {"num_steps": 8, "record_every": 2, "observers": (il.Performance((X, Y), "test"), il.Movement())}


@pytest.fixture(scope="module")
def solution():
    one = run()
    return il.train(one.problem, one.solver, one.schedule, one.params, (X, Y), key=one.key, **OPTIONS)


@pytest.fixture(scope="module")
def lanes():
    return il.train_lanes(run, jnp.array([0.1, 0.2, 1e3]), (X, Y), **OPTIONS)


def images(html):
    """The pictures in a page, opened."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def lines(figure):
    return [line for axes in figure.axes for line in axes.get_lines()]


def test_records_as_tables(solution):
    frame = solution.to_polars()
    assert frame.columns == list(solution.records)
    assert frame["step"].to_list() == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(frame["test_loss"], solution.records["test_loss"])
    pd.testing.assert_frame_equal(solution.to_pandas(), frame.to_pandas())


def test_lanes_as_one_table(lanes):
    frame = lanes.to_polars()
    assert frame.columns == ["lane", *lanes[0].records]
    for lane, each in enumerate(lanes):
        assert frame.filter(lane=lane).drop("lane").equals(each.to_polars())
    assert lanes.to_pandas()["lane"].tolist() == frame["lane"].to_list()
    assert il.LaneSolutions(()).to_polars().height == 0


def test_a_figure_draws_the_records(solution):
    figure = solution.plot()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss",
        "accuracy (%)",
        "displacement norm",
        "parameter movement",
    ]
    drawn = {line.get_label(): line for line in lines(figure)}
    np.testing.assert_array_equal(drawn["test loss"].get_ydata(), solution.records["test_loss"])
    np.testing.assert_allclose(drawn["test accuracy"].get_ydata(), 100 * solution.records["test_accuracy"])
    assert figure.axes[0].get_title(loc="left") == "Successful; 1 feature update up to step 8"
    marks = [line for line in lines(figure) if line.get_marker() == "|"]
    assert [mark.get_xdata().tolist() for mark in marks] == [[6]] * 4, "the first record after the update at step 4"
    assert len(lines(solution.plot("test_loss"))) == 2
    assert Image.open(io.BytesIO(figure._repr_png_())).size == tuple(np.round(100 * figure.get_size_inches()))


def test_a_figure_of_lanes(lanes):
    drawn = lines(lanes.plot("test_loss"))
    assert [line.get_label() for line in drawn] == ["run 0", "run 1", "run 2"]
    for line, each in zip(drawn, lanes, strict=True):
        loss = each.records["test_loss"]
        np.testing.assert_array_equal(line.get_ydata(), np.where(loss < 1e12, loss, np.nan))


def test_lanes_without_records_beside_others(lanes):
    some = il.LaneSolutions((replace(lanes[1], records={}), lanes[0], replace(lanes[1], records={})))
    frame = some.to_polars()
    assert frame.equals(some[1].to_polars().insert_column(0, frame["lane"]))
    assert set(frame["lane"]) == set(some.to_pandas()["lane"]) == {1}
    (line,) = lines(some.plot("test_loss"))
    assert line.get_label() == "run 1"
    html = some._repr_html_()
    assert html.count("<td") == 3 * len(frame.columns) + 3, "a cell of every column, and the result, in every row"
    assert len(images(html)) == 1


def test_what_cannot_be_drawn_is_refused(solution):
    with pytest.raises(ValueError, match=r"columns training_loss, .*, got 'loss'; name one"):
        solution.plot("loss")
    with pytest.raises(ValueError, match="must be a record to draw, got none"):
        il.LaneSolutions(()).plot()


def test_a_run_shows_itself(solution, lanes):
    html = solution._repr_html_()
    assert "Successful; 1 feature update up to step 8" in html
    assert f"{solution.records['test_loss'][-1]:.4g}" in html
    assert html.count("<tr>") == 3, "heading, first and last record"
    assert len(images(html)) == 1
    assert len(html) < 200_000
    diverged = il.train_lanes(run, jnp.array([1e300]), (X, Y), **OPTIONS)[0]
    assert re.search(r"Diverged at step \d.*; 1 feature update up to step 6<", diverged._repr_html_())
    shown = lanes._repr_html_()
    assert shown.count("<tr>") == 4
    assert len(images(shown)) == 1
    assert "<tbody></tbody>" in il.LaneSolutions(())._repr_html_()


def test_a_check_shows_itself():
    found = il.check(PROBLEM, PARAMS, (X, Y))
    html = found._repr_html_()
    assert "Ready to train: 20 parameters, 24 examples a step" in html
    assert f"{found.largest_rate:.3g}" in html
    obstacle = il.Preflight("<b> stands in the way", "frozen", 1, 1)._repr_html_()
    assert "Not to be trained like this" in obstacle
    assert "&lt;b&gt; stands" in obstacle


def test_spectra_show_themselves():
    operator = lx.TaggedLinearOperator(DIAGONAL, lx.symmetric_tag)
    found = spectrum(operator, 3, key=jax.random.key(0))
    (axes,) = found.plot().axes
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [8, 4, 2], rtol=1e-6)
    assert "3 largest eigenvalues, converged; the first are 8, 4, 2" in found._repr_html_()
    assert len(images(found._repr_html_())) == 1
    density = log_density(operator, key=jax.random.key(0), num_probes=4)
    np.testing.assert_array_equal(density.plot().axes[0].get_lines()[0].get_ydata(), density.density)
    assert len(images(density._repr_html_())) == 1


@pytest.mark.parametrize(
    ("values", "drawn", "title"),
    [
        ([1.0, 1e-9, 1e-12], [1.0, 1e-9, 1e-12], ""),
        ([1.0, 1e-17, -1.0], [1.0], "2 of 3 eigenvalues not drawn: 2 at most 2e-16 of the largest"),
        ([4.0, np.nan, 0.0], [4.0], "2 of 3 eigenvalues not drawn: 1 at most 2e-16 of the largest, 1 not finite"),
        ([-1.0, -2.0], [-1.0, -2.0], ""),
        ([np.nan], [], "1 of 1 eigenvalues not drawn: 1 not finite"),
    ],
)
def test_what_a_spectrum_does_not_draw_is_told(values, drawn, title):
    values = np.array(values)
    found = Spectrum(values, np.abs(values), np.array(True), np.array(1), None)
    (axes,) = found.plot().axes
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), drawn)
    assert axes.get_title(loc="left") == title
    assert len(images(found._repr_html_())) == 1


def test_pandas_is_asked_for(solution, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"relin\.Solution\.to_pandas needs pandas.*relin\[pandas\]"):
        solution.to_pandas()
    assert isinstance(solution.to_polars(), pl.DataFrame)
