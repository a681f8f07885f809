"""`relin train`."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from relin.cli._failure import CommandError, UsageError
from relin.cli._jax import prepare
from relin.cli._study import progress_bar

COLUMNS = {
    "step": "{:.0f}",
    "feature_updates": "{:.0f}",
    "train_loss": "{:.4g}",
    "validation_accuracy": "{:.2%}",
    "test_accuracy": "{:.2%}",
    "network_test_accuracy": "{:.2%}",
    "linearisation_error": "{:.3g}",
    "parameter_movement": "{:.3g}",
}


def train(
    settings: dict[str, Any], schedule: str, rate: float, seed: int, out: Path | None, data_dir: Path | None
) -> None:
    prepare()
    from relin.datasets import DatasetError
    from relin.study import SpecError, read_spec, train_one

    console = Console()
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=settings["steps"])
        try:
            spec = read_spec("frequency", overrides=settings)
            records = train_one(
                spec,
                schedule,
                rate,
                seed,
                data_dir=data_dir and str(data_dir),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        except DatasetError as error:
            raise CommandError(str(error)) from None
        except (SpecError, ValueError, TypeError) as error:
            raise UsageError(str(error)) from None
    console.print(_table(records))
    last = records.row(-1, named=True)
    if last["result"] == "diverged":
        console.print(f"Training diverged at step {last['diverged_at']}; a lower --rate may not.")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        records.write_parquet(out / "records.parquet")
        records.write_csv(out / "records.csv")
        console.print(f"Records: {out / 'records.csv'}", soft_wrap=True, highlight=False)


def _table(records: Any) -> Table:
    table = Table(*(name.replace("_", " ") for name in COLUMNS))
    for row in records.iter_rows(named=True):
        cells = (form.format(row[name]) if row[name] is not None else "" for name, form in COLUMNS.items())
        table.add_row(*cells)
    return table
