"""Checks that the classes of a file are classes of its dataset."""

import numpy as np

from relin.datasets._errors import DatasetError


def check_labels(where: str, labels: np.ndarray, num_classes: int, kind: str = "label") -> None:
    """Refuse integer labels (N) outside 0, …, num_classes − 1; `where` names the file."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise DatasetError(
            f"{where} has {kind} {labels[wrong[0]]} at example {wrong[0]} where {kind}s go from 0 to "
            f"{num_classes - 1}, so it is damaged or belongs to another dataset; replace it with the "
            "official file."
        )


def check_counts(images: str, num_images: int, labels: str, num_labels: int) -> None:
    """Refuse images and labels of different number, naming the files of both."""
    if num_images != num_labels:
        raise DatasetError(
            f"{images} holds {num_images} images but {labels} holds {num_labels} labels, so they do not "
            "belong together; replace both with the official pair."
        )
