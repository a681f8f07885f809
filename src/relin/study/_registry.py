"""Which studies there are: those that come with relin, those of installed packages, and those of files."""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules

from relin._common.words import listed, shortened
from relin.study._abstract import AbstractStudy
from relin.study._errors import SpecError

_SHIPPED = "relin.studies"
_GROUP = "relin.studies"
"""The group of entry points under which a package names its studies, each an `AbstractStudy`."""
_of_files: dict[str, type[AbstractStudy]] = {}


@cache
def shipped() -> list[str]:
    """The names of the studies that come with relin."""
    package = find_spec(_SHIPPED)
    assert package is not None
    assert package.submodule_search_locations is not None
    return sorted(module.name for module in iter_modules(package.submodule_search_locations) if module.ispkg)


def names() -> list[str]:
    """The names of all studies that can be asked for."""
    return sorted({*shipped(), *(entry.name for entry in entry_points(group=_GROUP)), *_of_files})


def find(name: object) -> type[AbstractStudy]:
    """The study of a name. Raises `SpecError` where there is none."""
    if name in _of_files:
        return _of_files[str(name)]
    if name in shipped():
        return import_module(f"{_SHIPPED}.{name}").STUDY
    for entry in entry_points(group=_GROUP):
        if entry.name == name:
            return _checked(entry.load(), f"The entry point {name}")
    raise SpecError(
        f"There is no study {shortened(name)}; the studies are {listed(names())}, and one of your own is named by its "
        "Python file."
    )


def load(path: Path) -> type[AbstractStudy]:
    """The study `STUDY` of a Python file or of a folder with an `__init__.py`, from then on found by its name.

    The file is run: only one that the user names is.

    **Raises:** `SpecError` if it cannot be run, holds no study, or has the name of another one.
    """
    file = path / "__init__.py" if path.is_dir() else path
    module_name = f"_relin_study_{file.resolve().parent.name}_{file.stem}".replace("-", "_")
    found = spec_from_file_location(module_name, file, submodule_search_locations=[str(file.parent)])
    if not file.is_file() or found is None or found.loader is None:
        raise SpecError(f"The study {path} is no Python file; name a file that defines STUDY, or its folder.")
    module = sys.modules[module_name] = module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise SpecError(
            f"The study {path} cannot be run ({type(error).__name__}: {error}); correct it there."
        ) from error
    study = _checked(getattr(module, "STUDY", None), f"The file {file}")
    if study.name in shipped():
        raise SpecError(f"The study {path} is named {study.name!r}, as one of relin is; give it another name.")
    _of_files[study.name] = study
    return study


def _checked(study: object, place: str) -> type[AbstractStudy]:
    if not (isinstance(study, type) and issubclass(study, AbstractStudy)):
        raise SpecError(f"{place} must give a subclass of relin.study.AbstractStudy as STUDY, got {shortened(study)}.")
    return study
