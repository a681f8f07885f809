import os
import shutil
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIMISED = ("test_ordinary", "test_framework_loops", "test_looks")
"""Modules that compare results to the last bit, or time: what they compile is what users get."""
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def pytest_configure(config):
    """Compiles what is compiled in many tests once: each process of the tests keeps its programs in pytest's cache."""
    folder = config.cache.mkdir(f"compiled-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def compiler(request):
    """Compiles fast code slowly where that is what is tested, and elsewhere, where little is run, slow code fast."""
    fast_to_compile = Path(request.fspath).stem not in OPTIMISED
    if jax.config.read("jax_disable_most_optimizations") != fast_to_compile:
        jax.config.update("jax_disable_most_optimizations", fast_to_compile)
        jax.clear_caches()


def pytest_collection_modifyitems(items):
    """Outside CI, leaves out the tests of what `tools/system-packages` could not install; in CI these fail."""
    if os.environ.get("CI"):
        return
    browser, data = any(map(shutil.which, BROWSERS)), FASHION_MNIST.exists()
    for item in items:
        if "browse" in item.fixturenames and not browser:
            item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))
        if item.get_closest_marker("fashion_mnist") and not data:
            item.add_marker(pytest.mark.skip(reason="Fashion-MNIST is not installed"))
