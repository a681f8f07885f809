"""Everything public in `relin.models`, imported at its first use."""

from relin.models._cnn import CNN as CNN
from relin.models._convolution import Convolution as Convolution
from relin.models._gpt import GPT as GPT
from relin.models._initial import initialise as initialise
from relin.models._layers import Dense as Dense, GroupNorm as GroupNorm, LayerNorm as LayerNorm, max_pool as max_pool
from relin.models._lenet import LeNet5 as LeNet5
from relin.models._mlp import MLP as MLP
from relin.models._names import names as names
from relin.models._norm import BatchNorm as BatchNorm
from relin.models._registry import build as build, options as options
from relin.models._resnet import ResNet18 as ResNet18
from relin.models._vgg import VGG11 as VGG11
from relin.models._vit import ViT as ViT
from relin.models._wide_resnet import WideResNet as WideResNet
