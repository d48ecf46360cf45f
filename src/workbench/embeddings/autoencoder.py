"""A small convolutional autoencoder, trained on the spot (Hinton and Salakhutdinov 2006)."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from workbench._samples import unit_range

_BATCH = 256
_BLOCK = 16 * _BATCH


class Autoencoder(nn.Module):
    """Two strided convolutions down to a code of `latent` numbers, and the same way back.

    Sizes that four does not divide are filled up with zeros inside.
    """

    def __init__(self, channels: int, height: int, width: int, latent: int) -> None:
        super().__init__()
        self.size = (height, width)
        down, across = -(-height // 4), -(-width // 4)
        self.encoder = nn.Sequential(
            nn.ZeroPad2d((0, 4 * across - width, 0, 4 * down - height)),
            nn.Conv2d(channels, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * down * across, latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64 * down * across),
            nn.ReLU(),
            nn.Unflatten(1, (64, down, across)),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, channels, 4, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the image (sample, channel, y, x) that the code of `x` describes."""
        height, width = self.size
        rebuilt: Tensor = self.decoder(self.encoder(x))
        return rebuilt[:, :, :height, :width]


def encode(
    ds: xr.Dataset, *, latent: int = 32, epochs: int = 10, seed: int = 0, progress: bool = True
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train an autoencoder on the images; return float32 (sample, latent) and how it was made.

    The mean squared error of the pixels is minimised by Adam. The seed fixes the first weights
    and the order of the images; the sums of several threads can still differ in the last bits.
    """
    if latent < 1 or epochs < 1:
        raise ValueError(f"latent={latent} and epochs={epochs} must be at least 1")
    started = time.perf_counter()
    image = ds["image"].transpose("sample", "channel", "y", "x")
    n, channels, height, width = image.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Autoencoder(channels, height, width, latent)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    loss = _fit(model, image, epochs, seed, progress)
    codes = np.empty((n, latent), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, n, _BLOCK):
            block = _block(image, start).to(device)
            codes[start : start + _BLOCK] = model.encoder(block).cpu().numpy()
    made = {"latent": latent, "epochs": epochs, "seed": seed, "loss": [round(v, 6) for v in loss]}
    return codes, {**made, "seconds": round(time.perf_counter() - started, 1)}


def _fit(
    model: Autoencoder, image: xr.DataArray, epochs: int, seed: int, progress: bool
) -> list[float]:
    """Train in place, and return the mean loss of every epoch."""
    n = image.sizes["sample"]
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=epochs * _steps(n), pct_start=0.2
    )
    losses = []
    with tqdm(total=epochs * n, desc="autoencoder", unit="image", disable=not progress) as bar:
        for epoch in range(epochs):
            total = 0.0
            for batch in _shuffled(image, np.random.default_rng((seed, epoch))):
                loss = F.mse_loss(model(batch.to(device)), batch.to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.item() * len(batch)
                bar.update(len(batch))
            losses.append(total / n)
            bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
    return losses


def _shuffled(image: xr.DataArray, rng: np.random.Generator) -> Iterator[Tensor]:
    """Yield batches in random order: blocks are shuffled, and the images within each.

    A block at a time is what dask-backed images can be read in without reading any twice.
    """
    for start in rng.permutation(np.arange(0, image.sizes["sample"], _BLOCK)):
        block = _block(image, int(start))
        yield from torch.split(block[torch.from_numpy(rng.permutation(len(block)))], _BATCH)


def _steps(n: int) -> int:
    """How many batches an epoch has."""
    whole, rest = divmod(n, _BLOCK)
    return whole * (_BLOCK // _BATCH) + -(-rest // _BATCH)


def _block(image: xr.DataArray, start: int) -> Tensor:
    """Load a block of images as float (sample, channel, y, x), integers scaled to [0, 1]."""
    block = torch.from_numpy(unit_range(image.isel(sample=slice(start, start + _BLOCK)).values))
    if not torch.isfinite(block).all():
        raise ValueError(f"the images from position {start} on hold NaN or infinity")
    return block
