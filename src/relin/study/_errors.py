"""Errors that the command line knows without importing what raises them."""


class StoreError(ValueError):
    """What is stored cannot be used; the message names the file and the remedy."""
