"""What is computed and stored as one piece."""

import abc

Identity = tuple[str, int, float, int, int | None]
"""What records tell of a run: schedule, steps, learning rate, seed, width."""


class AbstractJob(abc.ABC):
    """Runs that are computed together: the unit of work and of storage. Hashable."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Unique in its study, the same on every machine."""

    @property
    @abc.abstractmethod
    def identities(self) -> set[Identity]:
        """Of all its runs."""

    @property
    @abc.abstractmethod
    def cost(self) -> int:
        """About its steps, for progress bars."""
