"""Training of a network on an image dataset, a folder, a store or a stream; snapshots and log."""

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from workbench import datasets
from workbench._extras import need
from workbench._samples import unit_range
from workbench.datasets.detections import average_precision
from workbench.datasets.shards import is_store, read_boxes
from workbench.models.architectures import find, pretrained
from workbench.models.augmentation import Recipe, augment
from workbench.models.fcn import FCN, detect, objects_of
from workbench.models.inference import channels_of, evaluate, evaluating
from workbench.models.resnet import SmallResNet
from workbench.models.training_data import TrainingData

#: Snapshots that are kept.
_KEPT = 3
#: What networks are trained by where no recipe is given; any other name is fine-tuned.
RECIPES = {
    "small-resnet": Recipe(),
    "fcn": Recipe(
        epochs=30,
        batch_size=4,
        peak_rate=2e-3,
        optimizer="adamw",
        weight_decay=0.01,
        shift=16,
        min_scale=0.9,
        max_scale=1.1,
        bfloat16=False,
    ),
}
_FINE_TUNED = Recipe(epochs=10, batch_size=32, peak_rate=0.01, cutout=0)


class Trained(NamedTuple):
    """A network after training, and its log: ``epoch``, ``loss``, ``seconds``, what it is worth."""

    model: nn.Module
    log: pd.DataFrame


def train(
    model: nn.Module | str,
    ds: Any,
    recipe: Recipe | None = None,
    *,
    boxes: pd.DataFrame | None = None,
    out: str | os.PathLike[str] | None = None,
    validate: Any = None,
    on_epoch: Callable[[int, nn.Module], None] | None = None,
    progress: bool = True,
    **options: Any,
) -> Trained:
    """Train a network on labelled images, or on boxes.

    The order of the images and how they are changed depend on the seed and the epoch alone, so a
    run that was stopped and resumed sees what an uninterrupted one sees. Sums on several threads
    can still differ in their last bits.

    Parameters
    ----------
    model
        ``"small-resnet"``; ``"fcn"``, which finds boxes; or a torchvision or timm name, whose
        published network is fine-tuned. A GPU is used where there is one. Or a module of one's
        own that takes images from 0 to 1: trained in place, on the device where it lies.
    ds
        An image dataset with ``label``, or with ``labels`` (sample, class); what
        :func:`workbench.datasets.load` loads: a name, a folder, a table, a store; or a stream,
        :func:`workbench.store.stream`, which is iterated over once an epoch.
    recipe
        How to train; by default what suits the network.
    boxes
        For an ``"fcn"``: the table of boxes. A store, a stream and a dataset with boxes have their
        own; else the connected parts of ``mask`` (sample, y, x), -1 for background, are objects.
    out
        A folder for ``model.safetensors``, ``log.csv``, ``log.png`` and the ``snapshots`` of the
        last epochs. Where there are snapshots, training goes on from the newest.
    validate
        Data as `ds`, or the share of `ds` that is not trained on: measured after each epoch.
    on_epoch
        Called after each epoch with its number from 0 and the network.
    progress
        Show a bar for each epoch.
    options
        Of a network given by name: ``widths``, and for an ``"fcn"`` ``size``, the pixels of the
        longer side that images are brought to.

    Returns
    -------
    Trained
        ``model`` and ``log``.

    Raises
    ------
    ValueError
        A label is -1, there are no boxes, nothing has that name, or a snapshot is of another
        recipe, other data or another network.

    Examples
    --------
    >>> ds = datasets.load("digits", n=100)
    >>> recipe = Recipe(epochs=2, shift=1, flip=False, cutout=2)
    >>> train("small-resnet", ds, recipe, progress=False).log["epoch"].tolist()
    [0, 1]
    """
    recipe = recipe or recipe_of(model)
    ds, boxes = _loaded(ds, boxes)
    held_out, own = _loaded(validate, None) if not isinstance(validate, float) else (None, None)
    if isinstance(validate, float):
        ds, held_out = _divided(ds, validate, recipe.seed)
    if isinstance(model, str):
        model = build(model, ds, boxes, recipe, **options)
    data = TrainingData(model, ds, boxes, recipe)
    model.to(memory_format=_memory_format(model)).train()  # type: ignore[call-overload]
    state = _State(model, recipe, data)
    folder = Path(out) if out else None
    if folder:
        state.resume(folder / "snapshots")
    for epoch in range(len(state.log), recipe.epochs + recipe.averaged):
        start = time.perf_counter()
        row = {"epoch": epoch, "loss": _epoch(state, epoch, progress)}
        if held_out is not None:
            row |= _measured(model, held_out, boxes if own is None else own)
        state.log.append(row | {"seconds": round(time.perf_counter() - start, 3)})
        if folder:
            state.save(folder)
        if on_epoch:
            on_epoch(epoch, model)
    if recipe.averaged:
        state.settle()
    log = pd.DataFrame(state.log)
    if folder:
        save(model, folder / "model.safetensors", recipe=recipe, data={"sha256": data.sha256})
    return Trained(model, log)


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | None = None,
    half: bool = False,
    **about: Any,
) -> Path:
    """Write a network's weights and what they are to a safetensors file that ``load`` reads.

    Parameters
    ----------
    model
        What :func:`train` returned, or any module; one of another kind than the templates needs
        its `architecture` again when it is loaded.
    path
        The file.
    recipe
        How it was trained.
    half
        Write 16 bits a number.
    about
        More to be kept with it, as JSON has it: ``data``, what it was trained on.
    """
    values = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if half:
        values = {k: v.half() if v.is_floating_point() else v for k, v in values.items()}
    note = {
        "template": getattr(model, "template", ""),
        "config": getattr(model, "config", {}),
        "classes": [str(name) for name in getattr(model, "classes", [])],
        "mean": _numbers(values.get("mean")),
        "std": _numbers(values.get("std")),
        "recipe": asdict(recipe) if recipe else None,
        **about,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    files = need("safetensors.torch", extra="networks")
    files.save_file(values, part, metadata={"about": json.dumps(note)})
    part.replace(path)
    return path


def _numbers(values: Tensor | None) -> list[float] | None:
    return None if values is None else [round(float(value), 4) for value in values.flatten()]


def recipe_of(model: nn.Module | str) -> Recipe:
    """What a network is trained by where no recipe is given."""
    kind = model if isinstance(model, str) else "fcn" if isinstance(model, FCN) else "small-resnet"
    return RECIPES.get(kind, _FINE_TUNED)


def build(
    name: str, ds: Any, boxes: pd.DataFrame | None, recipe: Recipe, **options: Any
) -> nn.Module:
    """A new network for a dataset's channels and classes, on the GPU where there is one."""
    part = ds if isinstance(ds, xr.Dataset) else next(iter(ds))
    classes = np.asarray(part.coords.get("class", []), dtype=np.str_).tolist()
    if name in RECIPES:
        pixels = unit_range(part["image"].values)
        for key, moment in (("mean", np.mean), ("std", np.std)):
            options[key] = [round(float(v), 4) for v in moment(pixels, axis=(0, 1, 2))]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        if name == "fcn":
            table = objects_of(ds, boxes) if part is ds else ds.boxes
            named = set(table["label"]) - {""}
            names = classes if classes and named <= set(classes) else sorted(named)
            model: nn.Module = FCN(names, part.sizes["channel"], **options)
        elif name == "small-resnet":
            model = SmallResNet(part.sizes["channel"], len(classes), **options)
        else:
            model = _with_a_new_head(name, len(classes), recipe.pretrained)
    if name != "fcn":
        model.classes = classes
    model.template = name  # type: ignore[assignment]
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _with_a_new_head(name: str, classes: int, is_pretrained: bool) -> nn.Module:
    found = find(name)
    if found is None:
        known = ", ".join(map(repr, RECIPES))
        raise ValueError(f"{name!r} is neither {known} nor a name of torchvision or timm")
    model = pretrained(name, found, {}) if is_pretrained else found.build()
    linear = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{name!r} has no linear layer at its end that could be replaced")
    parent, _, leaf = linear[-1].rpartition(".")
    head = nn.Linear(model.get_submodule(linear[-1]).in_features, classes)  # type: ignore[arg-type]
    setattr(model.get_submodule(parent), leaf, head)
    model.register_forward_pre_hook(found.preset)
    return model


def _loaded(ds: Any, boxes: pd.DataFrame | None) -> tuple[Any, pd.DataFrame | None]:
    """A dataset or a stream, and the boxes that a store brings."""
    if ds is None or isinstance(ds, xr.Dataset) or not isinstance(ds, str | os.PathLike):
        return ds, boxes
    path = Path(ds)
    if boxes is None and path.is_dir() and is_store(path):
        boxes = read_boxes(path)
    return datasets.load(ds), boxes


def _divided(ds: Any, share: float, seed: int) -> tuple[xr.Dataset, xr.Dataset]:
    if not isinstance(ds, xr.Dataset) or not 0 < share < 1:
        raise ValueError(f"validate={share}: a share from 0 to 1 of a dataset; a stream has folds")
    n = ds.sizes["sample"]
    out = datasets.subset(ds, max(1, round(share * n)), seed=seed)
    return ds.sel(sample=~ds["sample"].isin(out["sample"])), out


class _State:
    """What changes while a network is trained."""

    def __init__(self, model: nn.Module, recipe: Recipe, data: TrainingData) -> None:
        self.model, self.recipe, self.data = model, recipe, data
        self.log: list[dict[str, Any]] = []
        # Biases and batch norms are not shrunk: they do not overfit.
        shrunk = [p for p in model.parameters() if p.ndim > 1]
        kept = [p for p in model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": shrunk, "weight_decay": recipe.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        on_gpu = next(model.parameters()).device.type == "cuda"
        self._graph: tuple[torch.Size, nn.Module] | None = None
        kind: Any = torch.optim.AdamW
        options: dict[str, Any] = {}
        if recipe.optimizer == "sgd":
            kind = torch.optim.SGD
            options = {"momentum": recipe.momentum, "nesterov": recipe.momentum > 0}
        self.optimizer = kind(groups, lr=recipe.peak_rate, fused=on_gpu, **options)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            recipe.peak_rate,
            epochs=recipe.epochs,
            steps_per_epoch=data.steps,
            pct_start=0.2,
            anneal_strategy="linear",
            cycle_momentum=False,
            div_factor=10,
            final_div_factor=1e4,
        )
        self._parts: dict[str, Any] = {
            "model": model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
        }
        if recipe.averaged:
            self.average = self._parts["average"] = AveragedModel(model)

    def forward(self, images: Tensor) -> Tensor:
        """Run the network; on a GPU a batch like the first one by a graph, launched at once."""
        with torch.autocast(
            images.device.type, torch.bfloat16, enabled=self.recipe.bfloat16, cache_enabled=False
        ):
            if self._graph is None and images.is_cuda and isinstance(self.model, SmallResNet | FCN):
                before = [buffer.clone() for buffer in self.model.buffers()]
                wrapped = nn.Sequential(self.model)
                torch.cuda.make_graphed_callables(wrapped, (images,))
                for buffer, value in zip(self.model.buffers(), before, strict=True):
                    buffer.copy_(value)  # which the rehearsals have changed
                self._graph = images.shape, wrapped
            run = self._graph[1] if self._graph and self._graph[0] == images.shape else self.model
            output: Tensor = run(images)
        return output.float()

    def step(self, averaging: bool) -> None:
        """Move the weights by their gradients, and the rate or the average along."""
        if averaging:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.average_rate
        self.optimizer.step()
        if averaging:
            self.average.update_parameters(self.model)
        else:
            self.schedule.step()

    def settle(self) -> None:
        """Give the network the mean of its weights, and the batch statistics that belong to it."""
        self.model.load_state_dict(self.average.module.state_dict())
        device = next(self.model.parameters()).device
        update_bn((images.to(device) for images, *_ in self.data.epoch(0, None)), self.model)

    def save(self, folder: Path) -> None:
        """Write a snapshot, then the log and its figure; drop the oldest snapshot."""
        snapshots = folder / "snapshots"
        snapshots.mkdir(parents=True, exist_ok=True)
        content = {
            "recipe": asdict(self.recipe),
            "data": self.data.sha256,
            "log": self.log,
            **{name: part.state_dict() for name, part in self._parts.items()},
        }
        part = snapshots / "unfinished.part"
        torch.save(content, part)
        part.replace(snapshots / f"epoch-{len(self.log):04d}.pt")
        for old in sorted(snapshots.glob("epoch-*.pt"))[:-_KEPT]:
            old.unlink()
        log = pd.DataFrame(self.log)
        log.to_csv(folder / "log.csv", index=False)
        _draw(log, folder / "log.png")

    def resume(self, snapshots: Path) -> None:
        """Go on from the newest snapshot, if there is one of this recipe and data."""
        newest = max(snapshots.glob("epoch-*.pt"), default=None)
        if newest is None:
            return
        content: dict[str, Any] = torch.load(newest, map_location="cpu", weights_only=True)
        for what, ours in (("recipe", asdict(self.recipe)), ("data", self.data.sha256)):
            if content[what] != ours:
                raise ValueError(
                    f"{newest} was made with another {what} ({content[what]}); choose another "
                    "folder, or delete the snapshots to start anew"
                )
        self.log = content["log"]
        for name, part in self._parts.items():
            part.load_state_dict(content[name])


def _draw(log: pd.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    shown = [name for name in log if name not in ("epoch", "seconds")]
    figure = Figure(figsize=(6, 2 * len(shown)), layout="constrained")
    for ax, name in zip(np.ravel(figure.subplots(len(shown), sharex=True)), shown, strict=True):
        ax.plot(log["epoch"] + 1, log[name], marker=".")
        ax.set_ylabel(name)
    ax.set_xlabel("epochs")
    figure.savefig(path)


def _memory_format(model: nn.Module) -> torch.memory_format:
    """Channels last is faster; on several threads torch 2.13 crashes with it in narrow layers."""
    narrow = any(len(p) < 16 for p in model.parameters() if p.ndim == 4)
    return torch.contiguous_format if narrow else torch.channels_last


def _epoch(state: _State, epoch: int, progress: bool) -> float:
    """Show every image once, and return the mean loss."""
    recipe = state.recipe
    rng = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
    total, seen = torch.zeros((), device=next(state.model.parameters()).device), 0
    averaging = epoch >= recipe.epochs
    mix = averaging or epoch < recipe.epochs - recipe.last_plain
    name = f"epoch {epoch + 1}/{recipe.epochs + recipe.averaged}"
    with (
        torch.random.fork_rng(),
        tqdm(total=state.data.images, desc=name, unit="image", disable=not progress) as bar,
    ):
        # dropout draws from torch's own generator
        torch.manual_seed(recipe.seed * 10_000 + epoch)
        for images, wanted, loss in state.data.epoch(epoch, rng, mix):
            total = total + len(images) * _step(state, images, wanted, loss, averaging)
            seen += len(images)
            bar.update(len(images))
        mean = float(total) / max(1, seen)
        bar.set_postfix(loss=f"{mean:.3f}")
    return mean


def _step(
    state: _State, images: Tensor, wanted: Any, loss: Callable[..., Tensor], averaging: bool
) -> Tensor:
    """Move the weights once, and return the mean loss of the batch, still on its device."""
    device = next(state.model.parameters()).device
    images = images.to(device).contiguous(memory_format=_memory_format(state.model))
    if (images.shape[1], channels_of(state.model)) == (1, 3):
        images = images.expand(-1, 3, -1, -1)
    lost = loss(state.forward(images), wanted)
    state.optimizer.zero_grad(set_to_none=True)
    lost.backward()  # type: ignore[no-untyped-call]
    state.step(averaging)
    return lost.detach()


def _measured(model: nn.Module, ds: Any, boxes: pd.DataFrame | None) -> dict[str, float]:
    """What the network is worth on data that it is not trained on."""
    parts: Iterable[xr.Dataset] = [ds] if isinstance(ds, xr.Dataset) else ds
    if not isinstance(model, FCN):
        found = [(p.sizes["sample"], evaluate(model, p, progress=False)) for p in parts]
        counts, values = zip(*((n, worth["accuracy"]) for n, worth in found), strict=True)
        return {"accuracy": round(float(np.average(values, weights=counts)), 4)}
    with evaluating(model):
        tables = [
            (objects_of(p, boxes), detect(model, p, model.classes, model.size, progress=False))
            for p in parts
        ]
    precision = average_precision(*map(pd.concat, zip(*tables, strict=True)))
    return {"average_precision": round(float(precision["mean"]), 4)}


def calibrate(model: SmallResNet, ds: xr.Dataset, recipe: Recipe, n: int = 10_000) -> float:
    """Divide a network's logits by one temperature, which its last layer takes up.

    The temperature is that of the smallest cross-entropy (Guo et al. 2017, section 4.2) on `n` of
    the training images, changed as the recipe says: the network has seen them, but a shift and a
    hidden square make them about as hard as images that it has not. No test image is used. The
    temperature, which is returned, is above 1 where the network was too sure of itself.
    """
    rng = torch.Generator().manual_seed(recipe.seed)
    chosen = torch.randperm(ds.sizes["sample"], generator=rng)[:n].numpy()
    part = ds.isel(sample=np.sort(chosen))
    images = torch.from_numpy(part["image"].transpose("sample", "channel", "y", "x").values)
    labels = torch.from_numpy(part["label"].values)
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        batches = (augment(some, recipe, rng).float() / 255 for some in torch.split(images, 500))
        logits = torch.cat([model(batch.to(device)).cpu() for batch in batches])
        choices = torch.arange(25, 401) / 100
        losses = torch.stack([F.cross_entropy(logits / choice, labels) for choice in choices])
        best = float(choices[losses.argmin()])
        model.fc.weight.div_(best)
        model.fc.bias.div_(best)
    return round(best, 2)
