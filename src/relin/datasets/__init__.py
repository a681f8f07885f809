"""The data of the field, by name: read from the official files, checked, split by a fixed rule, normalised.

`load(name)` returns a `Dataset`; `names()` lists what there is; `status()` says what is on this machine. `text` and
`table` read what you have.
"""

from relin.datasets._dataset import Dataset as Dataset, DatasetStatus as DatasetStatus, Examples as Examples
from relin.datasets._errors import DatasetError as DatasetError
from relin.datasets._registry import is_known as is_known, load as load, names as names, status as status
from relin.datasets._table import table as table
from relin.datasets._text import text as text
