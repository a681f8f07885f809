"""A study's answer in Python: verdict, table, records, figures, report; it shows itself in a notebook."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from relin._common.showing import notebook
from relin.study._records import environments
from relin.study._registry import find
from relin.study._result import StudyResult

_REPORT = "relin.report"
"""Above this package, and imported where a page is asked for; it needs Matplotlib."""


class Figures(Mapping[str, Any]):
    """The figures of a study by name, each a `matplotlib.figure.Figure`, drawn when it is asked for.

    Asked for a name there is not, it raises `KeyError` with the names there are.

    **Arguments:**

    - `plots`: a `relin.report.Plot` for each name.
    """

    def __init__(self, plots: Mapping[str, Any]):
        self._plots = plots

    def __getitem__(self, name: str) -> Any:
        if name not in self._plots:
            raise KeyError(f"there is no figure {name!r}; the figures are {', '.join(self._plots)}")
        return import_module(f"{_REPORT}._figures").drawn(self._plots[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._plots)

    def __len__(self) -> int:
        return len(self._plots)

    def __repr__(self) -> str:
        return f"Figures({', '.join(self._plots)})"


@dataclass(frozen=True)
class Answer:
    """What a study found.

    **Attributes:**

    - `result`: the conclusions as data, an object of the study.
    - `records`: one row a run and recorded step, with how each run ended.
    - `settings`: of the study, nested mappings of plain values.
    - `folder`: where the records are; none for runs that were made elsewhere.
    - `command`: how to get it again, as the page shows it.
    """

    result: StudyResult
    records: pl.DataFrame
    settings: Mapping[str, Any]
    folder: Path | None = None
    command: str | None = None

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return self.result.verdict

    @cached_property
    def table(self) -> pl.DataFrame:
        """The outcomes in full precision: fractions, and three columns (mean, `_low`, `_high`) for an interval."""
        return pl.read_csv(io.StringIO(self._page.files["table.csv"]), infer_schema_length=None)

    @property
    def figures(self) -> Figures:
        """Those of the report, by name."""
        return Figures({plot.name: plot for plot in self._page.plots})

    def figures_against(self, against: str) -> Figures:
        """The same with feature updates as `n`, as `K` = T/(n + 1) or as the `T/K` = n + 1 windows of a run.

        **Raises:** `ValueError` for what the study does not offer.
        """
        import_module(f"{_REPORT}._report").check_against(self.result.study, against)
        return Figures({plot.name: plot for plot in self._page_against(against).plots})

    @property
    def report(self) -> Path:
        """The path of the page, which is written where it is not that of these records.

        **Raises:** `ValueError` for runs that were made elsewhere, of which `write` says where.
        """
        if self.folder is None:
            raise ValueError("These runs have no folder; call answer.write(FOLDER) to write the report.")
        return self.write(self.folder)

    def write(self, folder: str | Path, against: str | None = None) -> Path:
        """Writes the report into a folder, if it is not there yet, and returns the path of its page.

        `against` is what figures of feature updates have on their axis, as of `figures_against`.

        **Raises:** `ValueError` for a folder that holds another study, or for what the study does not offer.
        """
        folder = Path(folder)
        if self.folder is None and (folder / "spec.json").exists():
            raise ValueError(f"{folder} holds a study that was run there; name another folder for this report.")
        axis = find(self.result.study).settings.model_construct(**self.settings).axis
        environment = {**environments(self.records, axis), "command": self.command}
        write = import_module(_REPORT).write_current
        return write(self.result, self.records, self.settings, environment, folder, against=against)

    @cached_property
    def _page(self) -> Any:
        return self._page_against(None)

    def _page_against(self, against: str | None) -> Any:
        choice = () if against is None else (against,)
        page = find(self.result.study).page(self.result, self.records, self.settings, *choice)
        return import_module(f"{_REPORT}._page").in_words_of(self.result, page)

    def __repr__(self) -> str:
        return f"Answer({self.result.study!r}): {self.verdict}"

    def _repr_html_(self) -> str:
        """In a notebook: the verdict, the first figure, and the tables, folded."""
        return notebook().answer_html(self.result, self._page)
