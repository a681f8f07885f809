"""One page over many folders of studies: question, specimen, verdict, first figure, link."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote

import polars as pl

from relin._common.files import write_atomically
from relin._common.words import listed
from relin.report import _text as text
from relin.report._figures import Plot, data_uri
from relin.report._html import Html, escape, prose
from relin.report._page import Page, Section, Tile, headline, in_words_of, render_page
from relin.report._style import DARK, LIGHT, Theme, themed
from relin.study._errors import SpecError, StoreError, UnfinishedError
from relin.study._registry import find
from relin.study._result import StudyResult
from relin.study._settings import StudySpec
from relin.study._store import Store
from relin.study._study import stored_study
from relin.study._verdict import in_measure

_DPI = 64
State = Literal["answered", "not finished", "not readable"]
_REPORT = "report.html"


@dataclass(frozen=True)
class Card:
    """What the page shows of one folder."""

    folder: Path
    study: str
    """The study's name; empty where the settings cannot be read."""
    specimen: str
    """What was trained, in words."""
    state: State
    words: str
    """The verdict, or why there is none."""
    question: str | None = None
    plots: Sequence[Plot] = ()


def study_folders(folder: Path) -> list[Path]:
    """The folder itself and those in it, at any depth, that hold a study's settings, by name.

    **Raises:** `SpecError` where there is none.
    """
    if not folder.is_dir():
        raise SpecError(f"{folder} is no folder; name one whose folders are studies.")
    found = sorted({path.parent for path in folder.rglob("spec.json")})
    if not found:
        raise SpecError(f"{folder} holds no study (no spec.json in it or below it); name a folder of studies.")
    return found


def card_of(folder: Path) -> Card:
    """What there is to show of a study's folder. One that is not finished, or damaged, is shown as such."""
    try:
        spec = Store(folder).spec()
    except (SpecError, StoreError) as error:
        return Card(folder, "", folder.name, "not readable", str(error))
    try:
        return answered(folder, *stored_study(folder))
    except UnfinishedError as error:
        words = f"{error.total - error.missing:,} of {error.total:,} jobs of runs are stored; {error.again}."
        return Card(folder, spec.study, _specimen(spec), "not finished", words)
    except (ValueError, OSError) as error:
        return Card(folder, spec.study, _specimen(spec), "not readable", str(error))


def answered(folder: Path, spec: StudySpec, result: StudyResult, records: pl.DataFrame) -> Card:
    """What there is to show of a finished study. Raises `ValueError` where its page has nothing to show."""
    page = in_words_of(result, find(spec.study).page(result, records, spec.model_dump(mode="json")))
    verdict, question = (in_measure(words, result.measure) for words in (result.verdict, page.question))
    return Card(folder, spec.study, _specimen(spec), "answered", verdict, question, page.plots)


def _specimen(spec: StudySpec) -> str:
    steps = getattr(spec, "steps", None)
    return f"{spec.model_name} on {spec.data_name}" + (f", {steps:,} steps" if isinstance(steps, int) else "")


def write_gallery(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write one page over the studies in a folder, and return its path.

    The page holds its figures. Each study's part links to the study's report, or to its folder where there is none.

    **Arguments:**

    - `folder`: whose folders, at any depth, are studies.
    - `out`: the page's path; `gallery.html` in the folder, if none.

    **Raises:** `SpecError` if there is no study in the folder, `OSError` if the page cannot be written.
    """
    folder = Path(folder)
    cards = [card_of(each) for each in study_folders(folder)]
    out = folder / "gallery.html" if out is None else Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_atomically(out, gallery_page(cards, folder, out.parent))


def gallery_page(cards: Sequence[Card], folder: Path, beside: Path) -> str:
    """The page as HTML text, for the folder `beside` from which its links lead."""
    css = (resources.files("relin.report") / "gallery.css").read_text(encoding="utf-8")
    sections = []
    for number, (question, inside) in enumerate(by_question(cards)):
        parts = Html("\n".join(_card(card, f"{number}-{index}", beside) for index, card in enumerate(inside)))
        sections.append(Section(f"study-{number}", question, [Html(f'<div class="cards">\n{parts}\n</div>')]))
    states = {state: sum(card.state == state for card in cards) for state in get_args(State)}
    told = listed([f"{number} {state}" for state, number in states.items() if number])
    page = Page(
        title="Gallery",
        subtitle=f"The studies in {folder}",
        verdict=f"{text.counted(len(cards), 'study')}: {told}" if len(cards) == 1 else f"{len(cards)} studies: {told}",
        tiles=[Tile(state.capitalize(), str(number), "") for state, number in states.items()],
        sections=sections,
        footer="Rendered by relin from stored results.",
    )
    return render_page(page, css)


def by_question(cards: Iterable[Card]) -> list[tuple[str, list[Card]]]:
    """Cards of each study under its question; those whose settings cannot be read come last."""
    groups = dict[str, list[Card]]()
    for card in sorted(cards, key=lambda card: not card.study):
        groups.setdefault(card.study, []).append(card)
    return [
        (next((card.question for card in inside if card.question), study or "No settings of a study"), inside)
        for study, inside in groups.items()
    ]


def _card(card: Card, name: str, beside: Path) -> Html:
    report = card.folder / _REPORT
    target = report if report.is_file() else card.folder
    link = escape(quote(os.path.relpath(target, beside).replace(os.sep, "/")))
    is_answered = card.state == "answered"
    state = "" if is_answered else f'<p class="state">{escape(card.state.capitalize())}</p>\n'
    words = f'<p class="words">{headline(card.words)}</p>' if is_answered else f"<p>{prose(card.words)}</p>"
    return Html(
        f'<article class="card" aria-labelledby="card-{name}">\n'
        f'<h3 id="card-{name}"><a href="{link}">{prose(card.specimen)}</a></h3>\n{state}{words}\n'
        f'{"".join(_inside(card))}<p class="place">{escape(card.folder.name)}</p>\n</article>'
    )


def _inside(card: Card) -> Iterator[str]:
    if card.plots:
        dark, light = (_picture(card.plots[0], theme) for theme in (DARK, LIGHT))
        yield f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        yield f'<img alt="{escape(card.plots[0].description)}" src="{light}"></picture>\n'


def _picture(plot: Plot, theme: Theme) -> str:
    with themed(theme):
        return data_uri(plot.draw(theme), _DPI)
