"""The one error this package raises about data."""


class DatasetError(ValueError):
    """A dataset is missing, damaged or mislabelled; the message names the file, the fault and the remedy."""
