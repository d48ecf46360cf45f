"""What a reviewer sees of a sample: its image, its labels, and why it is suspected."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from workbench._pictures import data_uri
from workbench.labels.session import Session

#: Longest side of an image and of a neighbour's, in pixels, as they go to the browser.
_IMAGE, _THUMBNAIL = 256, 64
_NEIGHBORS = 8
#: A sample lonelier than this share of all is said to be unlike them.
_LONELY = 0.99


class Cards:
    """Makes the cards of samples, given by their positions.

    Parameters
    ----------
    session
        Whose samples they are.
    neighbors
        ``index`` (sample, neighbor): the graph that the neighbours are shown from.
    """

    def __init__(self, session: Session, neighbors: xr.Dataset | None = None) -> None:
        self._session = session
        self._near: NDArray[np.int64] | None = None
        if neighbors is not None:
            self._near = neighbors["index"].values
            if len(self._near) != len(session.given):
                raise ValueError(
                    f"the graph has {len(self._near)} samples and the dataset "
                    f"{len(session.given)}: both must come from the same data"
                )
        ids = session.ds["sample"].values
        self._issues = session.issues.reindex(pd.Index(ids))
        self._lonely = self._lonely_from()
        self._torn = self._torn_groups()

    def page(self, positions: list[int]) -> list[dict[str, Any]]:
        """The cards of a page, ready to be sent as JSON."""
        images = self._images(positions, _IMAGE)
        return [self._card(p, uri) for p, uri in zip(positions, images, strict=True)]

    def neighbors(self, position: int) -> list[dict[str, str]]:
        """Image and given label of a sample's nearest neighbours."""
        if self._near is None:
            return []
        near = self._near[position, :_NEIGHBORS].tolist()
        uris = self._images(near, _THUMBNAIL)
        given = self._session.given
        return [{"image": u, "given": self.name(given[p])} for p, u in zip(near, uris, strict=True)]

    def still(self, positions: list[int]) -> str:
        """A page as HTML for where there is no widget."""
        figures = "".join(map(_still, self.page(positions)))
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{figures}</div>'

    def name(self, number: int) -> str:
        """A class's name."""
        return self._session.classes[number] if number >= 0 else "no class"

    def held(self, position: int) -> dict[str, str] | None:
        """The decision that holds, as the card shows it."""
        held = self._session.held(position)
        if held is None:
            return None
        action, label = held
        return {"action": action, "name": "unclear" if action == "unclear" else self.name(label)}

    def _card(self, position: int, uri: str) -> dict[str, Any]:
        session = self._session
        suggested = int(session.suggested[position])
        return {
            "at": position,
            "sample": str(session.ids[position]),
            "image": uri,
            "given": self.name(session.given[position]),
            "suggested": self.name(suggested) if suggested >= 0 else "none",
            "score": round(float(session.queue.score[position]), 3),
            "why": self._why(position),
            "held": self.held(position),
        }

    def _why(self, position: int) -> list[str]:
        """In words, what speaks against the given label."""
        row, session = self._issues.iloc[position], self._session
        given = int(session.given[position])
        reasons = []
        if pd.notna(confidence := row.get("self_confidence")):
            reasons.append(f"model: {confidence:.0%} for {self.name(given)}")
        vote = row.get("neighbor_vote", -1)
        if pd.notna(vote) and vote >= 0:
            reasons.append(f"neighbours: {self.name(int(vote))}")
        if row.get("cleanlab_flag") is True or row.get("cleanlab_flag") is np.True_:
            reasons.append("cleanlab flags it")
        if row.get("duplicate_group", -1) in self._torn:
            reasons.append("a near-copy has another label")
        if row.get("ood_score", -np.inf) >= self._lonely:
            reasons.append("unlike all others")
        return reasons

    def _lonely_from(self) -> float:
        if "ood_score" not in self._issues or self._issues["ood_score"].isna().all():
            return np.inf
        return float(self._issues["ood_score"].quantile(_LONELY))

    def _torn_groups(self) -> set[int]:
        """Groups of near-duplicates whose labels differ."""
        if "duplicate_group" not in self._issues:
            return set()
        group = self._issues["duplicate_group"].fillna(-1).to_numpy(dtype=np.int64)
        kinds = pd.Series(self._session.given).groupby(group).nunique()
        return set(kinds.index[(kinds > 1) & (kinds.index >= 0)].tolist())

    def _images(self, positions: list[int], longest: int) -> list[str]:
        images = self._session.ds["image"].isel(sample=positions).values
        return [data_uri(image, longest) for image in images]


def _still(card: dict[str, Any]) -> str:
    """A card as HTML, its image described for those who cannot see it."""
    given, suggested = escape(card["given"]), escape(card["suggested"])
    return (
        f'<figure style="margin:0;width:150px"><img src="{card["image"]}" style="width:96px;'
        f'height:96px;object-fit:contain;image-rendering:pixelated" alt="sample '
        f'{escape(card["sample"])}, given as {given}"><figcaption style="font-size:12px">'
        f"given <b>{given}</b>, suggested <b>{suggested}</b><br>{escape('; '.join(card['why']))}"
        "</figcaption></figure>"
    )
