"""Network files, told by what they hold and not by their names: weights, or whole programs."""

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PosixPath, PurePosixPath
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


class Program(OpaqueModel):
    """A TorchScript or ``torch.export`` program; the first tensor that it returns counts."""

    def __init__(self, kind: str, program: Any, shape: tuple[int | None, ...] = ()) -> None:
        super().__init__(kind, shape)
        self.program = program

    def _run(self, x: Tensor) -> Tensor:
        output = self.program(x)
        while not isinstance(output, Tensor):
            output = next(iter(output.values() if isinstance(output, Mapping) else output))
        return output


#: Where torch's operations keep whether they train.
_TRAINING_ARGUMENTS = {"aten.dropout.default": 2, "aten.batch_norm.default": 5}


def _evaluating_program(module: Any) -> Any:
    """Switch off the dropout and batch statistics of a program that was exported in training."""
    training = 0
    for node in module.graph.nodes:
        place = _TRAINING_ARGUMENTS.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            node.args = (*node.args[:place], False, *node.args[place + 1 :])
            training += 1
    if training:
        module.recompile()
        warnings.warn(
            f"the program was exported in training mode; {training} dropouts and batch norms are "
            "switched to evaluation",
            stacklevel=2,
        )
    return module


class Onnx(OpaqueModel):
    """An ONNX program, run by onnxruntime, on a GPU where it was built for one.

    It takes pixels in [0, 1], or, where its input is uint8, in 0 to 255; channels may come last.
    Of several outputs the first with a row of numbers for each image is meant.
    """

    def __init__(self, path: Path) -> None:
        runtime = need("onnxruntime", extra="networks")
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = runtime.get_available_providers()
        session = runtime.InferenceSession(
            str(path), providers=[name for name in wanted if name in available]
        )
        first = session.get_inputs()[0]
        shape = [s if isinstance(s, int) else None for s in first.shape]
        self._channels_last = (
            len(shape) == 4 and shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)
        )
        if self._channels_last:
            shape = [shape[0], shape[3], *shape[1:3]]
        if first.type not in _ONNX_TYPES:
            raise ValueError(f"its input is {first.type}, not images of uint8 or floats")
        super().__init__("ONNX", tuple(shape))
        self.differentiable = False
        self._session = session
        self._input = first.name
        self._dtype = _ONNX_TYPES[first.type]

    def _run(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError("an ONNX network has no gradients; load a state dict instead")
        pixels = x.detach().float().cpu().numpy()
        if self._dtype == np.uint8:
            if pixels.min() < 0 or pixels.max() > 1:
                raise ValueError("the network takes bytes: load it without mean and std")
            pixels = np.rint(pixels * 255)
        if self._channels_last:
            pixels = pixels.transpose(0, 2, 3, 1)
        outputs = self._session.run(None, {self._input: pixels.astype(self._dtype)})
        for values in outputs:
            if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim > 1:
                return torch.from_numpy(values).to(x.device)
            if isinstance(values, list) and values and isinstance(values[0], dict):
                rows = np.array([list(row.values()) for row in values])  # ZipMap's
                return torch.from_numpy(rows).to(x.device)
        raise ValueError("none of the program's outputs is a row of scores for each image")


_ONNX_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}


Kind = Literal["safetensors", "state dict", "TorchScript", "torch.export", "ONNX"]
#: What a torch.export archive may hold. Others are compiled code or pickled objects.
_PLAIN = re.compile(
    r"models/model\.json|archive_format|archive_version|byteorder|version|\.data/.*|extra/.*"
    r"|\.format_version|\.storage_alignment|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
)


def kind_of(path: Path) -> Kind:
    """Tell a network file's format from its bytes; a ValueError for none of the known."""
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


def program(path: Path, kind: Kind, trusted: bool) -> OpaqueModel:
    """Load a TorchScript, ``torch.export`` or ONNX file, which runs what its author wrote.

    The first two may run it as soon as the file is read. A ValueError where it is not trusted, or
    damaged, or a ``torch.export`` archive holds more than a program and numbers.
    """
    if not trusted:
        raise ValueError(
            f"{path} is a {kind} file, a program that runs its author's code when it is read or "
            "asked. If you trust who made it, load it with trusted=True; safetensors files and "
            "state dicts (torch.save(model.state_dict(), path)) are data and run nothing"
        )
    try:
        if kind == "ONNX":
            return Onnx(path)
        if kind == "torch.export":
            return _exported(path)
        with warnings.catch_warnings():
            # that TorchScript is on its way out is no news to who has a file of it
            warnings.simplefilter("ignore", DeprecationWarning)
            scripted = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return Program(kind, scripted.eval())
    except ImportError:
        raise
    except Exception as error:  # each of the three runtimes has its own
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from error


def _exported(path: Path) -> Program:
    strange = [name for name in _members(path) if not _PLAIN.fullmatch(name)]
    if strange:
        raise ValueError(f"it holds {strange[0]}, which could run code when read")
    with no_pickles(), path.open("rb") as file:
        program = torch.export.load(file)
    names = program.graph_signature.user_inputs
    nodes = {node.name: node for node in program.graph.nodes}
    shape = tuple(s if isinstance(s, int) else None for s in nodes[names[0]].meta["val"].shape)
    return Program("torch.export", _evaluating_program(program.module()), shape)


#: Where training scripts keep weights in a checkpoint: moving averages first, which they evaluate.
_ENTRIES = (
    *("model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights"),
    "student",
)
_AVERAGED = re.compile(r"ema|teacher|swa|averag")


def weights(
    path: Path, kind: Kind, key: str | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Load a state dict, and what its file says about itself.

    A checkpoint is searched for the entry that holds the weights, as deep as it lies: `key`, the
    entry or what stands before the names, a usual name, or the only one that holds tensors.

    Raises
    ------
    ValueError
        The file holds a pickled object other than tensors and plain values, or no state dict.
    """
    content, about = _safetensors(path) if kind == "safetensors" else (_unpickle(path), {})
    whole = content
    while isinstance(content, Mapping):
        inner = {k: v for k, v in content.items() if isinstance(v, Mapping) and v}
        known = [entry for entry in _ENTRIES if entry in inner]
        if key in content:
            content, key = content[key], None
        elif key is not None and any(str(name).startswith(f"{key}.") for name in content):
            content, key = {n: v for n, v in content.items() if str(n).startswith(f"{key}.")}, None
        elif known:
            if len(known) > 1 and key is None:
                warnings.warn(
                    f"{path} holds weights as {' and '.join(known)}: {known[0]!r} is taken; "
                    "key=... takes another",
                    stacklevel=4,
                )
            content = inner[known[0]]
        elif not _tensors(content) and len(only := list(filter(_tensors, inner.values()))) == 1:
            content = only[0]
        else:
            break
    if key is not None or not _tensors(content):
        has = ", ".join(list(map(str, whole))[:8]) if isinstance(whole, Mapping) else "no entries"
        what = f"no entry {key!r}" if key else f"a {type(content).__name__}, not a state dict"
        raise ValueError(f"{path} holds {what}; it has {has}: key=... says where the weights are")
    return {str(name): value for name, value in content.items()}, about


def _tensors(content: Any) -> bool:
    """Whether it is a state dict, whatever lies beside the weights."""
    values = content.values() if isinstance(content, Mapping) else ()
    return any(isinstance(value, Tensor) for value in values)


def fit(path: Path, values: Mapping[str, Any], expected: Iterable[str]) -> dict[str, Tensor]:
    """The weights under the names that a network has for them.

    What wrappers put before all names is taken off: ``module.`` of data-parallel training and of
    averaged models, ``_orig_mod.`` of ``torch.compile``, ``model.``, ``net.``, ``backbone.`` of
    training frameworks. What is no weight, and what lies beside the wrapped network, is left out.
    A warning says what was done.

    Raises
    ------
    ValueError
        The network is there twice, and the names do not say which one is the moving average.
    """
    expected = list(expected)
    plain = {name.replace("_orig_mod.", ""): value for name, value in values.items()}
    found = {"": 0}
    for name in plain:
        found.update({name[: -len(e)]: 0 for e in expected[:3] if name.endswith(f".{e}")})
    for prefix in found:
        found[prefix] = sum(prefix + name in plain for name in expected)
    whole = sorted(prefix for prefix in found if found[prefix] == max(found.values()))
    averaged = [prefix for prefix in whole if _AVERAGED.search(prefix)]
    if len(whole) > 1 and max(found.values()) and len(averaged) != 1:
        names = " and ".join(repr(prefix.rstrip(".")) for prefix in whole)
        raise ValueError(f"{path} holds the network as {names}: say key=...")
    prefix = (averaged or whole)[0]
    known = {prefix + name for name in expected}

    def belongs(name: str, value: Any) -> bool:
        is_weight = isinstance(value, Tensor) and (value.ndim > 0 or name in known)
        return is_weight and (name in known or name.startswith(prefix))

    kept = {name: value for name, value in plain.items() if belongs(name, value)}
    told = []
    if prefix or set(plain) != set(values):
        told.append(f"took {prefix or '_orig_mod.'!r} off the names of {len(kept)} weights")
    if left := [name for name in plain if name not in kept]:
        some = ", ".join(left[:4]) + (", …" if len(left) > 4 else "")
        told.append(f"left out what is no weight of the network: {some}")
    if told:
        warnings.warn(f"{path}: {'; '.join(told)}", stacklevel=4)
    return {name.removeprefix(prefix): value for name, value in kept.items()}


def _safetensors(path: Path) -> tuple[Any, dict[str, str]]:
    safetensors = need("safetensors", extra="networks")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return values, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_plain_classes()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors: a pickled object, which can run any code when it is "
            "read. Save model.state_dict() instead; or, if you trust the file, load it yourself "
            "with torch.load(path, weights_only=False) and use the module that comes out"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error


def _plain_classes() -> list[Any]:
    """What training scripts put beside weights: options, NumPy's numbers and arrays, paths."""
    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    types = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDUSOM"]
    return [
        *(argparse.Namespace, np.dtype, np.ndarray, *types),
        *(PosixPath, PurePosixPath, core.scalar, core._reconstruct),
        *(
            (item, f"numpy.core.multiarray.{item.__name__}")
            for item in (core.scalar, core._reconstruct)
        ),
    ]


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
