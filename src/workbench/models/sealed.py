"""Networks read from files that hold a program: they predict, and hide their layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench._extras import need


class Sealed(nn.Module):
    """A network of which only the input and the output can be seen. It is always evaluating.

    Parameters
    ----------
    kind
        The file's format, as people call it.
    shape
        What the program takes: batch, channels, height, width; None where it takes any.
    """

    def __init__(self, kind: str, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.kind, self.shape = kind, shape
        self.in_channels = shape[1] if len(shape) == 4 else None
        self.training = False

    def train(self, mode: bool = True) -> "Sealed":  # noqa: ARG002
        """Do nothing: the program was fixed when it was written."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the program's first output; a batch of fixed size is filled up with zeros."""
        self._check(x)
        size = self.shape[0] if self.shape else None
        if size is None or len(x) == size:
            return self._run(x)
        parts = [F.pad(part, (0, 0) * 3 + (0, size - len(part))) for part in torch.split(x, size)]
        return torch.cat([self._run(part) for part in parts])[: len(x)]

    def _check(self, x: Tensor) -> None:
        """Explain a wrong size before the program fails on it in its own words."""
        names = ("channels", "pixels high", "pixels wide")
        for name, wanted, found in zip(names, self.shape[1:], x.shape[1:], strict=False):
            if wanted is not None and wanted != found:
                how = "" if name == "channels" else "; load it with size=(height, width) to resize"
                raise ValueError(
                    f"the {self.kind} network takes images {wanted} {name}, not {found}{how}"
                )

    def _run(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Scripted(Sealed):
    """A TorchScript program; it says nothing about the shapes that it takes."""

    def __init__(self, program: Any) -> None:
        super().__init__("TorchScript", ())
        self.program = program.eval()

    def _run(self, x: Tensor) -> Tensor:
        return _first(self.program(x))


class Exported(Sealed):
    """A ``torch.export`` program."""

    def __init__(self, program: Any) -> None:
        names = program.graph_signature.user_inputs
        nodes = {node.name: node for node in program.graph.nodes}
        sizes = nodes[names[0]].meta["val"].shape
        super().__init__("torch.export", tuple(s if isinstance(s, int) else None for s in sizes))
        self.program = program.module()

    def _run(self, x: Tensor) -> Tensor:
        return _first(self.program(x))


class Onnx(Sealed):
    """An ONNX program, run by onnxruntime, on a GPU where it was built for one."""

    def __init__(self, path: Path) -> None:
        runtime = need("onnxruntime", extra="networks")
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = runtime.get_available_providers()
        session = runtime.InferenceSession(
            str(path), providers=[name for name in wanted if name in available]
        )
        first = session.get_inputs()[0]
        super().__init__("ONNX", tuple(s if isinstance(s, int) else None for s in first.shape))
        self._session, self._input = session, first.name
        self._dtype = np.float16 if first.type == "tensor(float16)" else np.float32

    def _run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("an ONNX network has no gradients; load a state dict instead")
        given = {self._input: x.cpu().numpy().astype(self._dtype)}
        return torch.from_numpy(self._session.run(None, given)[0]).to(x.device)


def _first(output: Any) -> Tensor:
    """The first tensor of what a program returns."""
    while not isinstance(output, Tensor):
        values = output.values() if isinstance(output, Mapping) else output
        output = next(iter(values))
    return output
