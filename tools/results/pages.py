"""Which texts state what the records say, and what they get wrong."""

from collections.abc import Iterator
from pathlib import Path

from tools.results.marks import Reading, unmarked
from tools.results.quantities import ROOT
from tools.results.tables import Words

STRICT = (
    "docs/choosing.md",
    "docs/results/README.md",
    "docs/results/gallery.md",
    "docs/studies.md",
    "docs/windows.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "results").glob("*/README.md")),
)
"""Pages on which every number is marked: those of results, and which draw conclusions from them."""


def texts() -> Iterator[Path]:
    """All texts that may hold marks."""
    for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md"):
        yield ROOT / name
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "src").rglob("*.py"))


def read(path: Path) -> Reading:
    return Reading(path.read_text(encoding="utf-8"), Words(), path.relative_to(ROOT).as_posix())


def unmarked_numbers(name: str) -> list[str]:
    """Of a page: `place: number`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [f"{name}:{line}: {number} is not marked" for line, number in unmarked(text)]
