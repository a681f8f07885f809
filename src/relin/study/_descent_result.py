"""What the studies of full-batch gradient descent conclude: data computed from stored records."""

from pydantic import Field

from relin.study._result import StudyResult


class DescentResult(StudyResult):
    """What both studies say of their training."""

    num_runs: int
    num_diverged: int
    num_failed: int = Field(0, description="Runs that failed to train.")
    chance: float = Field(description="Accuracy at which a run that did not train counts: the constant predictor's.")
    num_examples: int = Field(description="N, of the training set.")
    rate: float = Field(description="Learning rate η, as a part of 2/λ_max at the initial network.")
