"""What the terminal shows of every study."""

import io

import pytest
from made_up_studies import ENVIRONMENT, SPEC, essential, stability, timing
from rich.console import Console

from relin.report import terminal_summary, write_report
from relin.study import SpecError
from relin.study._scale import PERCENT

STUDIES = {"essential": essential, "timing": timing, "stability": stability}


def printed(result, width: int, **options) -> str:
    buffer = io.StringIO()
    Console(file=buffer, width=width, legacy_windows=False, **options).print(terminal_summary(result))
    return buffer.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("study", STUDIES)
def test_every_number_is_whole(study, width):
    result, _ = STUDIES[study]()
    shown = printed(result, width, color_system=None)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    compact = "".join(shown.split())
    for outcome in result.outcomes:
        assert PERCENT.plus_minus(outcome.test_accuracy, 2, "") in compact
        assert (
            PERCENT.bracket(outcome.difference).replace("+", "").replace(", ", ",") in compact or not outcome.difference
        )
        assert all(part in shown for part in outcome.label.split(", "))
    flat = " ".join(shown.replace("│", " ").split())
    assert result.verdict in flat
    assert "on par: the one-sided 95 % bound excludes a loss of 1 percentage point" in flat


@pytest.mark.parametrize("study", STUDIES)
def test_a_wide_terminal_has_a_line_a_schedule(study):
    result, _ = STUDIES[study]()
    lines = printed(result, 120, color_system=None).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("──")) + 1
    for line, outcome in zip(lines[first:], result.outcomes, strict=False):
        assert line.startswith(f"{outcome.label} ")


def test_long_names_fit_eighty_columns():
    result, _ = stability()
    worst = [
        outcome.model_copy(update={"label": "K = 1024, trust region 0.25, moments reset", "feature_updates": 123.4})
        for outcome in result.outcomes
    ]
    shown = printed(result.model_copy(update={"outcomes": worst}), 80, color_system=None)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert shown.count("moments reset") == len(worst)


@pytest.mark.parametrize("study", STUDIES)
def test_answers_are_bold(study):
    result, _ = STUDIES[study]()
    shown = printed(result, 120, color_system="standard", force_terminal=True)
    lines = shown.splitlines()
    below = next(index for index, line in enumerate(lines) if line.startswith("──")) + 1  # the heading is bold too
    bold = [line for line in lines[below:] if line.startswith("\x1b[1m")]
    expected = [outcome.label for outcome in result.outcomes if outcome.schedule in result.answers]
    assert len(bold) == len(expected) > 1
    for line, label in zip(bold, expected, strict=True):
        assert line.startswith(f"\x1b[1m{label}")
    assert "in bold:" in " ".join(shown.replace("│", " ").split())


def test_stability_shows_up_to_which_rate_a_schedule_trains():
    result, _ = stability()
    lines = printed(result, 120, color_system=None).splitlines()
    rows = {line.split("  ")[0]: line.removeprefix(line.split("  ")[0]).split() for line in lines}
    assert rows["K = 16"][:2] == ["0.03", "0.03"]
    assert rows["K = 64"][:2] == ["–", "0.03"]
    assert rows["K = 64, clipped at 1"][:2] == ["0.3", "0.3"]


def test_both_comparisons_have_a_table_each(study):
    result = study[0]
    both = result.model_copy(update={"equal_distance": result.model_copy(update={"comparison": "equal-distance"})})
    shown = printed(both, 100, color_system=None)
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.count("cnn on mnist1d, 2,000 steps") == 2
    assert shown.count("K = ∞") == printed(result, 100, color_system=None).count("K = ∞")  # one verdict
    assert shown.count("error ≤ 0.1") == 2


def test_no_other_result_is_reported(tmp_path):
    result, records = essential()
    unknown = result.model_copy(update={"study": "mine"})
    with pytest.raises(SpecError, match="There is no study 'mine'; the studies are damping"):
        write_report(unknown, records, SPEC, ENVIRONMENT, tmp_path)
