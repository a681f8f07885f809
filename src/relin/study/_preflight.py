"""What is worth knowing of a run before it is trained."""

import relin as il
from relin.study._grid import check_seed
from relin.study._run_factory import LOSSES
from relin.study._runner import Runner, first
from relin.study._settings import GridSpec


def preflight(spec: GridSpec, seed: int, data_dir: str | None = None) -> il.Preflight:
    """`relin.check` of a study's network on a batch of its data, with the initial parameters of a seed.

    **Raises:** `ValueError` for settings that cannot be run.
    """
    check_seed(seed)
    runner = Runner(spec, data_dir)
    problem = il.Problem(runner.network, LOSSES[spec.loss]())
    return il.check(problem, runner.initial(seed), first(runner.data, spec.batch_size))
