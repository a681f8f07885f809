"""Studies as they are asked for in Python: settings that may be objects, a progress bar, an answer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from relin._common.bar import progress_bar
from relin.study import _code
from relin.study._abstract import AbstractStudy
from relin.study._answer import Answer
from relin.study._measure import ACCURACY, Accuracy
from relin.study._settings import StudySpec
from relin.study._spec import read_spec
from relin.study._study import run_study

_OTHER_NAMES = {"network": "model", "network_options": "model_options"}


def spec_of(study: type[AbstractStudy], settings: Mapping[str, Any]) -> StudySpec:
    """The settings of a study with these in the place of the shipped ones.

    An object in the place of a name is kept, and its digest is among the settings.

    **Raises:** `SpecError` for settings that are wrong.
    """
    given, digests = dict[str, Any](), dict[str, str]()
    for name, value in settings.items():
        name = _OTHER_NAMES.get(name, name)
        if isinstance(value, Accuracy):
            given |= {name: ACCURACY} | ({} if value.margin is None else {"margin": value.margin})
            continue
        if name in study.settings.own_code and not isinstance(value, str):
            given[name], digests[name] = _code.keep(value)
        else:
            given[name] = value
    if digests:
        given["digests"] = digests
    return read_spec(study.name, overrides=given)


def answered(study: AbstractStudy, folder: str | Path, progress: bool, options: Mapping[str, Any]) -> Answer:
    folder = Path(folder)
    with progress_bar(Console(), disable=not progress) as bar:
        task = bar.add_task("preparing", total=None)

        def report(done: Any) -> None:
            bar.update(task, description=done.stage, completed=done.done, total=done.total)

        result, records = run_study(study.spec, folder, report=report, **options)
    command = f"relin.study.{type(study).__name__}(…).run({str(folder)!r})"
    return Answer(result, records, study.spec.model_dump(mode="json"), folder, command)
