"""`relin data`."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from relin.cli._failure import CommandError


def list_data(data_dir: Path | None) -> None:
    from relin.datasets import DatasetError, status

    try:
        entries = status(data_dir)
    except DatasetError as error:
        raise CommandError(str(error)) from None
    table = Table("data set", "here", "examples", "input", "classes", "where, or how to get it")
    for entry in entries:
        shape = "×".join(str(size) for size in entry.input_shape)
        where = str(entry.where) if entry.available else entry.how_to_get
        here = "[green]yes[/green]" if entry.available else "[yellow]no[/yellow]"
        table.add_row(entry.name, here, f"{entry.num_examples:,}", shape, str(entry.num_classes), where)
    Console().print(table)
