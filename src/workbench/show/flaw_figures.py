"""Gallery of what `datasets.check` found: a row of images for each kind of flaw."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from workbench._images import picture
from workbench.datasets import FLAWS
from workbench.datasets.boxes import image_of
from workbench.show.style import caption, finish, panels, styled

_SIDE = 160
#: What orders the images of a flaw, the worst first where ascending says so.
_ORDER = {
    "dark": ("percentile_99", True),
    "bright": ("percentile_5", False),
    "blurry": ("blur", False),
    "low_information": ("entropy", True),
}


def flaws(ds: xr.Dataset, found: pd.DataFrame, *, n: int = 8) -> Figure:
    """A row of images for each flaw of a dataset, with how many images have it.

    Copies stand beside one another; leaks are titled by their split.

    Parameters
    ----------
    ds
        The image dataset.
    found
        What `datasets.check(ds)` returned.
    n
        The most images in a row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        `found` is of another dataset, or no image has a flaw that can be shown.
    """
    if len(found) != ds.sizes["sample"] or set(found.index) != set(ds["sample"].values.tolist()):
        raise ValueError("the check and the dataset hold different samples")
    found = found.reindex(ds["sample"].values).reset_index(drop=True)
    rows = {name: _chosen(found, name, n) for name in FLAWS if name != "unreadable"}
    rows = {name: chosen for name, chosen in rows.items() if len(chosen)}
    if not rows:
        raise ValueError("there is nothing to show: no image has a flaw")
    splits = ds["split"].values if "split" in ds else np.full(len(found), "")
    with styled():
        fig, axes = panels(len(rows), n, 1.25 * n, 1.5 * len(rows))
        for line, (name, chosen) in zip(axes, rows.items(), strict=True):
            text = f"{name.replace('_', ' ')}: {found[name].sum():,} of {len(found):,}"
            line[0].set_title(text, fontsize=9, loc="left", pad=14)
            for ax, row in zip(line, chosen, strict=False):
                ax.imshow(picture(image_of(ds, row, _SIDE)))
                label = f"group {found['near_group'][row]} {splits[row]}"
                if name in ("leak", "exact_copy", "near_copy"):
                    ax.text(
                        0.5, -0.04, label, fontsize=8, ha="center", va="top", transform=ax.transAxes
                    )
        return finish(fig, caption(ds))


def _chosen(found: pd.DataFrame, name: str, n: int) -> list[int]:
    """Positions of the first `n` images with a flaw: groups together, else the worst first."""
    by, ascending = _ORDER.get(name, ("near_group", True))
    return found[found[name]].sort_values(by, ascending=ascending, kind="stable").index[:n].tolist()
