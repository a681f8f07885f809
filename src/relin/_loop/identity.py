"""What decides a run, by digests that tell another one."""

from collections.abc import Iterator
from typing import Any

import jax

from relin._core.fingerprint import UnknowableError, fingerprint
from relin._logger import Journal
from relin._loop.checkpoint import Checkpoint, Keeper
from relin._loop.preparation import Plan
from relin._loop.reached import Reached
from relin._loop.solution import Solution


def keeper_of(
    checkpoint: Checkpoint | None, plan: Plan, record_every: int | None, make: Any = None, lanes: Any = None
) -> Keeper | None:
    """What keeps the state of a plan's run, or of the runs that `make` makes of lanes, which run together; none without
    a checkpoint.

    **Raises:** `TypeError` for anything but a `Checkpoint`, `ValueError` for a part that cannot be told from another
    one, for infinitely many steps, and for a run over several processes.
    """
    if checkpoint is None:
        return None
    if not isinstance(checkpoint, Checkpoint):
        raise TypeError(
            f"`checkpoint` must be a relin.Checkpoint, got {type(checkpoint).__name__}; pass "
            'relin.Checkpoint("folder").'
        )
    if isinstance(plan.num_steps, float):
        raise ValueError(
            "The limit of infinitely many steps is one computation, with nothing to keep on the way; leave checkpoint "
            "out."
        )
    if plan.placement is not None and plan.placement.mesh.is_multi_process:
        raise ValueError(
            "A run over several processes, of which each holds a part, cannot be kept in a checkpoint; leave "
            "checkpoint out, or take a mesh of the devices of one process."
        )
    run: dict[str, Any]
    if checkpoint.identity is None:
        parts = _parts(plan) | ({} if make is None else {"make": make, "lanes": lanes})
        run = {name: _digest(name, part) for name, part in parts.items()}
    else:
        run = dict(checkpoint.identity)
    run["configuration of JAX"] = _configuration()
    run |= {"record_every": record_every, "drive": plan.drive, "num_steps": plan.num_steps}
    spread = "on one device" if plan.placement is None else f"over a mesh {dict(plan.placement.mesh.shape)}"
    return Keeper(checkpoint, run, spread)


def journal_of(keeper: Keeper | None) -> Journal | None:
    """What says which records of the run loggers have taken, in the folder of its state."""
    if keeper is None:
        return None
    run = {name: part for name, part in keeper.identity.items() if name != "num_steps"}
    return Journal(keeper.folder / "loggers.jsonl", run)


def _configuration() -> dict[str, Any]:
    """What changes random numbers, batches and number formats."""
    names = ("jax_enable_x64", "jax_threefry_partitionable", "jax_default_prng_impl", "jax_default_matmul_precision")
    return {name: getattr(jax.config, name) for name in names}


def _parts(plan: Plan) -> dict[str, Any]:
    run, data = plan.run, plan.data
    shared = {
        "batches": plan.sampling.batches,
        "augment": plan.sampling.augment,
        "data": data if isinstance(data, tuple) else "an iterable of batches",
        "observers": plan.observers,
    }
    own = {name: getattr(run, name) for name in ("problem", "solver", "schedule", "safeguard", "params", "key")}
    return own | shared


def _digest(name: str, part: Any) -> str:
    try:
        return fingerprint(part)
    except UnknowableError as error:
        raise ValueError(
            f"A checkpoint must know a run again, which the {name} of this one does not allow: {error}; make it of "
            "functions, arrays and plain objects, or leave checkpoint out."
        ) from None


def reached_by(resume: Solution | None, data: Any, num_steps: int | float, keeper: Keeper | None) -> Reached | None:
    """Where a solution's run is.

    **Raises:** `ValueError` for a solution that was loaded, that has taken more steps, or whose batches cannot be gone
    through again, and beside a checkpoint, which says where the run is too; `TypeError` for anything else.
    """
    if resume is None:
        return None
    if keeper is not None:
        raise ValueError("Both `checkpoint` and `resume` say where the run goes on; leave one of them out.")
    if not isinstance(resume, Solution):
        raise TypeError(f"`resume` must be a relin.Solution, got {type(resume).__name__}; pass what `train` returned.")
    if resume.reached is None:
        raise ValueError(
            "`resume` was read from a file, which holds parameters and records alone; pass a solution that `train` "
            "returned, or train with checkpoint=relin.Checkpoint(folder)."
        )
    if resume.reached.step > num_steps:
        raise ValueError(f"`resume` is at step {resume.reached.step}, got num_steps={num_steps}; pass a larger T.")
    if isinstance(data, Iterator) or hasattr(data, "state_dict"):
        raise ValueError(
            "`data` is an iterator or a loader with a state, and how far it has gone is not known; pass an iterable "
            "that begins anew, such as a list, or train with checkpoint=relin.Checkpoint(folder)."
        )
    return resume.reached
