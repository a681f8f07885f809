"""The neural tangent kernel of a saved run, at its beginning and at its end, and what is to be said of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import polars as pl
from jaxtyping import Float, Int

from relin.kernel._metrics import cka, distance, effective_rank, energy_alignment, relative_change, target_alignment
from relin.kernel._ntk import ntk
from relin.kernel._on_disk import KernelOnDisk
from relin.study._runner import Runner, first as first_of
from relin.study._saved import SavedRun, load_run
from relin.study._store import StoreError

Outputs = Literal["mean", "full", "diagonal"]
Moment = Literal["anchor", "end"]
Examples = Literal["training", "validation", "test"]
Kernel = Float[np.ndarray, "N N ..."]
WHOLE = ""
"""The name of the whole kernel among its parts."""
_LARGEST = 20_000
"""Rows of the largest kernel of which eigenvalues are computed: 3 GB in double precision."""


@dataclass(frozen=True)
class SavedKernels:
    """The kernels of a run at step 0 and at its end, by part: the whole one, if asked those of parameter tensors."""

    run: SavedRun
    outputs: Outputs
    num_classes: int
    targets: Int[np.ndarray, " N"]
    initial: dict[str, Kernel]
    final: dict[str, Kernel]
    eigenvalues: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]
    """Of the whole kernels at step 0 and at the end, decreasing."""
    metrics: pl.DataFrame
    """Columns `part`, `moment` (step 0 or end), `metric`, `class` (of an alignment with one class), `value`."""


def saved_kernels(
    folder: Path,
    *,
    probe: int = 128,
    outputs: Outputs = "mean",
    at: Moment = "anchor",
    per_layer: bool = False,
    per_class: bool = False,
    data_dir: str | None = None,
) -> SavedKernels:
    """The kernels of a saved run on the first validation examples.

    **Arguments:**

    - `folder`: of the run, as `save_run` wrote it.
    - `probe`: N, validation examples.
    - `outputs`: which kernel of the C outputs, see `relin.kernel.ntk`.
    - `at`: the kernel at the end is that of the linearised network, at its last `"anchor"`, or of the network at θ_T,
      the `"end"`; with K = ∞ the former is that of step 0.
    - `per_layer`: the parts of every parameter tensor as well.
    - `per_class`: the alignment with every class as well.
    - `data_dir`: where the data set's files are looked for first.

    **Raises:** `ValueError` for numbers that do not fit; `StoreError` for a damaged file.
    """
    run, runner = _loaded(folder, probe, "validation", data_dir)
    rows = probe * (runner.dataset.num_classes if outputs == "full" else 1)
    if rows > _LARGEST:
        raise ValueError(
            f"The kernel would have {rows:,} rows, and at most {_LARGEST:,} can be decomposed; choose a smaller probe "
            "or the mean over outputs."
        )
    x, y = runner.probe(probe)
    kernel = jax.jit(
        lambda network, params, inputs: _parts(ntk(network, params, inputs, outputs=outputs, per_layer=per_layer))
    )
    first, (last, end) = runner.network, _at_the_end(run, runner, at)
    initial, final = (
        {name: np.asarray(part) for name, part in kernel(*at_moment, x).items()}
        for at_moment in ((first, run.initial), (last, end))
    )
    _check_finite(folder, run, [initial, final])
    measured = metric_rows(initial, final, y, runner.dataset.num_classes, per_class)
    spectra = eigenvalues(initial[WHOLE]), eigenvalues(final[WHOLE])
    return SavedKernels(
        run=run,
        outputs=outputs,
        num_classes=runner.dataset.num_classes,
        targets=np.asarray(y),
        initial=initial,
        final=final,
        eigenvalues=spectra,
        metrics=pl.DataFrame(measured, schema=_SCHEMA, orient="row"),
    )


def kernel_in_file(
    folder: Path,
    out: Path,
    *,
    probe: int = 128,
    examples: Examples = "validation",
    outputs: Outputs = "mean",
    at: Moment = "anchor",
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KernelOnDisk:
    """The kernel of a saved run at its end on the first examples of a part of its data, made in a file block by block.

    **Arguments:** `out` and `progress` as of `relin.kernel.ntk`; the others as of `saved_kernels`.

    **Raises:** `ValueError` for numbers that do not fit, and for a file of another kernel; `StoreError` for a damaged
    file, and a run that diverged.
    """
    run, runner = _loaded(folder, probe, examples, data_dir)
    network, params = _at_the_end(run, runner, at)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        raise StoreError(f"The run in {folder} diverged, and has no kernel at its end; train it at a lower rate.")
    x, _ = first_of(_part(runner, examples), probe)
    found = ntk(network, params, x, outputs=outputs, out=out, progress=progress)
    assert isinstance(found, KernelOnDisk)
    return found


def _loaded(folder: Path, probe: int, examples: Examples, data_dir: str | None) -> tuple[SavedRun, Runner]:
    """Raises `ValueError` for a probe that its data do not have."""
    if probe < 2:
        raise ValueError(f"The probe must have at least 2 examples, got {probe}; 128 is usual.")
    run, runner = load_run(folder, lambda spec: Runner(spec, data_dir))
    number = len(_part(runner, examples)[1])
    if probe > number:
        raise ValueError(
            f"The probe is taken from the {number} {examples} examples of {run.spec.data}, got {probe}; choose fewer."
        )
    return run, runner


def _part(runner: Runner, examples: Examples) -> Any:
    return {"training": runner.data, "validation": runner.validation, "test": runner.test}[examples]


def _at_the_end(run: SavedRun, runner: Runner, at: Moment) -> tuple[Any, Any]:
    """The network and its parameters."""
    network = runner.network if run.variables is None else runner.network.with_variables(run.variables)
    return network, run.anchor if at == "anchor" else run.params


_SCHEMA = {"part": pl.String, "moment": pl.String, "metric": pl.String, "class": pl.Int64, "value": pl.Float64}
Row = tuple[str, str, str, int | None, float]


def metric_rows(
    initial: dict[str, Kernel], final: dict[str, Kernel], y: Any, num_classes: int, per_class: bool
) -> list[Row]:
    """The rows of the metrics, part by part, first what is said of one kernel and then of two."""
    return [row for part in initial for row in _rows(part, initial[part], final[part], y, num_classes, per_class)]


def _rows(part: str, first: Kernel, last: Kernel, y: Any, num_classes: int, per_class: bool) -> Iterator[Row]:
    for moment, kernel in (("step 0", first), ("end", last)):
        singles: dict[str, Callable[[], Any]] = {
            "target_alignment": lambda k=kernel: target_alignment(k, y, num_classes=num_classes),
            "energy_alignment": lambda k=kernel: energy_alignment(k, y, num_classes=num_classes),
            "effective_rank": lambda k=kernel: effective_rank(k),
            "norm": lambda k=kernel: np.linalg.norm(k),
        }
        for name, value in singles.items():
            yield part, moment, name, None, float(value())
        if per_class:
            aligned = np.asarray(target_alignment(kernel, y, num_classes=num_classes, per_class=True))
            yield from ((part, moment, "target_alignment", c, float(value)) for c, value in enumerate(aligned))
    pairs = {"kernel_distance": distance, "kernel_change": relative_change, "kernel_cka": cka}
    for name, metric in pairs.items():
        yield part, "end", name, None, float(metric(last, first))


def eigenvalues(kernel: Kernel) -> Float[np.ndarray, " rows"]:
    """Of the NC × NC matrix, of all its blocks with c = c′ together, or of the N × N matrix; decreasing."""
    if kernel.ndim == 4:
        n, _, c, _ = kernel.shape
        kernel = kernel.swapaxes(1, 2).reshape(n * c, n * c)
    matrices = np.moveaxis(kernel, 2, 0) if kernel.ndim == 3 else kernel[None]
    values = np.linalg.eigvalsh(matrices.astype(np.float64))
    return np.sort(values.reshape(-1))[::-1]


def _parts(kernel: Any) -> dict[str, Any]:
    """The whole kernel under its name, with its parts after it."""
    if not isinstance(kernel, dict):
        return {WHOLE: kernel}
    return {WHOLE: sum(kernel.values()), **kernel}


def _check_finite(folder: Path, run: SavedRun, kernels: list[dict[str, Kernel]]) -> None:
    if not all(np.isfinite(kernel[WHOLE]).all() and kernel[WHOLE].any() for kernel in kernels):
        ended = "diverged" if run.records["result"][-1] == "diverged" else "ended where its network is of no use"
        raise StoreError(
            f"The run in {folder} {ended}: its kernel there is zero or not finite; train it at a lower rate."
        )
