"""Everything public in `relin.datasets`, imported at its first use."""

from relin.datasets._assemble import from_arrays as from_arrays
from relin.datasets._dataset import Dataset as Dataset, DatasetStatus as DatasetStatus, Examples as Examples
from relin.datasets._errors import DatasetError as DatasetError
from relin.datasets._identity import identity as identity
from relin.datasets._names import is_known as is_known, names as names
from relin.datasets._registry import load as load, status as status
from relin.datasets._table import table as table
from relin.datasets._text import text as text
