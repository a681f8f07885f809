"""The terminal: a row for each K."""

from rich.text import Text

from relin.report import Terminal, plain_table


def terminal(result):
    """What terminals show above the verdict."""
    return Terminal(lambda layout: [_table(result, layout)], ["gain: accuracy with momentum reset less that without"])


def _table(result, layout):
    shown = plain_table(
        f"{result.model} on {result.data}, {result.num_seeds} seeds", ["K", "gain, points", "95 % interval"]
    )
    for own in result.gains:
        mean, low, high = (
            f"{100 * value:+.{layout.digits}f}" for value in (own.gain.mean, own.gain.low, own.gain.high)
        )
        shown.add_row(str(own.period), Text(mean), Text(f"[{low}, {high}]"))
    return shown
