"""A self-contained HTML page: everything it shows is in it, and every text put into it is escaped.

Functions here take plain text and return `Html`; only `Html` is inserted as it is.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import Any, NewType

Html = NewType("Html", str)


def escape(text: object) -> Html:
    """`text` as it must stand inside an element or a quoted attribute."""
    return Html(html.escape(str(text), quote=True))


@dataclass(frozen=True)
class Tile:
    """A key number: the value in large type, what it is, and what to make of it."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    name: str
    heading: str
    parts: Sequence[Html]


@dataclass(frozen=True)
class Column:
    """A column of a table; the unit stands below the heading."""

    heading: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells as text, the first of which heads the row."""

    cells: Sequence[str]
    marked: bool = False


@dataclass(frozen=True)
class Page:
    """What a report page holds, in the order it is read."""

    title: str
    subtitle: str
    verdict: str
    tiles: Sequence[Tile]
    sections: Sequence[Section] = field(default_factory=tuple)
    footer: str = ""


def prose(text: object) -> Html:
    """`text` escaped, with no line break inside an equation or between a number and its unit."""
    return Html(re.sub(r" (=|≤|%)( ?)", lambda m: f"\u00a0{m[1]}" + m[2].replace(" ", _after(m[1])), escape(text)))


def _after(sign: str) -> str:
    return " " if sign == "%" else "\u00a0"


def paragraph(text: str) -> Html:
    return Html(f"<p>{prose(text)}</p>")


def code_block(text: str) -> Html:
    return Html(f'<pre tabindex="0"><code>{escape(text)}</code></pre>')


def table(caption: str, columns: Sequence[Column], rows: Iterable[Row]) -> Html:
    """A table that scrolls inside its own container where the page is narrow."""
    head = "".join(
        f'<th scope="col"{_numeric(column)}>{escape(column.heading)}'
        + (f"<span class='unit'>{escape(column.unit)}</span>" if column.unit else "")
        + "</th>"
        for column in columns
    )
    body = "\n".join(_table_row(columns, row) for row in rows)
    return Html(
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption)}"><table>\n'
        f"<caption><span>{prose(caption)}</span></caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table></div>"
    )


def _table_row(columns: Sequence[Column], row: Row) -> str:
    first, *others = row.cells
    cells = "".join(
        f"<td{_numeric(column)}>{escape(cell)}</td>" for column, cell in zip(columns[1:], others, strict=True)
    )
    marked = ' class="marked"' if row.marked else ""
    return f'<tr{marked}><th scope="row">{escape(first)}</th>{cells}</tr>'


def _numeric(column: Column) -> str:
    return ' class="num"' if column.numeric else ""


def definitions(mapping: Mapping[str, Any]) -> Html:
    """A nested mapping as a list of names and values; the names of inner entries are joined by dots."""
    entries = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _flatten(mapping)
    )
    return Html(f"<dl>{entries}</dl>")


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(_scalar(item) for item in value) or "–"
        else:
            yield f"{prefix}{key}", _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _headline(verdict: str) -> Html:
    """The verdict with its conditions set smaller: what follows a semicolon, or from a long parenthesis on."""
    split = re.search(r"(?<=;) | \((?=[^)]{40})", verdict)
    if split is None:
        return escape(verdict)
    answer, conditions = verdict[: split.start()], verdict[split.start() :]
    return Html(f'{escape(answer)}<span class="conditions">{escape(conditions)}</span>')


def render_page(page: Page) -> str:
    """The page as HTML text, with its style sheet inside."""
    here = resources.files("relin.report")
    tiles = "\n".join(
        f'<div class="tile"><dt>{prose(tile.label)}</dt><dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="note">{prose(tile.note)}</dd></div>'
        for tile in page.tiles
    )
    sections = "\n".join(
        f'<section aria-labelledby="{escape(section.name)}">\n<h2 id="{escape(section.name)}">'
        f"{escape(section.heading)}</h2>\n{''.join(section.parts)}\n</section>"
        for section in page.sections
    )
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(page.title),
        subtitle=escape(page.subtitle),
        verdict=_headline(page.verdict),
        style=(here / "style.css").read_text(encoding="utf-8"),
        tiles=tiles,
        sections=sections,
        footer=escape(page.footer),
    )
