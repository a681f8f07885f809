"""Which studies there are: those that come with relin, those of installed packages, and those of files and programs."""

import hashlib
import re
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules

from relin._common.words import listed, shortened
from relin.study._abstract import AbstractStudy
from relin.study._errors import SpecError
from relin.study._settings import StudySpec

_SHIPPED = "relin.studies"
_GROUP = "relin.studies"
"""The group of entry points under which a package names its studies, each an `AbstractStudy`."""
_named: dict[str, type[AbstractStudy]] = {}
"""Those of files, and those registered."""


@cache
def shipped() -> list[str]:
    """The names of the studies that come with relin."""
    package = find_spec(_SHIPPED)
    assert package is not None
    assert package.submodule_search_locations is not None
    return sorted(module.name for module in iter_modules(package.submodule_search_locations) if module.ispkg)


def names() -> list[str]:
    """The names of all studies that can be asked for."""
    return sorted({*shipped(), *(entry.name for entry in entry_points(group=_GROUP)), *_named})


def find(name: object) -> type[AbstractStudy]:
    """The study of a name. Raises `SpecError` where there is none."""
    if name in _named:
        return _named[str(name)]
    if name in shipped():
        return import_module(f"{_SHIPPED}.{name}").STUDY
    for entry in entry_points(group=_GROUP):
        if entry.name == name:
            return _installed(entry)
    raise SpecError(
        f"There is no study {shortened(name)}; the studies are {listed(names())}, and one of your own is named by its "
        "Python file."
    )


def _installed(entry: EntryPoint) -> type[AbstractStudy]:
    place = f"The entry point {entry.name} = {entry.value}"
    try:
        study = entry.load()
    except Exception as error:
        raise SpecError(
            f"{place} cannot be loaded ({type(error).__name__}: {error}); correct or remove the package it comes with."
        ) from error
    if _checked(study, place).name != entry.name:
        raise SpecError(f"{place} gives a study named {study.name!r}; call both the same.")
    return study


def load_study(path: Path) -> type[AbstractStudy]:
    """The study `STUDY` of a Python file or of a folder with an `__init__.py`, from then on found by its name.

    The file is run: only one that the user names is.

    **Raises:** `SpecError` if it cannot be run, holds no study, or has the name of another one.

    **Arguments:**

    - `path`: the file or the folder.
    """
    file = (path / "__init__.py" if path.is_dir() else path).resolve()
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]  # files of one name are modules of two
    module_name = f"_relin_study_{digest}"
    found = spec_from_file_location(module_name, file, submodule_search_locations=[str(file.parent)])
    if not file.is_file() or found is None or found.loader is None:
        raise SpecError(f"The study {path} is no Python file; name a file that defines STUDY, or its folder.")
    for name in [name for name in sys.modules if name.split(".")[0] == module_name]:
        del sys.modules[name]  # a file that was changed is read again, with what it imports beside it
    module = sys.modules[module_name] = module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise SpecError(
            f"The study {path} cannot be run ({type(error).__name__}: {error}); correct it there."
        ) from error
    return register(_checked(getattr(module, "STUDY", None), f"The file {file}"))


def register(study: type[AbstractStudy]) -> type[AbstractStudy]:
    """Makes a study found by its name in this process; a class decorator.

    **Raises:** `SpecError` if it is no study, or has the name of one that is installed or was defined elsewhere.

    **Arguments:**

    - `study`: the class; it is returned.
    """
    name = _checked(study, "register").name
    if name in shipped() or any(entry.name == name for entry in entry_points(group=_GROUP)):
        raise SpecError(f"The study {name!r} of {study.__module__} has the name of an installed one; rename it.")
    if name in _named and _named[name].__module__ != study.__module__:
        raise SpecError(f"Two studies are named {name!r}; rename one, or use them in processes of their own.")
    _named[name] = study
    return study


def _checked(study: object, place: str) -> type[AbstractStudy]:
    """The study, if a name, settings of that name, and all that it must define are there."""
    if not (isinstance(study, type) and issubclass(study, AbstractStudy)):
        raise SpecError(f"{place} must give a subclass of relin.study.AbstractStudy as STUDY, got {shortened(study)}.")
    name, settings = getattr(study, "name", None), getattr(study, "settings", None)
    if not isinstance(name, str) or re.fullmatch(r"[a-z][a-z0-9_-]*", name) is None:
        raise SpecError(
            f"{place} must give a study whose `name` is of small letters, digits, - and _, got {shortened(name)}."
        )
    if not (isinstance(settings, type) and issubclass(settings, StudySpec)):
        raise SpecError(
            f"{place} must give a study whose `settings` are a subclass of relin.study.StudySpec, got "
            f"{shortened(settings)}."
        )
    if settings.model_fields["study"].default != name:
        raise SpecError(
            f'{place} must give settings with the field `study: Literal["{name}"] = "{name}"`, by which stored ones '
            f"are known again, got the default {shortened(settings.model_fields['study'].default)}."
        )
    if missing := sorted(getattr(study, "__abstractmethods__", ())):
        raise SpecError(f"{place} must give a study that defines {listed(missing)}.")
    if absent := [module for module in study.modules_needed() if not study.has_beside(module)]:
        raise SpecError(f"{place} must give a study with {listed(f'{module}.py' for module in absent)} beside it.")
    return study
