"""Code of the user's own: named by its place, `FILE.py:name` or `package.module:name`, known by a digest of its text.

A study's settings hold both, so that a changed file is another study. Code is run only where a study trains.
"""

import hashlib
import inspect
import re
import sys
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from relin.datasets._dataset import Dataset
from relin.study._errors import SpecError

_PLACE = re.compile(r"(?P<source>.+\.py|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_IN_MEMORY: dict[tuple[str, str], Any] = {}
"""Objects that were given in Python, by place and digest."""
_FORMS = "FILE.py:NAME or package.module:NAME"


def is_place(text: str) -> bool:
    """Whether a text has the form of a place, `FILE.py:NAME` or `package.module:NAME`."""
    return _PLACE.fullmatch(text) is not None


def is_code(text: str) -> bool:
    """Whether a text names code: a place, or what stands for an object that was given in Python."""
    return is_place(text) or "::" in text


def name_of(place: str) -> str:
    """What is named, without where it is."""
    return place.rpartition(":")[2].rpartition("<locals>.")[2]


def digest_of(place: str) -> str:
    """What identifies the code of a place: SHA-256 of its file, and the version of its package if it has one.

    Nothing is run, but the packages above a module are imported.

    **Raises:** `SpecError` if there is no such file or module.
    """
    source = _source(place)
    if not source.endswith(".py"):
        return f"{_version(source)}sha256:{_sha(_file_of(source, place).read_bytes())}"
    try:
        return f"sha256:{_sha(Path(source).read_bytes())}"
    except OSError as error:
        raise SpecError(f"The file of {place} cannot be read ({error.strerror}); check its path.") from None


def load(place: str, digest: str) -> Any:
    """The object of a place. Its file is run, once.

    **Raises:** `SpecError` if it cannot be, if there is no such name in it, or if it is not the code of the digest.
    """
    if (place, digest) in _IN_MEMORY:
        return _IN_MEMORY[place, digest]
    if not is_place(place):
        raise SpecError(
            f"{place} was an object of another process; give the study in Python again to train more of it."
        )
    if digest_of(place) != digest:
        raise SpecError(f"The code of {place} has changed since the study began; restore it, or choose another folder.")
    source = _source(place)
    try:
        module = _run_file(Path(source)) if source.endswith(".py") else import_module(source)
    except Exception as error:
        raise SpecError(f"{source} cannot be run ({type(error).__name__}: {error}); correct it there.") from error
    name = name_of(place)
    if not hasattr(module, name):
        raise SpecError(f"{source} has no {name}; name one of its functions after the colon.")
    return getattr(module, name)


def keep(value: Any) -> tuple[str, str]:
    """A place and a digest for an object that was given in Python, so that `load` gives it back in this process.

    A function's digest is of its source text and of what it closes over, with the functions it calls by name in its own
    module; that of another object of its type and, where it has one, its `repr`.
    """
    function = value.func if isinstance(value, partial) else value
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", type(value).__qualname__)
    place = f"{module or type(value).__module__}::{name}"  # of this process, not of a file
    if isinstance(value, Dataset):
        place = f"Data::{value.name}"
    digest = f"sha256:{_sha(repr(_described(value, set())).encode())}"
    _IN_MEMORY[place, digest] = value
    return place, digest


def _described(value: Any, seen: set[int]) -> Any:
    """What tells objects apart that were given in Python: the same in every process, as far as that can be known."""
    import numpy as np

    from relin.datasets._identity import identity

    if id(value) in seen:
        return "seen"
    if isinstance(value, Dataset):
        return "dataset", identity(value)
    if isinstance(value, str | bytes | int | float | complex | bool | None):
        return value
    seen.add(id(value))
    inner = partial(_described, seen=seen)
    if isinstance(value, partial):
        return "partial", inner(value.func), inner(value.args), inner(value.keywords)
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        called = [value.__globals__[name] for name in _names(value.__code__) if name in value.__globals__]
        own = [f for f in called if isinstance(f, FunctionType | type) and f.__module__ == value.__module__]
        numbers = [f for f in called if isinstance(f, str | bytes | int | float | np.ndarray)]
        return "function", _text(value), *map(inner, (cells, value.__defaults__, value.__kwdefaults__, own, numbers))
    if isinstance(value, type):
        return "class", value.__qualname__, _text(value)
    if isinstance(value, dict):
        return "dict", [(inner(key), inner(one)) for key, one in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [inner(one) for one in value]
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return "array", array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()
    if isinstance(value, ModuleType):
        return "module", value.__name__
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return type(value).__module__, type(value).__qualname__, text


def _is_empty(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def _names(code: CodeType) -> list[str]:
    """The globals that a function and those defined in it name."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return sorted({*code.co_names, *(name for one in inner for name in _names(one))})


def _text(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts, code.co_names)) if code else repr(function)


def _source(place: str) -> str:
    found = _PLACE.fullmatch(place)
    if found is None:
        raise SpecError(f"Code of your own is named as {_FORMS}, got {place!r}.")
    return found["source"]


def _file_of(module: str, place: str) -> Path:
    try:
        found = find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise SpecError(f"There is no module {module} for {place}; install its package, or name a file: FILE.py:NAME.")
    return Path(found.origin)


def _version(module: str) -> str:
    names = packages_distributions().get(module.partition(".")[0], [])
    try:
        return f"{names[0]} {version(names[0])} " if names else ""
    except PackageNotFoundError:
        return ""


def _run_file(path: Path) -> ModuleType:
    """The module of a file, which finds the files beside it, as a script does."""
    file = path.resolve()
    name = f"_relin_code_{_sha(str(file).encode())[:12]}_{_sha(file.read_bytes())[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    found = spec_from_file_location(name, file)
    assert found is not None
    assert found.loader is not None
    module = sys.modules[name] = module_from_spec(found)
    sys.path.insert(0, str(file.parent))
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.parent))
    return module


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
