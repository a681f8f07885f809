"""Files that are either there in full or not at all."""

import os
import tempfile
from pathlib import Path

from relin._writing import whole


@whole
def write_atomically(path: Path, content: bytes | str) -> Path:
    """Writes a file beside `path` that takes its place once it is whole and on the disk; makes its folder.

    **Raises:** `OSError`, which names `path`, where the disk refuses; what was there before is then there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)  # mkstemp lets only its owner read: what is written here may be shared
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
