"""Whether a report is that of its records, so that nothing need be drawn anew."""

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from relin._common.files import as_json, from_json, read_file, remove_parts, write_atomically
from relin.report._report import write_report
from relin.study._errors import SpecError
from relin.study._registry import find
from relin.study._result import StudyResult

STAMP = "report.json"
_PACKAGE = Path(__file__).parent.parent
_SOURCES = ("report", "study")
_WRITTEN = ("report.html", "summary.txt", "*.csv", "figures/*.png", "figures/*.pdf")


def made_from(records: pl.DataFrame, spec: Mapping[str, Any], against: str | None = None) -> dict[str, str]:
    """Digests of what a report follows from: records, settings, and the code and version of relin and of the study."""
    schema = repr(list(records.schema.items())).encode()
    rows = records.hash_rows(0).to_numpy().tobytes()
    sources = (path for name in _SOURCES for path in (_PACKAGE / name).rglob("*") if path.suffix != ".pyc")
    code = [*(path for path in sources if path.is_file()), _PACKAGE / "_common" / "outcome.py", *_code_of(spec)]
    return {
        "records": _digest([schema, rows]),
        "settings": _digest([repr(sorted(spec.items())).encode(), *([] if against is None else [against.encode()])]),
        "relin": _digest([version("relin").encode(), *(read_file(path) for path in sorted(code))]),
    }


def _code_of(spec: Mapping[str, Any]) -> list[Path]:
    """The modules in the folder of the study, which need not be one of relin's."""
    try:
        return list(Path(inspect.getfile(find(spec.get("study")))).parent.glob("*.py"))
    except (SpecError, TypeError, OSError):  # none of the name, or one of a program that is no file
        return []


def write_current(
    result: StudyResult,
    records: pl.DataFrame,
    spec: Mapping[str, Any],
    environment: Mapping[str, Any],
    out_dir: Path,
    redraw: bool = False,
    against: str | None = None,
) -> Path:
    """`write_report` where the report in a folder was made from other records, settings or relin, or is not whole.

    **Arguments:**

    - `result`, `records`, `spec`, `environment`, `out_dir`, `against`: as for `write_report`.
    - `redraw`: write it even where nothing has changed.

    **Returns:** the path of the page.
    """
    made = made_from(records, spec, against)
    if redraw or not is_current(out_dir, made):
        for path in (out_dir, out_dir / "figures"):
            remove_parts(path)
        write_report(result, records, spec, environment, out_dir, against)
        keep(out_dir, made)
    return out_dir / "report.html"


def is_current(folder: Path, made: Mapping[str, str]) -> bool:
    """Whether the report in a folder was made from these, and each of its files is as it was written."""
    try:
        stamp = from_json(read_file(folder / STAMP))
        same = {name: stamp[name] for name in made} == made
        return same and all(_digest([read_file(folder / name)]) == digest for name, digest in stamp["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def keep(folder: Path, made: Mapping[str, str]) -> None:
    """Notes what the report in a folder was made from. Raises `OSError`."""
    files = sorted(path for pattern in _WRITTEN for path in folder.glob(pattern))
    digests = {str(path.relative_to(folder)): _digest([read_file(path)]) for path in files}
    write_atomically(folder / STAMP, as_json({**made, "files": digests}))


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
