"""HTML from plain text: every text put into it is escaped.

Functions here take plain text and return `Html`; only `Html` is inserted as it is.
"""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NewType

Html = NewType("Html", str)


def escape(text: object) -> Html:
    """`text` as it must stand inside an element or a quoted attribute."""
    return Html(html.escape(str(text), quote=True))


@dataclass(frozen=True)
class Column:
    """A column of a table; the unit stands below the heading.

    **Arguments:**

    - `heading`: its name.
    - `unit`: of its numbers, in a line of its own.
    - `numeric`: whether it is right-aligned.
    """

    heading: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells as text, the first of which heads the row.

    **Arguments:**

    - `cells`: one text a column.
    - `marked`: whether the row stands out.
    """

    cells: Sequence[str]
    marked: bool = False


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
    """A table that scrolls inside its own container where the page is narrow.

    **Arguments:**

    - `caption`: a sentence above it.
    - `columns`: their headings and units.
    - `rows`: their cells, as text.
    """
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
