"""Code of the user's own: named by its place, `FILE.py:name` or `package.module:name`, known by a digest of its text.

A study's settings hold both, so that a changed file is another study. Code is run only where a study trains.
"""

import hashlib
import re
import sys
import tempfile
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from relin.datasets._dataset import Dataset
from relin.study._errors import SpecError
from relin.study._measure import Measure

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
    return _named(place, _source(place))


def _named(place: str, source: str) -> Any:
    """What a place names, in a file or a module."""
    try:
        module = _run_file(Path(source)) if source.endswith(".py") else import_module(source)
    except Exception as error:
        raise SpecError(f"{source} cannot be run ({type(error).__name__}: {error}); correct it there.") from error
    name = name_of(place)
    if not hasattr(module, name):
        raise SpecError(f"{source} has no {name}; name one of its functions after the colon.")
    return getattr(module, name)


def is_file(place: str) -> bool:
    """Whether a place is in a file, and not in a package."""
    return _source(place).endswith(".py")


def text_of(place: str) -> bytes:
    """The text of a place's file. Raises `SpecError` if there is no such file."""
    digest_of(place)
    return Path(_source(place)).read_bytes()


def receive(place: str, digest: str, text: bytes) -> None:
    """Makes `load` find a place in a process that may not have its file, which is run alone, from its text.

    **Raises:** `SpecError` as `load`.
    """
    if f"sha256:{_sha(text)}" != digest:
        raise SpecError(f"The code of {place} has changed since the study began; restore it, or choose another folder.")
    path = Path(_received().name, _sha(text), Path(_source(place)).name)  # one for all names in it: it is run once
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    _IN_MEMORY[place, digest] = _named(place, str(path))


@cache
def _received() -> tempfile.TemporaryDirectory[str]:
    """The folder of the files that were received, which is removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="relin-", ignore_cleanup_errors=True)


def load_measure(place: str, digest: str) -> Measure:
    """The measure of a place.

    **Raises:** `SpecError` as `load`, and if it is none.
    """
    measure = load(place, digest)
    if not isinstance(measure, Measure):
        raise SpecError(
            f"{name_of(place)} must be a relin.study.Measure, got {type(measure).__name__}; write "
            'study.Measure(FUNCTION, "NAME", margin=MARGIN).'
        )
    return measure


def keep(value: Any) -> tuple[str, str]:
    """A place and a digest for an object that was given in Python, so that `load` gives it back in this process.

    **Raises:** `SpecError` where it cannot be told from another one, see `fingerprint`.
    """
    from relin._core.fingerprint import UnknowableError, fingerprint

    function = value.func if isinstance(value, partial) else value
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", type(value).__qualname__)
    place = f"{module or type(value).__module__}::{name}"  # of this process, not of a file
    if isinstance(value, Dataset):
        place = f"Data::{value.name}"
    described = value
    if isinstance(value, Measure):  # its margin is a setting
        place = f"Measure::{value.name}"
        described = ("measure", value.name, value.higher_is_better, value.unit, value.untrained, value.function)
    try:
        digest = fingerprint(described)
    except UnknowableError as error:
        raise SpecError(
            f"A study must be known again when it goes on, which this object does not allow: {error}; define it in a "
            "file, and name that: FILE.py:NAME."
        ) from None
    _IN_MEMORY[place, digest] = value
    return place, digest


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
    before = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.parent))
    for other in set(sys.modules) - before:  # another folder may have files of the same names
        if Path(getattr(sys.modules[other], "__file__", None) or "/").parent == file.parent:
            del sys.modules[other]
    return module


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
