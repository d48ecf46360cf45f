"""Import torchvision where its build does not fit torch's: tests and benchmarks need no operators.

A torchvision built for CUDA finds none of its compiled operators beside torch's CPU build and
fails on the first that it describes. Declared, not implemented, they let its models be imported:
``import torchvision_import`` before torchvision or timm. The library itself does no such thing.
"""

import torch

try:
    import torchvision
except RuntimeError:
    _declared = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _declared.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
