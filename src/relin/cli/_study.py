"""`relin study` and `relin report`."""

import json
import os
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from relin._common.bar import progress_bar
from relin.cli._failure import CommandError, UsageError, in_options
from relin.cli._jax import prepare
from relin.cli._signals import keeps


def read_settings(settings: list[str]) -> dict[str, Any]:
    """NAME=VALUE with values as TOML has them, lists and tables also as in `spec.json`; a bare word is a string."""
    given = {}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier() or not value.strip():
            raise UsageError(f"--set takes NAME=VALUE, got {text!r}; for example --set batch_size=128.")
        try:
            given[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            given[name.strip()] = _other(name.strip(), value.strip())
    return given


def _other(name: str, value: str) -> Any:
    if value[0] not in "[{":
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise UsageError(
            f"--set {name} takes a list or a table, got {value!r}; for example --set periods='[1, 64]' or "
            "--set model_options='{width = 8}'."
        ) from None


def study(
    name: str,
    data: str | None,
    overrides: dict[str, Any],
    out: Path | None,
    data_dir: Path | None,
    only_show: bool,
    redraw: bool,
    own: Path | None = None,
    shard: str | None = None,
    executor: str | None = None,
    runs_from: Path | None = None,
) -> None:
    with failures():
        from relin.study._errors import OthersComputeError
        from relin.study._executor import executor_of
        from relin.study._shard import Shard
        from relin.study._spec import load_study, read_spec

        who = executor_of(executor or "threads")
        part = Shard.of_slurm(os.environ) if shard is None else Shard.parse(shard)
        if own is not None:
            load_study(own)
        spec = read_spec(name, data, overrides)
    console = Console(markup=False)
    if only_show:
        _show_settings(spec, console)
        return
    with failures():
        check_folder(data_dir)
    keeps("finished runs of a study are kept, and the same command resumes it")
    prepare()
    from relin.datasets._names import folder_name
    from relin.study import run_study

    folder = out or Path("studies") / f"{spec.study}-{folder_name(spec.data_name)}-{spec.model_name}"
    with progress_bar(console) as bar, failures():
        task = bar.add_task("preparing", total=None)
        stages, before = set[str](), 0

        def show(progress: Any) -> None:
            nonlocal before
            if progress.stage not in stages and before == bar.tasks[task].completed:
                before = progress.done  # nothing was computed yet: all of it was stored
            stages.add(progress.stage)
            shown = {"description": progress.stage, "completed": progress.done, "total": progress.total}
            bar.update(task, **shown, before=before)

        def tell(sentence: str) -> None:
            bar.console.print(sentence, soft_wrap=True, markup=False, highlight=False)

        computed = {"data_dir": data_dir and str(data_dir), "executor": who, "shard": part, "runs_from": runs_from}
        try:
            result, records = run_study(spec, folder, **computed, report=show, tell=tell)
        except OthersComputeError as others:
            tell(str(others))
            return
    _write(spec, result, records, folder, console, shlex.join(["relin", *sys.argv[1:]]), redraw)


def report(folder: Path, redraw: bool, own: Path | None = None, against: str | None = None) -> None:
    with failures():
        from relin.report._report import check_against
        from relin.study import load_study, stored_study

        if own is not None:
            load_study(own)
        spec, result, records = stored_study(folder)
        check_against(result.study, against)
    again = ["relin", "study", str(folder / "spec.json"), "--out", str(folder)]
    again += [] if own is None else ["--study", str(own)]
    _write(spec, result, records, folder, Console(markup=False), shlex.join(again), redraw, against)


def report_records(
    records: Path,
    question: str,
    out: Path | None,
    settings: dict[str, Any],
    own: Path | None,
    against: str | None = None,
) -> None:
    """The report of runs that were made elsewhere, from a file of them."""
    from dataclasses import replace

    with failures():
        from relin.study import conclude, load_study

        if own is not None:
            load_study(own)
        answer = conclude(question, _read_runs(records), **settings)
        answer = replace(answer, command=shlex.join(["relin", *sys.argv[1:]]))
        page = answer.write(out or Path("studies") / f"{question}-{records.stem}", against)
    from relin.report import terminal_summary

    console = Console(markup=False)
    console.print(terminal_summary(answer.result))
    console.print(f"Report: {page}", soft_wrap=True, highlight=False)


def _read_runs(path: Path) -> Any:
    import polars as pl

    read = {
        ".parquet": pl.read_parquet,
        ".csv": lambda file: pl.read_csv(file, infer_schema_length=None, null_values=["", "nan", "NA"]),
    }.get(path.suffix)
    if read is None:
        raise UsageError(f"--records takes a file ending in .parquet or .csv, got {path}; save the runs as one.")
    try:
        return read(path)
    except OSError as error:
        raise UsageError(f"The records {path} cannot be read ({error.strerror or error}); check the path.") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        kind = path.suffix.removeprefix(".")
        raise UsageError(f"{path} is no {kind} file with a table of runs; save them as one.") from None


@contextmanager
def failures() -> Iterator[None]:
    """Refusals of the library as those of the command line."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise _refusal(error) from None


def _refusal(error: Exception) -> CommandError:
    """The names are of modules that are quickly imported: what is wrong with settings is told before JAX is there."""
    from relin.datasets._errors import DatasetError
    from relin.study._errors import StoreError, WorkerError

    if isinstance(error, DatasetError):
        return CommandError(in_options(str(error)))
    return (CommandError if isinstance(error, StoreError | WorkerError) else UsageError)(str(error))


def check_folder(data_dir: Path | None) -> None:
    """Raises `DatasetError` for a folder of data that is not there."""
    from relin.datasets._locate import check_data_dir

    check_data_dir(data_dir)


def _write(
    spec: Any,
    result: Any,
    records: Any,
    folder: Path,
    console: Console,
    command: str,
    redraw: bool,
    against: str | None = None,
) -> None:
    """Prints the answer; writes the report where records, settings or relin changed since, or `redraw` asks for it."""
    from relin.report import terminal_summary, write_current
    from relin.study._records import environments

    environment = {**environments(records, spec.axis), "command": command}
    try:
        write_current(result, records, spec.model_dump(mode="json"), environment, folder, redraw, against)
    except FileNotFoundError:
        if (folder / "spec.json").exists():
            raise
        raise CommandError(
            f"{folder} was removed while the report was written; run the same command again to begin anew."
        ) from None
    console.print(terminal_summary(result))
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def _show_settings(spec: Any, console: Console) -> None:
    from rich.table import Table

    table = Table("setting", "value", "meaning")
    values = spec.model_dump(mode="json")
    for name, field in type(spec).model_fields.items():
        table.add_row(name, _as_toml(values[name]), field.description or "")
    console.print(table)


def _as_toml(value: Any) -> str:
    """A value as a study's file has it."""
    match value:
        case None:
            return "not set"
        case dict():
            return "{" + ", ".join(f"{name} = {_as_toml(inner)}" for name, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_as_toml, value)) + "]"
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case _:
            return str(value)
