"""A kernel's file: which of its blocks are done, of which kernel, and whether they are as they were written.

`kernel.npy` is there when all of it is. Until then `kernel.npy.partial` has its place, and `kernel.npy.json` says which
blocks are on the disk. Rows are written and not mapped into memory: on a full disk a mapped write ends the process.
"""

import contextlib
import io
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from relin._common.files import as_json, from_json, read_file, remove_parts, write_atomically
from relin._common.lease import SoleWriter
from relin._common.words import listed
from relin._common.writing import named
from relin._core.fingerprint import UnknowableError, fingerprint
from relin._core.types import Inputs, Params
from relin.kernel._file_blocks import Block, as_written, digest, mirror_image

_FORMAT = 1


class Description(NamedTuple):
    """What is said beside a kernel's file."""

    kernel: dict[str, Any]
    """What it is of, by names that people know."""
    symmetric: bool
    environment: str
    """What the last digits depend on beside it."""
    total: int
    """How many blocks it has."""
    blocks: dict[str, str]
    """Those that are done, with their digests."""


class OtherKernelError(ValueError):
    """The place holds another kernel, or what is no kernel."""


def beside(path: Path) -> Path:
    """The file that describes a kernel's."""
    return path.with_name(f"{path.name}.json")


def partial(path: Path) -> Path:
    """A kernel's file until it is whole."""
    return path.with_name(f"{path.name}.partial")


def described(path: Path) -> Description | None:
    """What is said beside a kernel's file; none where nothing is.

    **Raises:** `OtherKernelError` for a damaged description, and one of another format.
    """
    try:
        found = from_json(read_file(beside(path)))
        known = found["format"] == _FORMAT
        description = Description(**{name: found[name] for name in Description._fields}) if known else None
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):
        raise OtherKernelError(
            f"{beside(path)} is damaged; restore it, or remove it and {path} to begin anew."
        ) from None
    if description is None:
        raise OtherKernelError(f"{beside(path)} has another format; use the version of relin that wrote it.")
    return description


def origin(apply: Callable, params: Params, x: Inputs) -> dict[str, str]:
    """Digests of what a kernel is of.

    **Raises:** `ValueError` for a network that holds what cannot be told from another one.
    """
    try:
        return {"network": fingerprint(apply), "parameters": fingerprint(params), "x1": fingerprint(x)}
    except UnknowableError as error:
        raise ValueError(
            "A kernel in a file must be known again by the next call, which this one does not allow: "
            f"{error}; make `apply` of functions, arrays and plain objects."
        ) from None


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The names under which two kernels differ."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


class KernelFile:
    """A kernel's file while it is made; `done` are the digests of the blocks that need not be made again."""

    def __init__(self, path: Path, description: Description, shape: Sequence[int], dtype: np.dtype):
        self.path, self.description, self.shape, self.dtype = path, description, tuple(shape), dtype
        self.done = dict[str, str]()
        self._file: io.FileIO | None = None
        self._compared: Any = None
        self._sole = SoleWriter(path, path.absolute().parent, path.name)
        self._header = _header(self.shape, dtype)
        self._size = math.prod(self.shape) * dtype.itemsize

    @contextlib.contextmanager
    def opened(self, blocks: Sequence[Block]) -> Iterator[None]:
        """The file is ours alone meanwhile, and what is done of it has been compared with its digests. At the end it is
        whole, unless blocks are missing.

        **Raises:** `OtherKernelError` where the place holds anything else; `InUseError` where another process makes it;
        `ValueError` for a disk that is too small; `OSError` where the folder cannot be written.
        """
        with contextlib.ExitStack() as entered:
            if not self._is_whole(blocks):
                with named(self.path):
                    self._sole.take()
                entered.callback(self._sole.leave)
                if not self._is_whole(blocks):  # nor made by another process meanwhile
                    entered.enter_context(self._made(blocks))
            yield

    def _is_whole(self, blocks: Sequence[Block]) -> bool:
        found = self._found()
        if found is None or not self.path.exists():
            return False
        self._check_own(self.path)
        self._compare(self.path, blocks, found)
        return len(self.done) == len(blocks)

    def _compare(self, path: Path, blocks: Sequence[Block], found: Description | None) -> bool:
        """Whether a file is laid out as ours; of one that is, finds what is done, and reads it only if it has changed
        since."""
        if found is None or not self._is_laid_out(path):
            return False
        state = path.stat()
        seen = state.st_ino, state.st_mtime_ns, found.blocks
        if seen != self._compared:
            self.done, self._compared = as_written(path, blocks, found.blocks), seen
        return True

    @contextlib.contextmanager
    def _made(self, blocks: Sequence[Block]) -> Iterator[None]:
        if self.path.exists():
            os.replace(self.path, partial(self.path))
        with named(self.path), partial(self.path).open("ab"):  # where there is none yet, an empty one
            pass
        with partial(self.path).open("r+b", buffering=0) as self._file:  # closing it writes nothing, and cannot fail
            remove_parts(self.path.absolute().parent, beside(self.path).name)
            if not self._compare(partial(self.path), blocks, self._found()):
                with named(self.path):
                    self._lay_out()
            yield
        if len(self.done) == len(blocks):
            with named(self.path):
                self._sole.keep()
                os.replace(partial(self.path), self.path)

    def write(self, block: Block, values: np.ndarray) -> None:
        """The block is done when it is on the disk. Raises `OSError`, and `InUseError` if another process goes on."""
        assert self._file is not None
        with named(self.path):
            self._sole.keep()
            self._put(block.row, block.column, values)
            if block.mirrored:
                self._put(block.column, block.row, mirror_image(values))
            os.fsync(self._file.fileno())
        self.done[block.name] = digest([values])
        self._describe()

    def _found(self) -> Description | None:
        """The description that is there, if it is of this kernel."""
        found = described(self.path)
        if found is None:
            if self.path.exists():
                raise OtherKernelError(
                    f"{self.path} is there without {beside(self.path).name}, which would say of which kernel it is; "
                    "remove it, or choose another place."
                )
            return None
        if other := differing(self.description.kernel, found.kernel):
            raise OtherKernelError(
                f"{self.path} is of a kernel that differs in {listed(other)}; choose another place, or remove it and "
                f"{beside(self.path).name} to begin anew."
            )
        if found.environment != self.description.environment:
            warnings.warn(
                f"{self.path} was begun by {found.environment}, and goes on with {self.description.environment}: the "
                "last digits of its blocks may differ.",
                stacklevel=2,
            )
        return found

    def _check_own(self, path: Path) -> None:
        """Raises `OtherKernelError` for a file that does not begin as ours does."""
        with path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                raise OtherKernelError(
                    f"{path} is not the kernel that {beside(self.path).name} describes; choose another place, or "
                    "remove both to begin anew."
                )

    def _is_laid_out(self, path: Path) -> bool:
        with path.open("rb") as file:
            right = file.read(len(self._header)) == self._header
        return right and path.stat().st_size == len(self._header) + self._size

    def _lay_out(self) -> None:
        assert self._file is not None
        own = getattr(os.fstat(self._file.fileno()), "st_blocks", 0) * 512  # of what is laid out anew
        free = shutil.disk_usage(self.path.absolute().parent).free + own
        if self._size > free:
            raise ValueError(
                f"{self.path} takes {self._size / 1e9:.3g} GB, and {free / 1e9:.3g} GB of the disk are free; choose "
                "another place, or fewer examples."
            )
        self.done = {}
        self._describe()
        self._file.truncate(0)
        self._write(self._header)
        self._file.truncate(len(self._header) + self._size)

    def _put(self, row: int, column: int, values: np.ndarray) -> None:
        assert self._file is not None
        entry = math.prod(self.shape[2:]) * self.dtype.itemsize
        for place, numbers in enumerate(values, row):
            self._file.seek(len(self._header) + (place * self.shape[1] + column) * entry)
            self._write(np.ascontiguousarray(numbers).data)

    def _write(self, content: bytes | memoryview) -> None:
        assert self._file is not None
        left = memoryview(content).cast("B")
        while left:  # a disk may take a part
            left = left[self._file.write(left) :]

    def _describe(self) -> None:
        description = self.description._replace(blocks=self.done)
        write_atomically(beside(self.path), as_json({"format": _FORMAT, **description._asdict()}))


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Of a `.npy` file."""
    content = io.BytesIO()
    entries = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, entries)
    return content.getvalue()
