"""What a notebook claims, and whether it holds on the data that it was given."""

from collections.abc import Mapping
from html import escape

from workbench.batch.results import keep

BROKEN = "DOES NOT HOLD"


def check(claims: Mapping[str, bool | None], *, strict: bool = True) -> None:
    """Say which claims of a notebook hold, record it, and fail if one does not.

    Parameters
    ----------
    claims
        Claim in words to whether it holds. None: it is about other data than were loaded, and
        is shown as such.
    strict
        Raise if a claim does not hold. With False, for data on which nothing is promised, the
        table says so and the run goes on.

    Raises
    ------
    AssertionError
        A claim does not hold; all that do not are named.

    Examples
    --------
    >>> check({"two and two are four": 2 + 2 == 4, "about another dataset": None})
    """
    verdicts = {
        claim: "not about these data" if holds is None else "holds" if holds else BROKEN
        for claim, holds in claims.items()
    }
    rows = [f"<tr><td>{escape(c)}</td><td>{verdict}</td></tr>" for c, verdict in verdicts.items()]
    head = "<tr><th>claim</th><th>on these data</th></tr>"
    text = "\n".join(f"{verdict}: {claim}" for claim, verdict in verdicts.items())
    keep(
        "claims",
        verdicts,
        {"text/plain": text, "text/html": f"<table>{head}{''.join(rows)}</table>"},
    )
    failed = [claim for claim, holds in claims.items() if holds is not None and not holds]
    if strict and failed:
        raise AssertionError("does not hold: " + "; ".join(failed))
