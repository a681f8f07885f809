"""Every study, judged by a measure of which lower values are better: what it decides, and that its words are right."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from rich.console import Console
from tiny_studies import EVERY_STUDY, TINY, answered

from relin import study
from relin.report import terminal_summary
from relin.study._network import key_of_network
from relin.study._verdict import in_measure

QUESTIONS = {
    "frequency": (["every-1", "every-4", "never"], {}),
    "essential": (["every-1", "never", "until-4", "after-4"], {}),
    "timing": (["every-1", "never", "early-4", "even-4", "late-4"], {}),
    "layers": (["every-1", "never", "rich-0", "lazy-0", "rich-1", "lazy-1"], {"layers": ["a", "b"]}),
    "phase": (["every-1", "every-2", "every-16"], {}),
}
MAE = study.Measure(None, "MAE", False, margin=0.05, unit="s", untrained=0.9)


def elsewhere(schedules, steps):
    random = np.random.default_rng(0)
    return [
        {
            "schedule": schedule,
            "seed": seed,
            "learning_rate": rate,
            "run_steps": steps,
            "test_accuracy": 0.4 + 0.02 * i + 0.01 * random.normal(),
            "validation_accuracy": 0.4 + 0.02 * i + rate / 100,
        }
        for i, schedule in enumerate(schedules)
        for seed in range(4)
        for rate in (0.1, 0.03)
    ]


def asked(question, measure=MAE):
    schedules, settings = QUESTIONS[question]
    rows = [row for steps in ((32, 64) if question == "phase" else (64,)) for row in elsewhere(schedules, steps)]
    return study.conclude(question, rows, measure=measure, **settings)


def titles(answer):
    report = answer._page
    tiles = [f"{tile.label} {tile.value} {tile.note}" for tile in report.tiles]
    return in_measure(" ".join([answer.verdict, *tiles, *(plot.title for plot in report.plots)]), "MAE")


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_study_speaks_of_the_measure_in_its_unit(question):
    answer = asked(question)
    report = answer._page
    said = [titles(answer), *report.tables, *(f"{plot.caption} {plot.description}" for plot in report.plots)]
    words = in_measure(" ".join(said), "MAE")
    assert "MAE" in words
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])|percentage|in points|points over|at chance", words)
    assert not re.search(r"\ban MAE\b|highest (mean )?MAE|−0\b(?!\.)|constant predictor", words)
    assert "highest" not in answer.result.what_answers


@pytest.mark.parametrize("question", QUESTIONS)
def test_where_ordinary_training_is_no_better_than_a_constant_nothing_is_said_to_be_or_not_to_be_shown(question):
    answer = asked(question, study.Measure(None, "MAE", False, margin=0.05, unit="s", untrained=0.3))
    assert not answer.result.is_comparable
    words = titles(answer)
    assert (
        "ordinary training (K = 1) is no better on test data than MAE 0.300 s, which stands for a run that did not "
        "train, even at the best of its learning rates, so there is nothing to compare with"
    ) in answer.verdict
    assert "nothing to compare with" in words.replace(answer.verdict, "")
    assert not re.search(r"not shown|is shown|are shown|No (K|schedule|number)|best spent|is essential", words)


def phase_rows(scale=1.0):
    """Ordinary training is best with 64 steps."""
    random = np.random.default_rng(0)
    rows = [
        {"schedule": schedule, "seed": seed, "learning_rate": 0.1, "run_steps": steps}
        | {"test_accuracy": scale * (base + worse + 0.01 * random.normal()), "validation_accuracy": scale * base}
        for steps, base in ((32, 0.4), (64, 0.2), (128, 0.3))
        for schedule, worse in (("every-1", 0.0), ("every-2", 0.03), ("every-16", 0.3))
        for seed in range(4)
    ]
    return pl.DataFrame(rows)


def of_unit(scale):
    return study.Measure(None, "MAE", False, margin=0.05 * scale, unit="m", untrained=0.9 * scale)


def test_the_best_number_of_steps_is_chosen_on_validation_data_alone():
    assert study.conclude("phase", phase_rows(), measure=of_unit(1.0)).result.best_total == 64
    unchosen = phase_rows().drop("validation_accuracy")
    with pytest.raises(ValueError, match="validation_accuracy, by which the best number of steps T is chosen"):
        study.conclude("phase", unchosen, measure=of_unit(1.0))
    fractions = unchosen.with_columns(1 - pl.col("test_accuracy"))
    with pytest.raises(ValueError, match="validation_accuracy, by which the best number of steps T is chosen"):
        study.conclude("phase", fractions, num_classes=10)


def test_comparisons_with_the_best_number_of_steps_do_not_depend_on_the_unit():
    """Differences of 1e-9 are real where the margin is 5e-11."""
    one, other = (study.conclude("phase", phase_rows(s), measure=of_unit(s)).result.cells for s in (1.0, 1e-9))
    assert [cell.p_value_best for cell in other] == pytest.approx([cell.p_value_best for cell in one])
    assert 0.001 < one[4].p_value_best < 0.999


def test_what_untrained_runs_count_at_is_not_called_a_constant_predictors():
    schedules, _ = QUESTIONS["frequency"]
    lost = (pl.col("schedule") == "every-4") & (pl.col("seed") == 0)
    frame = pl.DataFrame(elsewhere(schedules, 64)).with_columns(result=pl.when(lost).then(pl.lit("diverged")))
    answer = study.conclude("frequency", frame, measure=MAE)
    assert "diverged and counts at MAE 0.900 s, which stands for a run that did not train" in answer.verdict
    assert "constant" not in answer.verdict


def tokens():
    """The next of two positions is the one before it, the first is known by nobody."""
    x = np.random.default_rng(0).integers(0, 3, (120, 4))
    return study.Data((x, np.concatenate([x[:, :1] * 0 + 1, x[:, :-1]], 1)))


def of_positions(key):
    def apply(params, x):
        before = jnp.concatenate([jnp.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return params["table"][before] @ params["out"]

    first, second = jax.random.split(key)
    return apply, {"table": jax.random.normal(first, (3, 4)), "out": jax.random.normal(second, (4, 3)) / 2}


@pytest.mark.slow
def test_targets_at_positions_are_counted_one_by_one(tmp_path):
    data = tokens()
    answer = study.Frequency(network=of_positions, data=data, **TINY).run(tmp_path / "study", progress=False)
    start = answer.records.filter(pl.col("step") == 0).unique("seed").sort("seed")
    assert start.height == 2
    for seed, recorded in start.select("seed", "network_test_accuracy").iter_rows():
        apply, params = of_positions(key_of_network(seed))
        said = np.asarray(apply(params, jnp.asarray(data.test.x))).argmax(-1)
        assert said.shape == data.test.y.shape == (len(data.test.x), 4)
        assert recorded == pytest.approx(np.mean(said == data.test.y), abs=1e-6)
    share = np.bincount(np.ravel(data.train.y)).max() / np.size(data.train.y)
    assert answer.records["constant_accuracy"].unique().to_list() == [pytest.approx(share)]
    assert "accuracy" in answer.verdict


def mean_bits(outputs, targets):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), targets[:, None], 1)) / jnp.log(2.0)


@pytest.mark.slow
@pytest.mark.parametrize(("question", "settings"), EVERY_STUDY)
def test_every_study_that_trains_shows_lower_as_better(question, settings, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 5)).astype(np.float32)
    data = study.Data((x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0.3)))
    measure = study.Measure(mean_bits, "mean bits", False, margin=0.1, unit="bits")
    how = {"data": data, "measure": measure, "learning_rates": [0.1]}
    answer = answered(question, how | settings, tmp_path / "study")
    assert answer.result.scale.turned
    assert answer.result.outcome("every-1").test_accuracy.mean < 0, "a score"
    console = Console(width=100)
    with console.capture() as shown:
        console.print(terminal_summary(answer.result))
    page = answer.report.read_text(encoding="utf-8")
    words = re.sub(r"<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL) + shown.get()
    assert "mean bits" in words
    wrong = re.findall(r".{30}(?:[Hh]ighest|\ban mean\b|−0(?![.\d])|chance|above zero|percentage).{30}", words)
    assert not wrong
    assert not re.search(r"(?<![-/#.\w])[Aa]ccurac(y|ies)(?![-\w])", words)
