import gc
import hashlib
import os
import platform
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from relin.report import _figures, _style

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
MOST_MAPPINGS = 30_000
"""Linux allows 65 530 to a process, and XLA crashes where it gets no more."""
QUICK_TO_COMPILE = "--xla_cpu_use_fusion_emitters=false"
"""Halves what XLA takes to compile a small program on a CPU; jaxlib knows the flag up to version 0.10."""


def pytest_addoption(parser):
    help_text = "compile as users' programs are compiled; otherwise code that is quickly compiled, where little is run"
    parser.addoption("--as-shipped", action="store_true", help=help_text)


def pytest_configure(config):
    """Compiles quickly, and once: each process of the tests keeps its programs, and those of what it starts. Looks
    rarely for garbage, which in a process that keeps so much takes a tenth of the time."""
    gc.set_threshold(100_000, 20, 50)
    as_shipped = config.getoption("as_shipped")
    if not as_shipped:  # here see `compiler`
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
        if jax.__version_info__ < (0, 11):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}".strip()
    if hasattr(config, "cache"):
        worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
        folder = f"{'shipped' if as_shipped else 'quick'}-{processor()}-{worker}"
        settings = {
            "jax_compilation_cache_dir": str(config.cache.mkdir(folder)),
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        for name, value in settings.items():
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)


def processor():
    """A name for this kind of processor: programs compiled for another one may crash."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
    return hashlib.sha256(flags.encode()).hexdigest()[:8]


def num_mappings():
    """How many pieces of memory this process has mapped: a few for every compiled program."""
    try:
        return Path("/proc/self/maps").read_bytes().count(b"\n")
    except OSError:
        return 0


@pytest.fixture(scope="module", autouse=True)
def compiler(request):
    """Compiles without optimising, except modules marked `as_shipped`: they compare to the last bit, or time."""
    quickly = request.node.get_closest_marker("as_shipped") is None
    changed = jax.config.read("jax_disable_most_optimizations") != quickly
    if changed or num_mappings() > MOST_MAPPINGS:
        jax.config.update("jax_disable_most_optimizations", quickly)
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def same_random_numbers(request):
    """A module's `RNG` begins anew for each test, whose data then do not depend on the tests before it."""
    if hasattr(request.module, "RNG"):
        request.module.RNG = np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def rough_figures():
    """Draws figures at a low resolution, with fonts that are quickly written; gives what is shipped."""
    shipped = _figures.PNG_DPI, _style.PDF_FONT_TYPE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_figures, "PNG_DPI", 30)
        patch.setattr(_style, "PDF_FONT_TYPE", 3)
        yield shipped


def pytest_collection_modifyitems(items):
    """The longest test first, beside which others run. Outside CI, leaves out the tests of what `tools/system-packages`
    could not install; in CI these fail."""
    items.sort(key=lambda item: item.path.name != "test_kills.py")
    if os.environ.get("CI"):
        return
    browser, data = any(map(shutil.which, BROWSERS)), FASHION_MNIST.exists()
    for item in items:
        if "browse" in item.fixturenames and not browser:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))
        if item.get_closest_marker("fashion_mnist") and not data:
            item.add_marker(pytest.mark.skip(reason="Fashion-MNIST is not installed"))
