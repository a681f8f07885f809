"""Studies of values to predict: R² in the place of accuracy, a margin relative to ordinary training's error."""

import math
import re

import jax
import numpy as np
import polars as pl
import pytest
from frequency_records import records, runs
from matplotlib.text import Text
from tiny_studies import EVERY_STUDY, answered

import relin as il
from relin import study
from relin.study._network import NamedNetworks
from relin.study._outcomes import compare
from relin.study._statistics import p_value_not_worse
from relin.study._verdict import in_measure


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3]).astype(np.float32)
    return study.Frequency(
        network="mlp",
        network_options={"width": 16, "depth": 1},
        data=study.Data((x, y)),
        loss="squared-error",
        periods=[1, 4, "inf"],
        sparse_periods=[],
        tolerances=[],
        learning_rates=[0.03],
        steps=60,
        batch_size=16,
        seeds=2,
        select_seeds=1,
        finalists=None,
        num_records=2,
        margin=5.0,
    ).run(tmp_path_factory.mktemp("values") / "study", progress=False)


def test_what_is_compared_is_the_share_of_the_constant_predictors_error(answer):
    last = answer.records.filter(pl.col("step") == 60)
    assert last["measure"].unique().to_list() == ["R²"]
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    y = (x[:, :1] * x[:, 1:2] + x[:, 2:3]).astype(np.float32)
    data = il.datasets.from_arrays((x, y))
    constant = np.mean(0.5 * (data.test.y - data.train.y.mean(0)) ** 2)
    np.testing.assert_allclose(last["test_accuracy"], 1 - last["test_loss"] / constant, rtol=1e-5)
    assert last["test_accuracy"].min() > 0.1
    assert last["constant_accuracy"].unique().to_list() == [0.0]


def test_the_margin_is_a_part_of_ordinary_trainings_error(answer):
    result = answer.result
    error = 1 - result.outcomes[0].test_accuracy.mean
    assert result.relative_margin == 0.05
    assert result.margin == pytest.approx(0.05 * error)
    assert "test error at most 5 % above that of ordinary training" in answer.verdict
    assert "R² is" in answer.verdict


def test_nothing_shown_speaks_of_accuracy(answer):
    assert not re.search("accurac", answer.verdict)
    page = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", answer.report.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])", page)
    assert "test error as a part of that of the constant predictor" in page
    assert {"test_r2", "test_r2_low", "validation_r2"} <= set(answer.table.columns)
    labels = {label.get_text() for label in answer.figures["accuracy-against-period"].findobj(Text)}
    assert any("R²" in label for label in labels)
    assert not any("accuracy" in label for label in labels)


def test_the_test_is_that_of_errors():
    """On par is decided as if errors were compared, each as a part of ordinary training's mean error."""
    ordinary, other = [0.8, 0.7, 0.75], [0.79, 0.705, 0.74]
    frame = records(runs("every-1", ordinary), runs("every-4", other)).with_columns(measure=pl.lit("R²"))
    compared = compare(frame, margin=0.1, confidence=0.95, chance=0.0)
    errors = 1 - np.array(ordinary), 1 - np.array(other)
    rise = (errors[1] - errors[0]) / errors[0].mean()
    assert compared.outcomes[1].p_value == pytest.approx(p_value_not_worse(-rise, 0.1))
    negative = frame.with_columns(test_accuracy=pl.col("test_accuracy") - 3)
    assert compare(negative, margin=0.1, confidence=0.95, chance=0.0).outcomes[0].test_accuracy.mean < -2
    with pytest.raises(ValueError, match="between 0 and 1"):
        compare(negative.drop("measure"), margin=0.1, confidence=0.95, chance=0.1)
    wrong = frame.with_columns(test_accuracy=pl.lit(math.inf))
    with pytest.raises(ValueError, match="Expected accuracies"):
        compare(wrong, margin=0.1, confidence=0.95, chance=0.0)


@pytest.mark.slow
@pytest.mark.parametrize(("question", "settings"), EVERY_STUDY)
def test_every_other_study_that_takes_values_speaks_of_them(question, settings, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    data = study.Data((x, (x[:, :1] * x[:, 1:2] + x[:, 2:3]).astype(np.float32)))
    how = {"data": data, "loss": "squared-error", "learning_rates": [0.03]}
    answer = answered(question, how | settings, tmp_path / "study")
    assert answer.result.measure == "R²"
    assert "test error at most" in answer.verdict or "higher in R²" in answer.verdict
    page = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", answer.report.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])", page)


@pytest.mark.slow
def test_the_kernel_of_values_is_aligned_with_them_and_frozen_kernels_have_r_squared(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], x[:, 2]], axis=1)
    asked = study.Kernel(
        data=study.Data((x, y)),
        network_options={"width": 4, "depth": 1},
        loss="squared-error",
        periods=[1, "inf"],
        learning_rates=[0.03],
        steps=8,
        batch_size=16,
        seeds=3,
        select_seeds=1,
        finalists=None,
        num_records=2,
        kernel_probe=8,
        frozen_every=2,
    )
    answer = asked.run(tmp_path / "study", progress=False)
    data = il.datasets.from_arrays((x, y))
    constant = np.mean(np.sum(0.5 * (data.test.y - data.train.y.mean(0)) ** 2, axis=1))
    taken = answer.records.filter(pl.col("frozen_kernel_loss").is_not_nan())
    assert not taken.is_empty()
    np.testing.assert_allclose(taken["frozen_kernel_accuracy"], 1 - taken["frozen_kernel_loss"] / constant, rtol=1e-5)
    assert "reaches R² of" in answer.verdict

    apply, params = NamedNetworks("mlp", '{"width": 4, "depth": 1}', (3,), 2).of_seed(0)
    jacobian = jax.jacrev(lambda p: apply(p, data.validation.x[:8]))(params)
    parts = [np.reshape(leaf, (8, 2, -1)) for leaf in jax.tree.leaves(jacobian)]
    rows = np.concatenate(parts, axis=2, dtype=np.float64)
    kernel = np.einsum("icp,jcp->ij", rows, rows)
    centring, targets = np.eye(8) - 1 / 8, np.asarray(data.validation.y[:8], np.float64)
    pair = [centring @ matrix @ centring for matrix in (kernel, targets @ targets.T)]
    expected = np.sum(pair[0] * pair[1]) / np.prod([np.linalg.norm(matrix) for matrix in pair])
    start = answer.records.filter(step=0, seed=0)["target_alignment"]
    np.testing.assert_allclose(start, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "settings"),
    [
        ("Interpolation", {"steps": 20, "periods": [1, 4]}),
        pytest.param(
            "Damping",
            {"periods": [1, 8, 64], "outer_steps": 2, "compared_after": [1], "kernel_probe": 8},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_full_batch_studies_fit_values(question, settings, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], x[:, 2]], axis=1)
    tiny = {"network_options": {"width": 4, "depth": 1}, "train_limit": None, "seeds": 2}
    answer = getattr(study, question)(data=study.Data((x, y)), **tiny, **settings).run(tmp_path / "s", progress=False)
    data = il.datasets.from_arrays((x, y))
    constant, of_training = (
        np.mean(np.sum(0.5 * (part.y - data.train.y.mean(0)) ** 2, axis=1)) for part in (data.test, data.train)
    )
    ends = answer.records.filter(pl.col("outputs").is_not_null())
    for outputs, shown in ends.select("outputs", "test_accuracy").iter_rows():
        error = np.mean(np.sum(0.5 * (np.reshape(outputs, data.test.y.shape) - data.test.y) ** 2, axis=1))
        assert shown == pytest.approx(1 - error / constant, rel=1e-6)
    assert answer.records["constant_loss"].unique().to_list() == [pytest.approx(of_training)]
    assert (answer.result.measure, answer.result.chance) == ("R²", 0)
    page = re.sub(r"<svg.*?</svg>|<[^>]*>", " ", answer.report.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])|one-hot|The margin is", page)


def test_a_column_of_that_name_says_nothing_of_values():
    frame = records(runs("every-1", [0.9, 0.91]), runs("every-4", [0.9, 0.9])).with_columns(measure=pl.lit("top-1"))
    assert compare(frame, margin=0.1, confidence=0.95, chance=0.1).relative_margin is None


def test_nothing_is_on_par_with_what_is_no_better_than_a_constant():
    """All runs of another schedule that diverged, at R² = 0, would be above ordinary training of R² = −0.5."""
    frame = records(runs("every-1", [-0.5, -0.6, -0.4]), runs("every-4", [0.0, 0.01, -0.01]))
    compared = compare(frame.with_columns(measure=pl.lit("R²")), margin=0.1, confidence=0.95, chance=0.0)
    assert [outcome.on_par for outcome in compared.outcomes] == [None, None]


def test_targets_that_are_all_the_same_are_refused(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    y = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
    still = np.full((10, 1), y.mean(), np.float32)
    asked = study.Frequency(
        data=study.Data((x, y), (x[:10], still), (x[:10], y[:10])), loss="squared-error", batch_size=8
    )
    with pytest.raises(ValueError, match="every target of the validation part of arrays is the mean"):
        asked.run(tmp_path / "study", progress=False)
    assert not (tmp_path / "study").exists()


def test_names_of_files_keep_their_words():
    assert in_measure("Test accuracy, accuracies; accuracy-against-period.png, a/accuracy, test_accuracy", "R²") == (
        "Test R², R²; accuracy-against-period.png, a/accuracy, test_accuracy"
    )
    assert in_measure("accuracy", "accuracy") == "accuracy"
