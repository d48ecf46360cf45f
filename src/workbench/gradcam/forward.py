"""Forward passes that leave no trace in a network, and the score of an image to be explained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from workbench.models.inference import batches, channels_of, evaluating, place_of


def images_for(model: nn.Module, x: Tensor | xr.Dataset) -> Tensor:
    """The images as the model takes them, checked, outside any graph.

    They get the model's device and precision; grey ones have their channel repeated for a model
    that takes three.
    """
    if isinstance(x, xr.Dataset):
        x = next(batches(x, max(1, x.sizes["sample"]), progress=False))
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or not len(x):
        what = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"images are a float tensor (sample, channel, y, x), got {what}")
    bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(f"NaN or infinite pixels in {len(bad)} images; the first is at {bad[0]}")
    if (x.shape[1], channels_of(model)) == (1, 3):
        x = x.expand(-1, 3, -1, -1)
    with torch.inference_mode(False):
        return (x.clone() if x.is_inference() else x.detach()).to(place_of(model, x))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, whatever surrounds it; all as before afterwards."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


def logits(output: Any) -> Tensor:
    """The model's output as a tensor: itself, or its ``logits``."""
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise ValueError(f"the model gives a {type(output).__name__}, not a tensor of scores")
    if not torch.isfinite(found).all():
        raise ValueError("the model's output holds NaN or infinities")
    return found


#: A class for all images, one for each, a function of the output, or None: the predicted class.
Target = int | Sequence[int] | Tensor | Callable[[Tensor], Tensor] | None


class Scorer:
    """The target's score of each image of a batch, before any softmax.

    Parameters
    ----------
    target
        As :meth:`Probe.run` takes it.
    output
        What the model makes of the batch: (sample, class), for a callable of any form.

    Raises
    ------
    ValueError
        The number of targets is not that of the images, a class is not one of the model's, or the
        output is not (sample, class).
    TypeError
        Targets that are not whole numbers.
    """

    def __init__(self, target: Target, output: Tensor) -> None:
        self._output = output.detach()
        self.target = None if callable(target) else _classes(target, self._output)
        self._function = target if callable(target) else self._of_class

    def __call__(self, output: Tensor) -> Tensor:
        """Scores (sample,) of the whole batch."""
        scores = self._function(output)
        if not isinstance(scores, Tensor) or scores.shape != (len(self._output),):
            what = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(
                f"the target function gives {what}, not one score for each of "
                f"{len(self._output)} images"
            )
        return scores

    def _of_class(self, output: Tensor) -> Tensor:
        return output[torch.arange(len(output)), self.target]

    def of_sample(self, sample: int, outputs: Tensor) -> Tensor:
        """Scores (variant,) of several outputs that were made from one sample of the batch."""
        if self.target is not None:
            return outputs[:, self.target[sample]]
        scores = []
        for variant in outputs:  # a function may look at the place in the batch
            batch = self._output.clone()
            batch[sample] = variant
            scores.append(self(batch)[sample])
        return torch.stack(scores)


def _classes(target: int | Sequence[int] | Tensor | None, output: Tensor) -> Tensor:
    """The target classes (sample,), checked."""
    if output.ndim != 2:
        raise ValueError(
            f"the model gives {tuple(output.shape)}, not (sample, class): give a "
            "function of the output that returns one score an image"
        )
    n, classes = output.shape
    if target is None:
        return output.argmax(1)
    chosen = torch.as_tensor(target, device=output.device)
    if chosen.ndim > 1 or (chosen.ndim == 1 and len(chosen) != n):
        raise ValueError(f"targets of shape {tuple(chosen.shape)} for {n} images")
    if chosen.is_floating_point() or chosen.dtype in (torch.bool, torch.complex64):
        raise TypeError(f"targets are class numbers, got {chosen.dtype}")
    bad = chosen[(chosen < 0) | (chosen >= classes)]
    if bad.numel():
        raise ValueError(
            f"there is no class {bad.flatten()[0].item()}: the model has 0 to {classes - 1}"
        )
    return chosen.long().expand(n)
