"""`relin gallery`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from relin.cli._study import failures


def gallery(folder: Path, out: Path | None, own: Sequence[Path]) -> None:
    with failures():
        from relin.report._gallery import write_gallery
        from relin.study import load_study

        for path in own:
            load_study(path)

        page = write_gallery(folder, out)
    Console(markup=False).print(f"Gallery: {page}", soft_wrap=True, highlight=False)
