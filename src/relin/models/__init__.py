"""The networks of the field, by name or as classes; each maps one example, channels last, to C logits."""

from typing import TYPE_CHECKING

from relin._common.lazy import names_of

if TYPE_CHECKING:
    from relin.models._public import *  # noqa: F403

__getattr__, __dir__ = names_of("relin.models._public")
