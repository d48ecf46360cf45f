"""Small made-up datasets."""

from pathlib import Path

import numpy as np
import xarray as xr
from PIL import Image

from workbench import datasets


def toys(n: int, side: int = 6, **attrs: str) -> xr.Dataset:
    """`n` images of noise, ids from 100, their classes ant, bee and cow in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 1), dtype=np.uint8)
    return xr.Dataset(
        {
            "image": (("sample", "y", "x", "channel"), pixels),
            "label": ("sample", np.arange(n) % 3),
        },
        coords={"sample": np.arange(100, 100 + n), "class": ["ant", "bee", "cow"]},
        attrs={"name": "toys", **attrs},
    )


#: Classes of the bundled photographs, by the names that somebody's folders have.
UGLY = {
    "brick": "brick wall, seen from the south side",
    "grass": "grass",
    "retina": "Retina",
    "galaxies": "galaxies (deep field)",
}


def ugly_folder(folder: Path, n: int = 60, wrong: float = 0.05, seed: int = 0) -> list[str]:
    """Write a folder as people have them; return the images that lie in a wrong class.

    Four classes in two splits, `n` photographs of mixed sizes and shapes, long names, some grey,
    some of 16 bits, a HEIC that is not read and a truncated JPEG beside them.
    """
    rng = np.random.default_rng(seed)
    ds = datasets.load("photos")
    names = ds["class"].values[ds["label"].values]
    classes = list(UGLY)
    moved = set(rng.choice(n, round(n * wrong), replace=False).tolist())
    misplaced = []
    for i in range(n):
        own = classes[i % 4]
        position = np.flatnonzero(names == own)[i // 4]
        image = Image.fromarray(ds["image"].values[position])
        width, height = rng.integers(48, 260, 2).tolist()
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        shown = classes[(i + 1) % 4] if i in moved else own
        name = f"IMG_2024-05-{i:04d} copy of a photograph with a rather long name.jpg"
        if i % 9 == 4:
            image, name = image.convert("L"), f"{i}.PNG"
        if i % 9 == 8:
            grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
            image, name = Image.fromarray(grey), f"{i}.tif"
        file = folder / ("test" if i % 5 == 0 else "train") / UGLY[shown] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
        if i in moved:
            misplaced.append(file.relative_to(folder).as_posix())
    (folder / "train" / "grass" / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    whole = next((folder / "train" / "grass").glob("*.jpg")).read_bytes()
    (folder / "train" / "grass" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    return misplaced
