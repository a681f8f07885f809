"""Errors that the command line knows without importing what raises them."""


class SpecError(ValueError):
    """A study's settings are wrong; the message says which, and what is allowed."""


class StoreError(ValueError):
    """What is stored cannot be used; the message names the file and the remedy."""


class UnfinishedError(StoreError):
    """Jobs of runs are missing: `missing` of `total`, so far; `again` says what finishes them."""

    again = "run the same study command again to finish it"

    def __init__(self, folder: object, missing: int, total: int):
        self.missing, self.total = missing, total
        super().__init__(
            f"{folder} does not hold a whole study yet ({missing} of {total} jobs of runs are missing so far); "
            f"{self.again}."
        )


class OthersComputeError(Exception):
    """A shard has done its part, and other processes still compute: the one that ends last answers."""

    def __init__(self, folder: object, number: int):
        jobs = "a job" if number == 1 else f"{number} jobs"
        super().__init__(
            f"This shard is done, and others still compute {jobs} of runs in {folder}; whoever ends last writes the "
            "report, and if one was killed the same command finishes its part."
        )


class WorkerError(ValueError):
    """Other processes do not compute what they are given; the message says which, and the remedy."""
