"""Read a network from a file, by what the file holds and not by what it is called.

Reading never runs code out of a file: pickles are read with ``weights_only``, and a file that
needs more is refused. (A TorchScript, ``torch.export`` or ONNX program is run later, to predict.)
"""

import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor

from workbench._extras import need
from workbench.models.sealed import Exported, Onnx, Scripted, Sealed

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


def program(path: Path, kind: Kind) -> Sealed:
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
