"""`relin ntk`."""

import io
import math
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relin._common.bar import progress_bar
from relin.cli._failure import UsageError
from relin.cli._jax import prepare
from relin.cli._signals import keeps
from relin.cli._study import failures

OUTPUTS = ("mean", "full", "diagonal")
MOMENTS = ("anchor", "end")
EXAMPLES = ("training", "validation", "test")
_NAMES = {
    "kernel_distance": "distance to step 0",
    "kernel_change": "relative change",
    "kernel_cka": "CKA to step 0",
    "target_alignment": "target alignment",
    "energy_alignment": "energy alignment",
    "effective_rank": "effective rank",
    "norm": "Frobenius norm",
}
_NUM_EIGENVALUES = 5


def ntk(
    folder: Path, probe: int, outputs: str, at: str, per_layer: bool, per_class: bool, data_dir: Path | None
) -> None:
    _check_known(("outputs", outputs, OUTPUTS), ("at", at, MOMENTS))
    prepare()
    console = Console(highlight=False, markup=False)
    with failures():
        from relin.study._saved_kernel import saved_kernels

        found = saved_kernels(
            folder,
            probe=probe,
            outputs=outputs,  # pyright: ignore[reportArgumentType]
            at=at,  # pyright: ignore[reportArgumentType]
            per_layer=per_layer,
            per_class=per_class,
            data_dir=data_dir and str(data_dir),
        )
    console.print(_heading(found, at), style="bold")
    console.print(_table(found))
    if per_layer:
        console.print(_layers(found))
    _write(found, folder, at, console)


def ntk_in_file(
    folder: Path, out: Path, probe: int, examples: str, outputs: str, at: str, data_dir: Path | None
) -> None:
    _check_known(("outputs", outputs, OUTPUTS), ("at", at, MOMENTS), ("examples", examples, EXAMPLES))
    keeps(f"the blocks that are done are in {out}.partial, and the same command goes on from them")
    prepare()
    console = Console(highlight=False, markup=False)
    with progress_bar(console) as bar, failures():
        from relin.study._saved_kernel import kernel_in_file

        task = bar.add_task("kernel", total=None)
        found = kernel_in_file(
            folder,
            out,
            probe=probe,
            examples=examples,  # pyright: ignore[reportArgumentType]
            outputs=outputs,  # pyright: ignore[reportArgumentType]
            at=at,  # pyright: ignore[reportArgumentType]
            data_dir=data_dir and str(data_dir),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    shape = " × ".join(f"{size:,}" for size in found.shape)
    console.print(f"Kernel: {out} ({shape}, {found.dtype})", soft_wrap=True)


def _check_known(*options: tuple[str, str, tuple[str, ...]]) -> None:
    for option, given, known in options:
        if given not in known:
            raise UsageError(f"--{option} must be one of {', '.join(known)}, got {given!r}.")


def _heading(found: Any, at: str) -> str:
    run, last = found.run, found.run.records.row(-1, named=True)
    where = "at its last anchor" if at == "anchor" else "of the network at its end"
    count = last["feature_updates"]
    updates = f"{count:,} feature update{'' if count == 1 else 's'}"
    return (
        f"NTK of {run.spec.model} on {run.spec.data}, {run.schedule}, rate {run.learning_rate:g}, seed {run.seed}: "
        f"{last['step']:,} steps, {updates}; {where}, {found.outputs} over {found.num_classes} outputs, "
        f"{len(found.targets)} examples"
    )


def _table(found: Any) -> Table:
    table = _empty("metric", "step 0", "end")
    whole = found.metrics.filter(part="")
    for name, label in _NAMES.items():
        values = {
            row["moment"]: row["value"]
            for row in whole.filter(metric=name).iter_rows(named=True)
            if row["class"] is None
        }
        table.add_row(label, _number(values.get("step 0")), _number(values.get("end")))
    classes = whole.filter(metric="target_alignment").drop_nulls("class")
    for c in classes["class"].unique().sort():
        own = classes.filter(**{"class": c})
        values = dict(zip(own["moment"], own["value"], strict=True))
        table.add_row(f"alignment with class {c}", _number(values["step 0"]), _number(values["end"]))
    for place in range(min(_NUM_EIGENVALUES, found.eigenvalues[0].size)):
        table.add_row(f"eigenvalue {place + 1}", *(_number(values[place]) for values in found.eigenvalues))
    return table


def _layers(found: Any) -> Table:
    """A row for each parameter tensor: its share of the kernel's norm at both moments, and how it moved."""
    table = _empty(
        "tensor", "share of\nnorm, step 0", "share of\nnorm, end", "distance", "relative\nchange", "align-\nment, end"
    )
    values = {
        (row["part"], row["moment"], row["metric"]): row["value"]
        for row in found.metrics.iter_rows(named=True)
        if row["class"] is None
    }
    for part in found.initial:
        if not part:
            continue
        shares = [values[part, moment, "norm"] / values["", moment, "norm"] for moment in ("step 0", "end")]
        moved = [values[part, "end", name] for name in ("kernel_distance", "kernel_change", "target_alignment")]
        table.add_row(Text(part), *(f"{100 * share:.1f} %" for share in shares), *map(_number, moved))
    return table


def _empty(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def _write(found: Any, folder: Path, at: str, console: Console) -> None:
    import numpy as np

    from relin._common.files import write_atomically
    from relin.report._saved_kernel import write_kernel_figure

    arrays = {
        f"{moment}{part}": kernel
        for moment, parts in (("initial", found.initial), ("final", found.final))
        for part, kernel in parts.items()
    }
    first, last = found.eigenvalues
    content = io.BytesIO()
    np.savez(content, targets=found.targets, initial_eigenvalues=first, final_eigenvalues=last, **arrays)
    write_atomically(folder / "kernel.npz", content.getvalue())
    write_atomically(folder / "metrics.csv", found.metrics.write_csv().encode())
    run, step = found.run, found.run.records["step"].max()
    title = f"{run.spec.model} on {run.spec.data}, {run.schedule}, rate {run.learning_rate:g}, seed {run.seed}"
    end = f"last anchor of {step:,} steps" if at == "anchor" else f"step {step:,}"
    shown = (found.initial[""], found.final[""], found.targets, found.eigenvalues)
    figure = write_kernel_figure(*shown, title, end, folder)
    for name, path in (("Kernels", folder / "kernel.npz"), ("Metrics", folder / "metrics.csv"), ("Figure", figure)):
        console.print(f"{name}: {path}", soft_wrap=True)
