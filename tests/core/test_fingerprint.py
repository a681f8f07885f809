"""What decides a function, and which of it a digest tells."""

import functools
import sys
import types

import pytest

from relin._core.fingerprint import fingerprint


class Settings:
    scale = 1.0


class Base:
    scale = 1.0


class Network(Base):
    inner = types.SimpleNamespace(scale=1.0)

    def __call__(self, params, x):
        return self.scale * self.inner.scale * x


SCALE = 1.0


def scaled(x):
    return SCALE * x


class Cached:
    @functools.cached_property
    def factor(self):
        return scaled(1.0)

    def __call__(self, params, x):
        return self.factor * x


def by_settings(params, x):
    return Settings.scale * x


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (by_settings, (Settings, "scale")),
        (Network(), (Base, "scale")),
        (Network(), (Network.inner, "scale")),
        (Cached(), (sys.modules[__name__], "SCALE")),
    ],
    ids=["a class", "an inherited attribute", "an object of a class", "below a cached property"],
)
def test_what_a_class_holds_is_part_of_a_function(monkeypatch, function, change):
    before = fingerprint(function)
    monkeypatch.setattr(*change, 2.0)
    assert fingerprint(function) != before
    monkeypatch.undo()
    assert fingerprint(function) == before


def test_so_is_what_it_reaches_through_a_package(tmp_path, monkeypatch):
    package = tmp_path / "package_of_the_test"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner" / "__init__.py").write_text("from .. import inner as again\nfrom . import networks\n")
    networks = package / "inner" / "networks.py"
    networks.write_text("SCALE = 2.0\n\ndef network(x):\n    return SCALE * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import package_of_the_test  # pyright: ignore[reportMissingImports]

    module = package_of_the_test.inner.networks
    function = eval("lambda p, x: package_of_the_test.inner.networks.network(x)", {"package_of_the_test": package_of_the_test})  # noqa: E501  # fmt: skip
    before = fingerprint(function)
    assert fingerprint(function) == before
    monkeypatch.setattr(module, "SCALE", 3.0)
    assert fingerprint(function) != before
