"""The data of the field, by name: read from the official files, checked, split by a fixed rule, normalised.

`load(name)` returns a `Dataset`; `names()` lists what there is; `status()` says what is on this machine. `text` and
`table` read what you have, as do names such as `FILE.npz`; `from_arrays` takes arrays.
"""

from typing import TYPE_CHECKING

from relin._common.lazy import names_of

if TYPE_CHECKING:
    from relin.datasets._public import *  # noqa: F403

__getattr__, __dir__ = names_of("relin.datasets._public")
