"""`relin study` and `relin report`."""

import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from relin.cli._failure import CommandError, UsageError
from relin.cli._jax import prepare


def read_settings(settings: list[str]) -> dict[str, Any]:
    """NAME=VALUE with values as TOML has them; a bare word is a string."""
    given = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"--set takes NAME=VALUE, got {text!r}; for example --set batch_size=128.")
        try:
            given[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given[name] = value
    return given


def study(
    name: str, data: str | None, overrides: dict[str, Any], out: Path | None, data_dir: Path | None, only_show: bool
) -> None:
    from relin.study._spec import SpecError, read_spec

    console = Console()
    try:
        spec = read_spec(name, data, overrides)
    except SpecError as error:
        raise UsageError(str(error)) from None
    if only_show:
        _show_settings(spec, console)
        return
    prepare()
    from relin.datasets import DatasetError
    from relin.study import run_study

    folder = out or Path("studies") / f"{spec.study}-{spec.data}-{spec.model}"
    with progress_bar(console) as bar:
        task = bar.add_task("preparing", total=None)

        def show(progress: Any) -> None:
            bar.update(task, description=progress.stage, completed=progress.done, total=progress.total)

        try:
            result, records = run_study(spec, folder, data_dir=data_dir and str(data_dir), report=show)
        except KeyboardInterrupt:
            raise CommandError("Stopped; what was finished is kept, and the same command resumes.") from None
        except DatasetError as error:
            raise CommandError(str(error)) from None
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from None
    _write(spec, result, records, folder, console)


def report(folder: Path) -> None:
    from relin.study._spec import SpecError
    from relin.study._store import Store
    from relin.study._study import conclude

    store = Store(folder)
    try:
        spec, records = store.spec(), store.read()
        result = conclude(spec, records)
    except SpecError as error:
        raise CommandError(str(error)) from None
    except ValueError as error:
        raise CommandError(f"{folder} does not hold a whole study yet: {error}") from None
    _write(spec, result, records, folder, Console())


def _write(spec: Any, result: Any, records: Any, folder: Path, console: Console) -> None:
    import json

    from relin.report import terminal_summary, write_report

    first = records.row(0, named=True)
    environment = {**json.loads(first["versions"]), "device": first["device"]}
    page = write_report(result, records, spec.model_dump(mode="json"), environment, folder)
    console.print(terminal_summary(result))
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )


def _show_settings(spec: Any, console: Console) -> None:
    from rich.table import Table

    table = Table("setting", "value", "meaning")
    for name, field in type(spec).model_fields.items():
        table.add_row(name, str(spec.model_dump(mode="json")[name]), field.description)
    console.print(table)
