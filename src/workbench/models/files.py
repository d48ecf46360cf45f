"""Network files, told by what they hold and not by their names: weights, or whole programs."""

import os
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench._extras import need


class OpaqueModel(nn.Module):
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
        self.differentiable = True
        self.training = False

    def train(self, mode: bool = True) -> "OpaqueModel":  # noqa: ARG002
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


class Scripted(OpaqueModel):
    """A TorchScript program; it says nothing about the shapes that it takes."""

    def __init__(self, program: Any) -> None:
        super().__init__("TorchScript", ())
        self.program = program.eval()

    def _run(self, x: Tensor) -> Tensor:
        return _first(self.program(x))


class Exported(OpaqueModel):
    """A ``torch.export`` program."""

    def __init__(self, program: Any) -> None:
        names = program.graph_signature.user_inputs
        nodes = {node.name: node for node in program.graph.nodes}
        sizes = nodes[names[0]].meta["val"].shape
        super().__init__("torch.export", tuple(s if isinstance(s, int) else None for s in sizes))
        self.program = program.module()

    def _run(self, x: Tensor) -> Tensor:
        return _first(self.program(x))


class Onnx(OpaqueModel):
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
        self._session = session
        self._input = first.name
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


Kind = Literal["safetensors", "state dict", "TorchScript", "torch.export", "ONNX"]
#: What a torch.export archive may hold. Others are compiled code or pickled objects.
_PLAIN = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/.*|extra/.*"
    r"|\.format_version|\.storage_alignment|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)


def kind_of(path: Path) -> Kind:
    """Tell a network file's format from its bytes.

    Raises
    ------
    ValueError
        It is none of the known formats.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04":
        names = _members(path)
        if "archive_format" in names:
            return "torch.export"
        if "constants.pkl" in names:
            return "TorchScript"
        if "data.pkl" in names:
            return "state dict"
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    elif head[:2] == b"\x80\x02":
        return "state dict"
    elif head[:1] == b"\x08" and len(head) == 16:
        return "ONNX"
    raise ValueError(
        f"{path} holds no network that can be read: it is neither a state dict (torch.save or "
        "safetensors) nor TorchScript, torch.export or ONNX"
    )


def _members(path: Path) -> set[str]:
    """What a ZIP archive holds, without the folder that all of it is in."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error


def program(path: Path, kind: Kind) -> OpaqueModel:
    """Load a TorchScript, ``torch.export`` or ONNX file.

    Raises
    ------
    ValueError
        The file is damaged, or a ``torch.export`` archive holds more than a program and numbers.
    """
    try:
        if kind == "ONNX":
            return Onnx(path)
        if kind == "torch.export":
            return Exported(_exported(path))
        with warnings.catch_warnings():
            # that TorchScript is on its way out is no news to who has a file of it
            warnings.simplefilter("ignore", DeprecationWarning)
            return Scripted(torch.jit.load(path, map_location="cpu"))  # type: ignore[no-untyped-call]
    except ImportError:
        raise
    except Exception as error:  # each of the three runtimes has its own
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def _exported(path: Path) -> Any:
    strange = [name for name in _members(path) if not _PLAIN.fullmatch(name)]
    if strange:
        raise ValueError(f"it holds {strange[0]}, which could run code when read")
    with no_pickles(), path.open("rb") as file:
        return torch.export.load(file)


def weights(path: Path, kind: Kind) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load a state dict, and what its file says about itself.

    A checkpoint is searched for its ``state_dict`` or ``model``; the ``module.`` that data-parallel
    training puts before every name is taken off.

    Raises
    ------
    ValueError
        The file holds a pickled object other than tensors, or no state dict.
    """
    about: dict[str, str] = {}
    content: Any
    if kind == "safetensors":
        content, about = _safetensors(path)
    else:
        content = _unpickle(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    return {name.removeprefix("module."): value for name, value in content.items()}, about


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    safetensors = need("safetensors", extra="networks")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return values, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors: a pickled object, which can run any code when it is "
            "read. Save model.state_dict() instead; or, if you trust the file, load it yourself "
            "with torch.load(path, weights_only=False) and use the module that comes out"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error


@contextmanager
def no_pickles() -> Iterator[None]:
    """Make ``torch.load`` refuse all but tensors, also where a library asks it for more."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
