"""The networks of the field, by name or as classes; each maps one example, channels last, to C logits."""

from relin.models._cnn import CNN as CNN
from relin.models._convolution import Convolution as Convolution
from relin.models._initial import initialise as initialise
from relin.models._layers import Dense as Dense, GroupNorm as GroupNorm
from relin.models._lenet import LeNet5 as LeNet5
from relin.models._mlp import MLP as MLP
from relin.models._registry import build as build, names as names, options as options
from relin.models._resnet import ResNet18 as ResNet18
