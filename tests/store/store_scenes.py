"""Grey scenes with boxes and polygons, to be stored."""

import numpy as np
import pandas as pd

from workbench import datasets


def scenes(n=40, seed=0):
    """Grey scenes of three sizes in two classes, and boxes and polygons on them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (n, 24, 32, 1), dtype=np.uint8)
    ds = datasets.dataset.build(
        image,
        sample=np.array([f"dir/{i}" for i in range(n)]),
        classes=["cat", "dog"],
        label=rng.integers(-1, 2, n),
        attrs={"name": "scenes"},
    ).assign(row=("sample", np.arange(n)))
    corner = rng.integers(0, [20, 14], (2 * n, 2))
    at = np.hstack([corner, corner + rng.integers(2, 10, (2 * n, 2))])
    boxes = pd.DataFrame(at, columns=datasets.boxes.CORNERS)
    boxes["sample"] = np.repeat(ds["sample"].values, 2)[rng.permutation(2 * n)]
    boxes["label"] = rng.choice(["cat", "dog"], 2 * n)
    boxes["points"] = [
        [[x0, y0], [x1, y0], [x1, y1]] if i % 3 == 0 else None
        for i, (x0, y0, x1, y1) in enumerate(at)
    ]
    return ds, datasets.boxes.as_table(boxes)
