"""`relin data`."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from relin.cli._failure import CommandError, in_options


def list_data(data_dir: Path | None) -> None:
    from relin.datasets import DatasetError, status
    from relin.datasets._names import FORMS, FUNCTION_FORMS

    try:
        entries = status(data_dir)
    except DatasetError as error:
        raise CommandError(in_options(str(error))) from None
    console = Console(highlight=False)
    table = Table("data set", "here", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("examples", "input", "classes"):
        table.add_column(heading, justify="right")
    table.add_column("where", overflow="fold")  # a path is to be read whole
    for entry in entries:
        shape = "×".join(str(size) for size in entry.input_shape)
        here = "[green]yes[/green]" if entry.available else "[yellow]no[/yellow]"
        where = escape(str(entry.where)) if entry.available else "see below"
        table.add_row(entry.name, here, f"{entry.num_examples:,}", shape, str(entry.num_classes), where)
    console.print(table)
    for entry in entries:
        if not entry.available:
            console.print(f"[bold]{entry.name}[/bold]: {escape(in_options(entry.how_to_get))}", overflow="fold")
    console.print(f"[bold]Generated functions[/bold]: {escape(FUNCTION_FORMS)}.")
    console.print(f"[bold]Your own[/bold]: --data takes {escape(FORMS)}.")
