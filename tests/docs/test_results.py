"""Texts and tables about docs/results say what the stored records say; no number there goes in unmarked."""

import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from tools.results.folders import files, is_up_to_date
from tools.results.marks import Reading, as_stated, unmarked
from tools.results.pages import STRICT, read, texts, unmarked_numbers
from tools.results.quantities import RESULTS, Interval, Quantities
from tools.results.tables import Words


def test_texts_state_what_the_records_say():
    readings = [read(path) for path in texts()]
    assert [problem for reading in readings for problem in reading.problems] == [], "run make results"


@pytest.mark.parametrize("page", STRICT)
def test_every_number_of_a_page_of_results_is_marked(page):
    assert unmarked_numbers(page) == []


@pytest.mark.parametrize("folder", Quantities().folders())
def test_tables_and_summaries_are_those_of_the_records(folder):
    written = list(files(folder, figures=False))
    assert {path.suffix for path, _ in written} == {".csv", ".txt"}
    assert [path.name for path, content in written if not is_up_to_date(path, content)] == [], "run make results"


def evaluate(folder, expression):
    return eval(expression, {"folder": folder, "gap": Interval(mean=1.59, low=1.34, high=1.84), "lost": 3.61})


def reading(text, place="page.md"):
    return Reading(text, evaluate, place)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("loses 3.7<!-- = lost --> points", "loses 3.6<!-- = lost --> points"),
        ("loses 2.90 %<!-- = lost -->", "loses 3.61 %<!-- = lost -->"),
        ("by −9<!-- = -lost -->", "by −4<!-- = -lost -->"),
        ("by +9.0<!-- = lost -->", "by +3.6<!-- = lost -->"),
        ("by 3<!-- = gap -->", "by 2<!-- = gap -->"),
        ("1.6 [1.3, 1.9]<!-- = gap -->", "1.6 [1.3, 1.8]<!-- = gap -->"),
        ("[1.34, 2.84] points<!-- = gap -->", "[1.34, 1.84] points<!-- = gap -->"),
        ("5,000<!-- = 12345 -->", "12,345<!-- = 12345 -->"),
        ("<!-- write: 'x | y' -->\nstale\n<!-- end -->\nb", "<!-- write: 'x | y' -->\n\nx | y\n\n<!-- end -->\nb"),
    ],
)
def test_what_is_wrong_is_found_and_written_anew(wrong, right):
    first = reading(wrong)
    assert first.restated == right
    assert first.problems
    assert reading(right).problems == []


def test_a_problem_names_file_line_and_both_values():
    (problem,) = reading("# title\n\nloses 3.7<!-- = lost --> points").problems
    assert problem == "page.md:3: states 3.7, the records say 3.6: lost"


def test_claims_in_words_are_held_to_the_records():
    text = "It loses much<!-- holds: lost > 3 -->, and more<!-- holds: lost > 4 -->."
    (problem,) = reading(text).problems
    assert problem.endswith("not so in the records: lost > 4")
    (problem,) = reading('"""Loses much."""\n# holds: lost > 3\n# holds: lost > 4\n', "module.py").problems
    assert problem.startswith("module.py:3: ")


@pytest.mark.parametrize("text", ["3<!-- = unknown -->", "none<!-- = lost -->", "[1, 2]<!-- = lost -->"])
def test_what_cannot_be_computed_is_a_problem(text):
    assert len(reading(text).problems) == 1
    assert reading(text).restated == text


def test_a_block_that_does_not_end_is_a_problem():
    assert any("has no" in problem for problem in reading("<!-- write: 'x' -->\n\nx\n").problems)


def test_the_folder_set_last_counts_and_marks_in_code_do_not():
    text = (
        "<!-- of: a -->`9<!-- = lost -->` a<!-- holds: folder == 'a' --> <!-- of: b -->b<!-- holds: folder == 'b' -->"
    )
    assert reading(text).problems == []


def test_of_two_roundings_of_a_tie_either_stands():
    assert (as_stated("87.2", 87.25), as_stated("87.3", 87.25), as_stated("87.1", 87.25)) == ("87.2", "87.3", "87.2")


def test_numbers_without_a_mark_are_found():
    text = (
        "# A heading of 2 words\n\n"
        "CIFAR-10, mnist1d, parity-20-3 and 64-32-10, K = 16 or 64, 95 % intervals, "
        "2026-11-24, `x 5` and [a](b2.md) are exempt.\n"
        "So are 5 seeds at rate 3;<!-- setting --> 4<!-- = 4 --> of 7<!-- setting --> too.\n\nNot 3.6, nor [0.2, 8].\n"
        "<!-- write: 1 -->\n\n12\n\n<!-- end -->\n<!-- measured: x -->\n\n34\n\n<!-- end -->\n"
        "Here 1. But 2<!-- setting -->.\n"
    )
    assert unmarked(text) == [(6, "3.6"), (6, "0.2"), (6, "8"), (17, "1")]


@pytest.mark.parametrize(("data", "number"), [("digits", 21), ("mnist1d", 15)])
def test_runs_that_ended_at_chance_did_not_train(data, number):
    folder, run = f"stability-{data}-mlp", ("schedule", "learning_rate", "seed")
    stored = pl.read_parquet(RESULTS / folder / "records.parquet").sort("step").group_by(run).last()
    at_chance = pl.col("test_loss").is_between(2.29, 2.32) & pl.col("train_loss").is_between(2.28, 2.32)
    collapsed = stored.filter(at_chance & (pl.col("test_accuracy") < 0.15))
    assert collapsed.height >= number
    assert set(collapsed["result"]) == {"failed to train"}  # in the stored records, and where they are judged anew
    ends = Quantities().ends("*", of=folder).join(collapsed.select(run), on=run)
    assert set(ends["result"]) == {"failed to train"}


def test_quantities_are_those_of_a_study():
    words, folder = Quantities(), "frequency-digits-mlp"
    assert words.accuracy("every-1", folder).mean == pytest.approx(98.24, abs=0.01)
    assert words.updates("every-256", folder) == 3
    assert words.lazy_gap(folder).mean == -words.difference("never", folder).mean
    steps = "kernel-staircase-mlp"
    assert [words.closes(share, steps) for share in (0.0, 0.1, 0.5, 0.9, 1.0)] == [0, 1, 3, 4, 1023]
    assert words.aligned("never", steps).mean == pytest.approx(0.0737, abs=1e-4)
    with pytest.raises(ValueError, match="no schedule 'every-3'"):
        words.outcome("every-3", folder)
    with pytest.raises(ValueError, match="no schedule like 'x\\*'"):
        words.outcomes("x*", folder)
    with pytest.raises(ValueError, match="no folder 'nowhere'"):
        Words()("nowhere", "accuracy('every-1')")
