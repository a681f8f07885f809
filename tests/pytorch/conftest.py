"""Public libraries of PyTorch's networks, also beside a build of PyTorch that is not torchvision's."""

import pytest
import torch

_TORCHVISION = torch.library.Library("torchvision", "FRAGMENT")
# torchvision asks for these when it is imported; none of the tests' networks calls them.
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _TORCHVISION.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small networks: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
