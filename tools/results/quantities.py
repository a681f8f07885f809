"""The words in which texts ask the stored records for numbers. Accuracies and differences are in points."""

from fnmatch import fnmatchcase
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import polars as pl

from relin.studies.stability.result import RateLimit, StabilityResult
from relin.study import GridResult, StudySpec, stored_study
from relin.study._result import Interval, ScheduleOutcome

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@cache
def study(folder: str) -> tuple[StudySpec, Any, Any]:
    """The settings, the answer and the records of a folder of docs/results."""
    if not (RESULTS / folder / "spec.json").is_file():
        raise ValueError(f"docs/results holds no folder {folder!r}; name one with `of:`, or as the last argument.")
    return stored_study(RESULTS / folder)


def percent(value: Interval | float) -> Any:
    """A fraction, or an interval of fractions, in points."""
    if isinstance(value, Interval):
        return Interval(mean=100 * value.mean, low=100 * value.low, high=100 * value.high)
    return 100 * value


class Quantities:
    """Every public method is a word of expressions; `of` is a folder of docs/results, by default the one set last."""

    def __init__(self) -> None:
        self.folder = ""

    def result(self, of: str | None = None) -> Any:
        """All that the study concluded."""
        return study(of or self.folder)[1]

    def spec(self, of: str | None = None) -> Any:
        """Its settings."""
        return study(of or self.folder)[0]

    def folders(self, names: str = "*") -> list[str]:
        """Of docs/results, those of a pattern such as `frequency-*`."""
        return sorted(path.parent.name for path in RESULTS.glob(f"{names}/spec.json"))

    def on_par_with_few(self) -> list[str]:
        """The frequency studies in which some schedule is on par with updates at no more than 1 % of the steps."""
        fewest = {folder: self.result(folder).fewest_updates for folder in self.folders("frequency-*")}
        return [folder for folder, schedule in fewest.items() if schedule and self.share(schedule, folder) <= 1]

    def outcome(self, schedule: str, of: str | None = None) -> ScheduleOutcome:
        """How a schedule came out at the learning rate chosen for it."""
        found = self.result(of).outcome(schedule)
        if found is None:
            raise ValueError(f"{of or self.folder} has no schedule {schedule!r}.")
        return found

    def accuracy(self, schedule: str, of: str | None = None) -> Interval:
        """Test accuracy in percent."""
        return percent(self.outcome(schedule, of).test_accuracy)

    def difference(self, schedule: str, of: str | None = None) -> Interval:
        """Test accuracy less that of ordinary training, paired by seed."""
        difference = self.outcome(schedule, of).difference
        assert difference is not None, schedule
        return percent(difference)

    def lazy_gap(self, of: str | None = None) -> Interval:
        """Test accuracy of ordinary less that of lazy training, paired by seed."""
        return percent(self.result(of).lazy_gap)

    def updates(self, schedule: str, of: str | None = None) -> float:
        """Mean number of feature updates of a run."""
        return self.outcome(schedule, of).feature_updates

    def loses(self, schedule: str, of: str | None = None) -> float:
        """The mean of `difference` with its sign turned."""
        return -self.difference(schedule, of).mean

    def share(self, schedule: str, of: str | None = None) -> float:
        """Feature updates in percent of the steps."""
        return 100 * self.updates(schedule, of) / self.result(of).num_steps

    def closes(self, share: float, of: str | None = None) -> int:
        """The fewest feature updates with which, and with every larger number tested, the mean closes so large a share
        of the gap between lazy and ordinary training."""
        periodic = [outcome for outcome in self.outcomes(of=of) if outcome.period is not None]
        lazy, ordinary = (self.outcome(name, of).test_accuracy.mean for name in ("never", "every-1"))
        wanted = lazy + share * (ordinary - lazy)
        enough = takewhile(lambda outcome: outcome.test_accuracy.mean >= wanted, periodic)
        return round(list(enough)[-1].feature_updates)

    def aligned(self, schedule: str, of: str | None = None) -> Interval:
        """Of the kernel study: centred alignment of the kernel with the targets at the end of a schedule's runs."""
        return self.result(of).kernel(schedule).alignment

    def above_even(self, schedule: str, of: str | None = None) -> Interval:
        """Of the timing study: test accuracy less that of as many updates spaced evenly, paired by seed."""
        (placement,) = (each for each in self.result(of).placements if each.schedule == schedule)
        return percent(placement.versus_even)

    def rate(self, schedule: str, of: str | None = None) -> float:
        """The learning rate chosen."""
        return self.outcome(schedule, of).learning_rate

    def on_par(self, schedule: str, of: str | None = None) -> bool:
        return bool(self.outcome(schedule, of).on_par)

    def outcomes(self, schedules: str = "*", of: str | None = None) -> list[ScheduleOutcome]:
        """Those of the schedules of a pattern such as `*+sparse`; one at least."""
        result: GridResult = self.result(of)
        found = [outcome for outcome in result.outcomes if fnmatchcase(outcome.schedule, schedules)]
        if not found:
            raise ValueError(f"{of or self.folder} has no schedule like {schedules!r}.")
        return found

    def ends(self, schedules: str, rate: float | None = None, of: str | None = None) -> pl.DataFrame:
        """The last record of every run of the schedules of a pattern, at one learning rate or at all."""
        records = study(of or self.folder)[2]
        names = [name for name in records["schedule"].unique() if fnmatchcase(name, schedules)]
        own = records.filter(pl.col("schedule").is_in(names))
        own = own if rate is None else own.filter(learning_rate=rate)
        if own.is_empty():
            raise ValueError(f"{of or self.folder} has no run of {schedules!r} at rate {rate}.")
        run = [name for name in ("width", "schedule", "learning_rate", "run_steps", "seed") if name in own.columns]
        return own.filter(pl.col("step") == pl.col("step").max().over(run)).unique([*run])

    def runs(self, schedules: str = "*", rate: float | None = None, of: str | None = None) -> int:
        """How many runs there are of the schedules of a pattern, at one learning rate or at all."""
        return self.ends(schedules, rate, of).height

    def diverged(self, schedules: str = "*", rate: float | None = None, of: str | None = None) -> int:
        """How many of them diverged."""
        return self.ends(schedules, rate, of).filter(result="diverged").height

    def failed(self, schedules: str = "*", rate: float | None = None, of: str | None = None) -> int:
        """How many of them failed to train."""
        return self.ends(schedules, rate, of).filter(result="failed to train").height

    def untrained(self, schedules: str = "*", rate: float | None = None, of: str | None = None) -> int:
        """How many of them did not train: diverged, or failed to."""
        return self.ends(schedules, rate, of).filter(pl.col("result") != "successful").height

    def mean_at(
        self, step: int, column: str, schedule: str, of: str | None = None, *, rate: float | None = None
    ) -> float:
        """Mean of a column of the records at a step, at a rate, by default that chosen for a schedule."""
        rate = self.rate(schedule, of) if rate is None else rate
        own = study(of or self.folder)[2].filter(schedule=schedule, learning_rate=rate, step=step)
        return float(own[column].to_numpy().mean())

    def frozen_at(self, step: int, schedule: str, of: str | None = None) -> Interval:
        """Of the kernel study: test accuracy of lazy training on the kernel of a schedule at a step, a fraction."""
        (frozen,) = (each for each in self.result(of).frozen if each.schedule == schedule)
        return frozen.accuracy[frozen.steps.index(step)]

    def limits(self, schedules: str = "*", of: str | None = None) -> list[RateLimit]:
        """Of the stability study: at which rates the schedules of a pattern train."""
        result: StabilityResult = self.result(of)
        found = [limit for limit in result.limits if fnmatchcase(limit.schedule, schedules)]
        if not found:
            raise ValueError(f"{of or self.folder} has no schedule like {schedules!r}.")
        return found

    def trains_to(self, schedule: str, of: str | None = None) -> float:
        """The largest learning rate at which every run of a schedule trained; 0 if there is none."""
        (limit,) = self.limits(schedule, of)
        return limit.largest_rate or 0.0
