"""XLA's sums on CPUs, which some releases of jaxlib get wrong: https://github.com/jax-ml/jax/issues/39103."""

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

FLAG = "--xla_cpu_experimental_ynn_fusion_type=-reduce"
"""Sums are compiled by XLA itself, and not handed to the library YNNPACK."""
WRONG = ("0.10.2", "0.11.0")
"""Releases of jaxlib with the fault. They know the flag; others may stop the process for it."""


class WrongSumsError(RuntimeError):
    """XLA computes wrong sums in this process, and nothing that it computes can be trusted."""


def jaxlib_version() -> str:
    """The installed release of jaxlib, empty if there is none."""
    try:
        return version("jaxlib")
    except PackageNotFoundError:
        return ""


def avoid_wrong_sums() -> None:
    """Sets the flag in `XLA_FLAGS`, which XLA reads when JAX starts its devices, unless the variable has such a flag.

    It comes first: XLA reads up to what is no flag of its own, such as `intra_op_parallelism_threads=1`. Where the
    variable names a file of flags, they take its place.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if not flags.lstrip().startswith("-") and os.path.isfile(flags):
        with suppress(OSError), open(flags, encoding="utf-8") as file:
            flags = file.read()
    if jaxlib_version() in WRONG and FLAG.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{FLAG} {flags}".strip()
