"""The data of the field, by name: read from the official files, checked, split by a fixed rule, normalised.

`load(name)` returns a `Dataset`; `names()` lists what there is; `status()` says what is on this machine.
"""

from ._dataset import Dataset as Dataset, DatasetStatus as DatasetStatus, Examples as Examples
from ._errors import DatasetError as DatasetError
from ._registry import load as load, names as names, status as status
