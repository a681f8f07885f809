"""What decides a function, and which of it a digest tells."""

import functools
import operator
import re
import sys
import threading
import types
import weakref

import beartype
import flax.linen
import jax
import numpy as np
import optax
import pytest
import scipy.special

from relin._core.fingerprint import UnknowableError, fingerprint


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


class Slotted:
    __slots__ = ("__wrapped__", "scale")

    def __init__(self, scale):
        self.__wrapped__, self.scale = scaled, scale

    def __call__(self, x):
        return self.scale * x


class Dense:
    def __init__(self, width):
        self.width = width

    def apply(self, params, x):
        return self.width * x


Dense.__module__ = "jax"  # as a network of a library


@pytest.mark.parametrize("where", ["class", "call", "closure", "global"])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: functools.partial(scaled, n),
        lambda n: functools.update_wrapper(functools.partial(jax.nn.leaky_relu, negative_slope=n), jax.nn.leaky_relu),
        lambda n: jax.jit(jax.nn.leaky_relu, static_argnums=n - 1),
        lambda n: functools.partialmethod(scaled, n),
        lambda n: functools.singledispatchmethod(functools.partial(scaled, n)),
        lambda n: property(None, functools.partial(operator.setitem, {"n": n})),
        lambda n: optax.cosine_decay_schedule(0.1, n),
        lambda n: operator.methodcaller("sum", axis=n),
        lambda n: functools.partial(scaled, types.MappingProxyType({"n": n})),
        lambda n: functools.partial(scaled, type("Named", (str,), {"__module__": "__main__", "n": n})("name")),
        lambda n: type("Kind", (type,), {"__module__": "__main__", "n": n})("Class", (), {"__module__": "__main__"}),
        lambda n: Dense(n).apply,
        Slotted,
    ],
    ids=[
        *("partial", "wrapped partial", "jit", "partialmethod", "dispatched", "setter", "schedule", "methodcaller"),
        *("mapping", "string", "metaclass", "method", "slots"),
    ],
)
def test_what_wraps_a_function_is_told_by_all_of_its_state(make, where):
    def digest(n):
        held = make(n)
        kinds = {"class": {"held": held, "lock": threading.Lock()}, "call": {"__call__": held}}
        if where in kinds:
            return fingerprint(type("Network", (), {"__module__": "__main__", **kinds[where]})())
        code = "lambda held: lambda x: held" if where == "closure" else "lambda x: held"
        function = eval(code, {"held": held})
        return fingerprint(function(held) if where == "closure" else function)

    assert digest(1) != digest(2)
    assert digest(1) == digest(1)


def checked():
    def identity(x):
        return x

    identity.__annotations__["x"] = type("Inputs", (), {"__module__": "jax"})
    checked = beartype.beartype(identity)
    return lambda x: checked(x)


def dispatching():
    dispatching = functools.singledispatch(scaled)
    dispatching.register(str, by_settings)
    return lambda x: dispatching(x)


class Referring:
    def __init__(self):
        self.itself = weakref.ref(self)


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: flax.linen.Dense(3).apply, None),
        (lambda: lambda x, pattern=re.compile("kernel"): pattern.match(x), lambda f: f("kernel")),
        (lambda: jax.make_mesh((1,), ("examples",)), None),
        (Cached, lambda network: network(1.0, 2.0)),
        (dispatching, lambda f: f(2.0)),
        (checked, None),
        (Referring, None),
    ],
    ids=["linen", "pattern", "mesh", "cached property", "dispatching", "checked", "weak reference"],
)
def test_what_a_process_counts_and_finds_is_no_part_of_it(make, use):
    value, again = make(), make()
    before = fingerprint(value)
    if use is not None:
        use(value)
    assert fingerprint(value) == fingerprint(again) == before


def test_a_ufunc_of_a_function_is_refused():
    fingerprint([np.sin, scipy.special.expit])
    with pytest.raises(UnknowableError, match="cannot be told"):
        fingerprint(np.frompyfunc(scaled, 1, 1))


def test_files_stay_open(tmp_path):
    with (tmp_path / "notes").open("w") as file:
        fingerprint(lambda x: file.write(x))
        file.write("kept")
    assert (tmp_path / "notes").read_text() == "kept"


def test_what_is_assigned_over_a_cached_property_is():
    network = Cached()
    before = fingerprint(network)
    network.factor = 3.0
    assert fingerprint(network) != before


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
