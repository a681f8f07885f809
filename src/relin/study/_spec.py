"""Reading the settings of a study."""

import difflib
import inspect
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relin._common.files import check_depth, from_json, is_damaged, read_file
from relin._common.words import MOST_NAMES, listed, shortened
from relin.datasets._names import function, names as data_sets
from relin.study._abstract import AbstractStudy
from relin.study._errors import SpecError as SpecError
from relin.study._registry import find, load_study, names, shipped as shipped
from relin.study._settings import StudySpec


def read_spec(name: str, data: str | None = None, overrides: dict[str, Any] | None = None) -> StudySpec:
    """The settings that a study comes with, or those of a file, with what was asked for instead.

    **Arguments:**

    - `name`: a study's name, the Python file or folder of one, a TOML file of settings, or the `spec.json` in the
      folder of a study that was run.
    - `data`: the data set; the file's `[by_data.NAME]` settings for it apply.
    - `overrides`: fields to set last.

    **Raises:** `SpecError` if there is no such study, or its settings are wrong.
    """
    fields = _read(name)
    overrides = overrides or {}
    if data is None:
        data = overrides.get("data", fields.get("data", "digits"))
    by_data = _by_data(name, fields.pop("by_data", {}))
    special = by_data.get(data, {}) if isinstance(data, str) else {}
    fields = {**fields, **special, "data": data}
    try:
        kind = find({**fields, **overrides}.get("study", "frequency")).settings
    except SpecError as error:
        raise SpecError(f"The settings of study {name} are wrong: {error}") from None
    merged = {**_still_of_use(fields, overrides, kind), **overrides}
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise SpecError(f"The settings of study {name} are wrong: {problems(error, kind)}.") from None


def _still_of_use(fields: dict[str, Any], overrides: dict[str, Any], kind: type[StudySpec]) -> dict[str, Any]:
    """The settings of a file without those that belong to its network or optimiser where another one is asked for."""
    idle = set[str]()
    for owner, owned in kind.belong_to.items():
        own = fields.get(owner, kind.model_fields[owner].default)
        idle |= set(owned) if overrides.get(owner, own) != own else set()
    kept = {name: value for name, value in fields.items() if name not in idle}
    digests = kept.get("digests")
    if isinstance(digests, dict):  # those of code and data that another one takes the place of are not of these
        kept["digests"] = {name: digest for name, digest in digests.items() if name not in overrides}
    return kept


def _read(name: str) -> dict[str, Any]:
    path = Path(name)
    if name in names():  # before a folder of that name, whose code would be run
        return _defaults(find(name))
    if path.suffix == ".py" or (path / "__init__.py").is_file():
        return _defaults(load_study(path))
    if path.suffix not in (".toml", ".json"):
        raise SpecError(
            f"There is no study named {name!r}; name one of {listed(names())}, a file ending in .toml, or the Python "
            "file of a study of your own."
        )
    try:
        content = read_file(path)
    except OSError as error:
        raise SpecError(f"The study file {name} cannot be read ({error.strerror}); check its path.") from None
    if path.suffix == ".json" and is_damaged(content):
        raise SpecError(
            f"The study file {name} was changed since relin wrote it; restore it, or remove its entry relin-digest if "
            "the change is meant."
        )
    try:
        fields = from_json(content) if path.suffix == ".json" else _from_toml(content)
    except UnicodeDecodeError:
        raise SpecError(f"The study file {name} is not text in UTF-8; save it as such.") from None
    except ValueError as error:
        kind = path.suffix.removeprefix(".").upper()
        raise SpecError(f"The study file {name} is not valid {kind} ({error}); correct it there.") from None
    if not isinstance(fields, dict):
        raise SpecError(f"The study file {name} holds no settings; copy the spec.json of a study's folder.")
    return fields


def _defaults(study: type[AbstractStudy]) -> dict[str, Any]:
    """What a study's `settings.toml` says, if it has one."""
    try:
        path = Path(inspect.getfile(study)).parent / "settings.toml"
    except (TypeError, OSError):  # of a program that is no file
        return {"study": study.name}
    return {"study": study.name, **(_from_toml(path.read_bytes()) if path.is_file() else {})}


def _from_toml(content: bytes) -> dict[str, Any]:
    try:
        fields = tomllib.loads(content.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    check_depth(fields)
    return fields


def _by_data(name: str, by_data: Any) -> dict[str, dict[str, Any]]:
    """The settings for single data sets, each a table under a known name."""
    tables = by_data if isinstance(by_data, dict) else {}
    known = (*data_sets(), *filter(function, tables))
    wrong = [key for key, table in tables.items() if key not in known or not isinstance(table, dict)]
    if wrong or not isinstance(by_data, dict):
        raise SpecError(
            f"The settings of study {name} are wrong: by_data holds a table for each data set, such as "
            f"[by_data.digits], got {listed(wrong) or shortened(by_data)}; the data sets are {listed(data_sets())}."
        )
    return tables


def problems(error: ValidationError, kind: type[StudySpec]) -> str:
    """What is wrong with settings, as the end of a sentence."""
    parts = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        if not place:  # a rule about several settings names them itself
            parts.append(reason)
        elif problem["type"] == "extra_forbidden":
            parts.append(f"there is no setting {place}{_closest(place, kind)}")
        else:
            parts.append(f"{place}: {reason} (got {shortened(problem['input'])})")
    return "; ".join(parts[:MOST_NAMES])


def _closest(name: str, kind: type[StudySpec]) -> str:
    fields = list(kind.model_fields)
    near = difflib.get_close_matches(name, fields, n=1)
    return (
        f" (did you mean {near[0]}?)"
        if near
        else f" (the settings are {listed(fields)}; `relin study --settings` shows them)"
    )
