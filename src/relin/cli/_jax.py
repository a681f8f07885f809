"""What the command line asks of JAX before it is used."""

import os
import sys
from pathlib import Path


def prepare() -> None:
    """Keeps compiled programs in the user's cache folder, so that the next run of the same study starts at once.

    Who told JAX where to keep them, by `JAX_COMPILATION_CACHE_DIR`, is obeyed.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    import platformdirs

    folder = Path(os.environ.get("RELIN_CACHE") or platformdirs.user_cache_dir("relin")) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # without a cache everything still works, a little later
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.2}
    for name, value in settings.items():
        if jax := sys.modules.get("jax"):
            jax.config.update(name, value)
        else:
            os.environ[name.upper()] = str(value)  # JAX reads it when it is imported, if it ever is
