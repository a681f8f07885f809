"""The files of every folder of docs/results, as its records make them."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from tools.results.quantities import RESULTS, study

from relin.report import write_report
from relin.report._html import Html

_KEPT = (".csv", ".txt", ".png")
_FLOAT = re.compile(r"\d+\.\d+(e-?\d+)?")


def files(folder: str, *, figures: bool) -> Iterator[tuple[Path, bytes]]:
    """Tables, summaries and, if asked for, figures of a folder, by their place under docs/results.

    A folder that stores some of its figures keeps to those.
    """
    spec, result, records = study(folder)
    drawn = nullcontext() if figures else patch("relin.report._page.save_plot", lambda *_: Html(""))
    with tempfile.TemporaryDirectory() as made, drawn:
        stored = {path.name for path in (RESULTS / folder).rglob("*.png")}
        write_report(result, records, spec.model_dump(mode="json"), {}, Path(made))
        for path in sorted(Path(made).rglob("*.*")):
            if path.suffix in _KEPT and not (path.suffix == ".png" and stored and path.name not in stored):
                yield RESULTS / folder / path.relative_to(made), path.read_bytes()


def is_up_to_date(path: Path, content: bytes) -> bool:
    """Whether a file says what it should: floating-point numbers in full precision may differ in their last digits."""
    if not path.is_file():
        return False
    stands = path.read_bytes()
    return stands == content or (path.suffix == ".csv" and _rounded(stands) == _rounded(content))


def _rounded(content: bytes) -> str:
    return _FLOAT.sub(lambda number: f"{float(number[0]):.6g}", content.decode())
