"""The reports of the studies of full-batch descent: the pages as a reader gets them, and their edges."""

import math

import matplotlib.image
import numpy as np
import polars as pl
import pytest
from made_up_studies import ENVIRONMENT, SPEC
from pages import check_page, plain
from rich.console import Console

from relin.report import terminal_summary, write_report
from relin.report._style import LIGHT, themed
from relin.studies.damping.result import Choice, DampingResult, DampingRun, Ridge
from relin.studies.interpolation.figures import distances_against_period
from relin.studies.interpolation.result import InterpolationResult, PeriodOutcome
from relin.study._result import Interval

SHARED = {"data": "made-up data", "model": "made-up model", "num_steps": 20, "num_seeds": 3, "num_runs": 12}
SHARED |= {"num_diverged": 1, "chance": 0.1, "num_examples": 64, "rate": 0.5}
PERIODS, KAPPAS = [1.0, 16.0, 256.0, 4096.0], [0.25, 0.5, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0]
NO_RECORDS = pl.DataFrame()


def about(mean, half=0.02):
    return Interval(mean=mean, low=mean - half, high=mean + half)


def damping(lost=False):
    """`lost`: where nearly everything diverged."""
    distances = [
        [None if lost and kappa > 100 else 0.02 + 0.05 * abs(math.log2(kappa / k)) for kappa in KAPPAS] for k in PERIODS
    ]
    known = None if lost else about(0.3, 0.1)
    ridges = [
        Ridge(after=after, distances=distances, nearest=[known, None, known, known], slope=known and about(0.97),
              factor=known, on_line=[about(0.05)] * 3 + [None])
        for after in (1, 5)
    ]  # fmt: skip
    runs = [
        DampingRun(
            way=way, number=number, num_diverged=int(lost), test_accuracy=about(0.7), validation_accuracy=0.7,
            train_loss=None if lost else about(-2.0), kernel_distance=None if lost else about(0.03, 0.04),
            reached=None if number < 16 else about(0.69),
        )
        for way, numbers in (("every", PERIODS), ("gauss-newton", KAPPAS))
        for number in numbers
    ]  # fmt: skip
    choice = Choice(best=256.0, least=16384.0, difference=about(-0.03, 0.01))
    return DampingResult(
        study="damping", **SHARED, verdict="On made-up data, period K acts like damping (3 paired seeds).",
        periods=PERIODS, kappas=KAPPAS, ridges=ridges, runs=runs, reached_loss=0.05, gauss_newton=choice,
        descent=choice.model_copy(update={"best": 256.0, "least": 4096.0}),
    )  # fmt: skip


def interpolation(half_way=4096.0, lost=False):
    periods = [*PERIODS, math.inf]
    outcomes = [
        PeriodOutcome(
            period=k, num_diverged=int(k == 16), test_accuracy=about(0.6), network_test_accuracy=about(0.5),
            to_ordinary=None if lost or k == 16 else about(place / 4),
            to_regression=None if lost or k == 16 else about(1 - place / 4),
        )
        for place, k in enumerate(periods)
    ]  # fmt: skip
    return InterpolationResult(
        study="interpolation", **SHARED, verdict="On made-up data, K leads somewhere (3 paired seeds).",
        periods=outcomes, ordinary_accuracy=about(0.6), regression_accuracy=about(0.4), at_ordinary=0.0,
        at_regression=3e-12, ends_apart=None if lost else about(0.9), limit_apart=None if lost else about(2.0),
        rounding=1e-9, farther=3, nearer=3,
        compared=3, half_way=half_way,
    )  # fmt: skip


@pytest.mark.parametrize(("against", "ordinary", "lazy"), [("T/K", 20, 1), ("n", 19, 0)])
def test_periods_stand_at_their_updates_or_windows(against, ordinary, lazy):
    """In 20 steps a K of 256 and more makes no update: these stand together."""
    with themed(LIGHT):
        axes = distances_against_period(interpolation(), LIGHT, against).axes[0]
    x = next(line.get_xdata() for line in axes.lines if line.get_marker() == "o")
    assert x[0] == pytest.approx(math.log2(ordinary))
    assert len(set(x[1:])) == 1
    assert lazy == 0 or x[1] == math.log2(lazy)
    assert axes.get_xlabel() == {"T/K": "windows in a run, T/K = n + 1", "n": "feature updates, n = T/K − 1"}[against]


@pytest.mark.parametrize(
    ("result", "figures", "files"),
    [
        (damping(), ("ridge", "against-damping"), ("distances.csv",)),
        (damping(lost=True), ("ridge", "against-damping"), ("distances.csv",)),
        (interpolation(), ("distances", "accuracy"), ()),
        (interpolation(lost=True), ("distances", "accuracy"), ()),
    ],
    ids=["damping", "damping that diverged", "interpolation", "interpolation that diverged"],
)
def test_the_page_holds_everything(result, figures, files, tmp_path, parse):
    page = write_report(result, NO_RECORDS, SPEC, ENVIRONMENT, tmp_path / "report")
    check_page(page, parse(page.read_text(encoding="utf-8")), result, figures, files)
    for name in figures:
        image = matplotlib.image.imread(page.parent / "figures" / f"{name}.png")
        assert np.ptp(image[..., :3]) > 0.5
    table = pl.read_csv(page.parent / "table.csv")
    assert table.height == (len(PERIODS) + len(KAPPAS) if files else len(PERIODS) + 1)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(terminal_summary(result))
    assert all(len(line) <= 80 for line in shown.get().splitlines())
    assert "…" not in shown.get()


@pytest.mark.slow
def test_the_numbers_of_the_page_are_those_of_the_result(tmp_path, parse):
    page = write_report(damping(), NO_RECORDS, SPEC, ENVIRONMENT, tmp_path / "d")
    text = plain(page.read_text(encoding="utf-8"))
    assert "Along the line λ = 1/(ηK)" in text
    assert "Nearest damping 1/(ηκ): κ = 1.23 K after 1 outer step, κ = 1.23 K after 5 outer steps" in text
    distances = pl.read_csv(page.parent / "distances.csv")
    assert distances.height == 2 * len(PERIODS) * len(KAPPAS)
    assert distances.filter(after=5, period=16.0, kappa=16.0).item(0, "distance") == pytest.approx(0.02)
    page = write_report(interpolation(None), NO_RECORDS, SPEC, ENVIRONMENT, tmp_path / "i")
    text = plain(page.read_text(encoding="utf-8"))
    assert "relative distance 3·10⁻¹²" in text
    assert "K leads from ordinary training to NTK regression, steadily" in text
    assert "none" in text
