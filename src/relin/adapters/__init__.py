"""Modules of other libraries as `(apply, params)`."""

from relin.adapters._equinox import EquinoxApply as EquinoxApply, from_equinox as from_equinox
