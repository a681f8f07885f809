"""Prints the pins of one lock file that another one lacks. Usage: lock_difference.py ALL SOME"""

import re
import sys
from pathlib import Path


def pins(path: str) -> dict[str, str]:
    """Each package with its pin and hashes; comments left out."""
    text = re.sub(r"^#.*\n?", "", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    entries = re.split(r"\n+(?=\S)", text.strip())
    return {entry.split("==")[0]: entry for entry in entries}


everything, some = map(pins, sys.argv[1:])
print("\n".join(entry for name, entry in everything.items() if name not in some))
