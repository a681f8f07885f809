"""From the records to the answer."""

from pydantic import BaseModel

from relin.study import GridResult, Interval, compare


class Gain(BaseModel):
    """Test accuracy with momentum reset at each re-linearisation less that without, paired by seed."""

    period: int
    gain: Interval


class RestartResult(GridResult):
    """The answer to *does it matter whether momentum starts anew at each re-linearisation?*"""

    gains: list[Gain]


def conclude(spec, records, chance):
    """Every schedule at its own rate, and the gain of the reset at each K."""
    compared = compare(records["equal-steps"], margin=spec.margin / 100, confidence=spec.confidence, chance=chance)
    gains = [
        Gain(period=K, gain=compared.interval(compared.versus(f"every-{K}+reset", f"every-{K}"))) for K in spec.periods
    ]
    result = RestartResult(**compared.shared, gains=gains)
    return result.model_copy(update={"verdict": _verdict(result)})


def _verdict(result):
    told = "; ".join(f"K = {own.period}: {_gained(own.gain)}" for own in result.gains)
    return f"On {result.data}, resetting momentum at each re-linearisation, {told} ({result.num_seeds} paired seeds)."


def _gained(gain):
    how = "gains" if gain.low > 0 else "loses" if gain.high < 0 else "is not shown to gain or lose:"
    low, mean, high = (f"{100 * value:+.2f}".replace("-", "−") for value in (gain.low, gain.mean, gain.high))
    return f"{how} {mean} points [{low}, {high}]"
