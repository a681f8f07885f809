"""Errors that the command line knows without importing what raises them."""


class SpecError(ValueError):
    """A study's settings are wrong; the message says which, and what is allowed."""


class StoreError(ValueError):
    """What is stored cannot be used; the message names the file and the remedy."""
