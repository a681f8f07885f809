"""`relin gallery`."""

from pathlib import Path

from rich.console import Console

from relin.cli._study import failures


def gallery(folder: Path, out: Path | None) -> None:
    with failures():
        from relin.report._gallery import write_gallery

        page = write_gallery(folder, out)
    Console(markup=False).print(f"Gallery: {page}", soft_wrap=True, highlight=False)
