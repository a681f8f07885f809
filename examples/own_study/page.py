"""The page: a figure of the gains, the map of learning rates, and the table of every schedule."""

from relin.report import (
    Plot,
    Report,
    StudyRecords,
    Tile,
    new_figure,
    outcomes_csv,
    outcomes_table,
    rates_plot,
    shared_tiles,
    statistics,
)

QUESTION = "Does it matter whether momentum starts anew at each re-linearisation?"


def page(result, records, spec):
    """What the page shows, from the result, its records and the settings."""
    best = max(result.gains, key=lambda own: abs(own.gain.mean))
    gains = Plot(
        name="gains",
        title=f"The reset changes accuracy by {100 * best.gain.mean:+.2f} points at K = {best.period}, the most",
        caption="Test accuracy with momentum reset less that without, paired by seed: mean and 95 % interval.",
        description=result.verdict,
        draw=lambda theme: _draw(result, theme),
    )
    return Report(
        question=QUESTION,
        tiles=[
            Tile("Largest change", f"{100 * best.gain.mean:+.2f}", f"points, at K = {best.period}"),
            *shared_tiles(result),
        ],
        plots=[gains, rates_plot(result, StudyRecords(result, records))],
        tables=[outcomes_table(result, [], "")],
        method=[
            "Every period is trained with momentum kept at re-linearisations, and with momentum set to 0 at each.",
            statistics(result),
        ],
        files={"table.csv": outcomes_csv(result.outcomes)},
    )


def _draw(result, theme):
    figure = new_figure(9.0, 5.0)
    axes = figure.subplots()
    axes.axhline(0.0, color=theme.muted, linewidth=1.2)
    for own in result.gains:
        axes.plot([own.period] * 2, [100 * own.gain.low, 100 * own.gain.high], color=theme.ordinary)
        axes.plot([own.period], [100 * own.gain.mean], "o", color=theme.ordinary, markersize=9)
    axes.set_xscale("log", base=2)
    axes.set_xticks([own.period for own in result.gains], [str(own.period) for own in result.gains])
    axes.set_xlabel("K, steps between feature updates")
    axes.set_ylabel("gain of the reset, points")
    return figure
