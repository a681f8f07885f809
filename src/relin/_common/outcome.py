"""What it means that a run trained; the definition is that of *Outcomes of a run* in docs/method.md."""

from typing import Any

MARGIN = 0.01
"""The part of the best constant predictor's loss by which a run must end below it."""


def failed_to_train(final_loss: Any, constant_loss: Any) -> Any:
    """Whether a run that did not diverge ended no better than a constant predictor.

    **Arguments:** numbers, or columns of them (NumPy's or expressions of Polars).

    - `final_loss`: mean training loss over the last record's interval, of the linearised predictor.
    - `constant_loss`: min_c mean ℓ(c, y) over the training targets; for cross-entropy the entropy of the class
      frequencies, for squared error half the targets' variance.
    """
    return final_loss > constant_loss - MARGIN * abs(constant_loss)
