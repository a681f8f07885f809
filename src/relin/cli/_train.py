"""`relin train`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from relin._common.bar import progress_bar
from relin.cli._jax import prepare
from relin.cli._log import logger_kind, opened
from relin.cli._signals import keeps, saved_when_stopped
from relin.cli._study import check_folder, failures

if TYPE_CHECKING:
    from relin.study import GridSpec

CHECKPOINTS = "checkpoints"
"""In the folder of a run."""
COLUMNS = {
    "step": ("step", "{:.0f}"),
    "feature_updates": ("feature\nupdates", "{:.0f}"),
    "train_loss": ("training\nloss", "{:.4g}"),
    "validation_accuracy": ("validation\naccuracy", "{:.2%}"),
    "test_accuracy": ("test\naccuracy", "{:.2%}"),
    "network_test_accuracy": ("network\ntest acc.", "{:.2%}"),
    "validation_loss": ("validation\nloss", "{:.4g}"),
    "test_loss": ("test\nloss", "{:.4g}"),
    "network_test_loss": ("network\ntest loss", "{:.4g}"),
    "linearisation_error": ("linearis.\nerror", "{:.3g}"),
    "parameter_movement": ("movement\nof params", "{:.3g}"),
}


def train(
    settings: dict[str, Any],
    schedule: str,
    rate: float | None,
    seed: int,
    out: Path | None,
    data_dir: Path | None,
    log: list[str],
) -> None:
    kinds = [logger_kind(where) for where in log]
    if out is None:
        kept = f"only the records that {' and '.join(log)} took are" if log else "nothing is"
        keeps(f"{kept} kept of this run, and the same command begins it anew")
    else:
        keeps(f"the run's state last written is in {out / CHECKPOINTS}, and the same command goes on from it")
    with failures():
        from relin.study._grid import single_run
        from relin.study._optimisers import usual_rate

        spec = _spec(settings)
        rate = usual_rate(spec.optimiser) if rate is None else rate
        single_run(spec, schedule, rate, seed)
        check_folder(data_dir)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before training, not after
    prepare()
    from relin._loop.checkpoint import write_all
    from relin.study._saved import save_run, train_run

    console = Console(markup=False)
    kept = None if out is None else out / CHECKPOINTS
    with progress_bar(console) as bar, failures(), opened(kinds) as loggers, saved_when_stopped(write_all):
        task = bar.add_task("training", total=spec.steps)
        run = train_run(
            spec,
            schedule,
            rate,
            seed,
            data_dir=data_dir and str(data_dir),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            loggers=loggers,
            checkpoints=kept,
        )
    records = run.records
    if out is not None:
        keeps(f"the run had ended, but not all of its files are in {out}, and the same command writes them")
    console.print(_table(records))
    last = records.row(-1, named=True)
    if last["result"] == "diverged":
        rarer = "" if last["period"] == 1 else " or a smaller K"
        reason = run.solution and run.solution.reason
        why = f", since {reason}." if reason else f"; a lower --rate{rarer} may not."
        console.print(f"Training diverged at step {last['diverged_at']}{why}")
    if last["result"] == "failed to train":
        console.print(
            f"Training failed: its loss at the end, {last['final_loss']:.4g}, is not 1 % below that of a constant "
            f"predictor, {last['constant_loss']:.4g}; another --rate or more --steps may serve better."
        )
    if out is not None:
        _write(records, out, console)
        save_run(run, out)
        console.print(f"Parameters: {out / 'solution.safetensors'}", soft_wrap=True, highlight=False)


def check(settings: dict[str, Any], seed: int, data_dir: Path | None) -> None:
    """Says what is worth knowing of a run, without training it."""
    with failures():
        from relin.study._grid import check_seed

        spec = _spec(settings)
        check_seed(seed)
        check_folder(data_dir)
    prepare()
    console = Console(highlight=False, markup=False)
    with failures():
        from relin.study._preflight import preflight

        found = preflight(spec, seed, data_dir and str(data_dir))
    parameters = f"{found.num_params:,} parameters"
    console.print(f"{spec.model} on {spec.data}, {found.num_examples} examples a step, {parameters}", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading in ("asked", "found", "note"):
        table.add_column(heading, justify="right" if heading == "found" else "left", overflow="fold")
    for cells in found.rows():
        table.add_row(*cells)
    console.print(table)


def _spec(settings: dict[str, Any]) -> "GridSpec":
    """The settings of the frequency study with these in their place."""
    from relin.study._settings import GridSpec
    from relin.study._spec import read_spec

    spec = read_spec("frequency", overrides=settings)
    if not isinstance(spec, GridSpec):
        raise ValueError(f"study: `relin train` takes the settings of a study of schedules, got {spec.study!r}.")
    return spec


def _write(records: Any, out: Path, console: Console) -> None:
    from relin._common.files import write_atomically
    from relin.report._training import write_training_curve
    from relin.study._records import to_parquet

    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "records.parquet", to_parquet(records))
    write_atomically(out / "records.csv", records.write_csv())
    figure = write_training_curve(records, out)
    for title, path in (("Records", out / "records.csv"), ("Figure", figure)):
        console.print(f"{title}: {path}", soft_wrap=True, highlight=False)


def _table(records: Any) -> Table:
    without = "loss" if "test_accuracy" in records.columns else "accuracy"  # of what is not trained on
    columns = {name: column for name, column in COLUMNS.items() if name == "train_loss" or not name.endswith(without)}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for heading, _ in columns.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in records.iter_rows(named=True):
        table.add_row(*(_cell(row[name], form) for name, (_, form) in columns.items()))
    return table


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else form.format(value)
