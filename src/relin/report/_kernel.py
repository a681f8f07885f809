"""What the pages of the studies of the kernel share."""

from relin.report import _text as text
from relin.report._page import Tile
from relin.study._kernel import Constancy


def constancy_tile(constancy: Constancy) -> Tile:
    """Whether the kernel stood still where it must."""
    name, pairs = "Constant between feature updates", f"{constancy.num_checked:,} pairs of records without one between"
    if constancy.num_violated:
        return Tile(name, "NO", f"it changed in {constancy.num_violated:,} of {pairs}: {constancy.first_violation}")
    if not constancy.num_checked:
        return Tile(name, text.DASH, "no pair of records lies between the same feature updates")
    return Tile(name, "yes", f"exactly, in all {pairs}")
