import dataclasses
import os

import pytest

from relin.datasets import _sources


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Every test has an empty cache of its own, and no folder of the operating system is searched."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("RELIN_CACHE", os.fspath(cache))
    fashion = _sources.SOURCES["fashion-mnist"]
    monkeypatch.setitem(_sources.SOURCES, "fashion-mnist", dataclasses.replace(fashion, system_folders=()))
    return cache / "datasets"
