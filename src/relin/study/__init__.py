"""Studies: a question, a grid of runs, their records, the statistics of the answer.

Beside the names of `relin.study._public` it has each study as a class, such as `relin.study.Frequency`.
"""

from typing import TYPE_CHECKING, Any

from relin._common.lazy import names_of

if TYPE_CHECKING:
    from relin.study._public import *  # noqa: F403

_of_public, _names_of_public = names_of("relin.study._public")


def __getattr__(name: str) -> Any:
    if name[:1].isupper() and name.isalpha():
        from relin.study._registry import find, names

        if name.lower() in names():
            return find(name.lower())
    return _of_public(name)


def __dir__() -> list[str]:
    from relin.study._registry import shipped

    return sorted({*_names_of_public(), *(name.capitalize() for name in shipped())})
