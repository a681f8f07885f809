"""An estimate with its confidence interval."""

from pydantic import BaseModel, ConfigDict


class Interval(BaseModel):
    """An estimate with its two-sided confidence interval, in the unit of the estimate.

    **Attributes:**

    - `mean`: the estimate.
    - `low`, `high`: the ends of the interval.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float

    def __neg__(self) -> "Interval":
        return Interval(mean=-self.mean, low=-self.high, high=-self.low)
