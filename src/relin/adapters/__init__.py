"""Modules of other libraries as `(apply, params)`."""

from relin.adapters._closed import AbstractApply as AbstractApply
from relin.adapters._equinox import EquinoxApply as EquinoxApply, from_equinox as from_equinox
from relin.adapters._linen import LinenApply as LinenApply, from_linen as from_linen
from relin.adapters._nnx import NNXApply as NNXApply, from_nnx as from_nnx
from relin.adapters._scaled import ScaledApply as ScaledApply, scaled as scaled
from relin.adapters._torch import TorchApply as TorchApply, from_torch as from_torch
from relin.adapters._trainable import PartialApply as PartialApply, trainable as trainable
