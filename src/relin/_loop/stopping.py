"""When a run has nothing more to gain."""

import math
from collections.abc import Mapping
from typing import Any

from relin._core import check as _check


class EarlyStopping:
    """Ends a run once a measure has not improved for some records: the argument `stop` of `train`.

    It begins anew with each run's record of step 0. A value that is not a number is no improvement.

    **Arguments:**

    - `measure`: a name among the records, such as `"validation_loss"`.
    - `patience`: so many records in a row without a new best one end the run.
    - `larger_is_better`: as of an accuracy; by default smaller values are better.

    **Raises:** `ValueError` for a patience below 1, and at the first record without this measure.
    """

    def __init__(self, measure: str, patience: int = 5, *, larger_is_better: bool = False):
        _check.count(patience, "patience", "5 records are usual")
        self.measure, self.patience, self.larger_is_better = measure, patience, larger_is_better
        self.best, self.without = -math.inf, 0

    def __repr__(self) -> str:
        return f"EarlyStopping({self.measure!r}, patience={self.patience}, larger_is_better={self.larger_is_better})"

    def __call__(self, record: Mapping[str, Any]) -> bool:
        """Whether the run has ended, with this record."""
        if self.measure not in record:
            raise ValueError(
                f"EarlyStopping looks at {self.measure!r}, and the records hold {', '.join(record)}; name one of these."
            )
        if record["step"] == 0:
            self.best, self.without = -math.inf, 0
        value = float(record[self.measure])
        value = value if self.larger_is_better else -value
        better = value > self.best
        self.best, self.without = (value, 0) if better else (self.best, self.without + 1)
        return self.without >= self.patience
