"""Find FiftyOne and open its App."""

import functools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from platformdirs import user_cache_path

from workbench._extras import MissingExtraError, need
from workbench._unattended import in_batch

#: Where a sample's id and its class are kept in FiftyOne.
ID_FIELD = "workbench_id"
LABEL_FIELD = "ground_truth"


@functools.cache
def connect() -> Any:
    """FiftyOne with its database running, usage tracking off, and the database's age unremarked.

    One process at a time starts the database: two that do it together collide over its folder.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    fiftyone = need("fiftyone", extra="fiftyone")
    folder = user_cache_path("workbench", ensure_exists=True)
    with need("filelock", extra="fiftyone").FileLock(folder / "fiftyone.lock", timeout=120):
        fiftyone.list_datasets()
    return fiftyone


def fiftyone_ready() -> bool:
    """Whether FiftyOne is installed and its database answers; a warning says why not.

    Notebooks ask this first, so that their story stands where FiftyOne is not to be had. The
    database starts on the first call, which takes some seconds.

    Examples
    --------
    >>> if fiftyone_ready():  # doctest: +SKIP
    ...     dataset = to_fiftyone(ds)
    """
    try:
        connect()
    except MissingExtraError as error:
        reason = str(error)
    except Exception as error:  # FiftyOne has no common class for what can fail here
        reason = (
            f"FiftyOne's database does not start ({type(error).__name__}: {error}). Set "
            "FIFTYONE_DATABASE_URI to a MongoDB of your own, or install FiftyOne with the "
            "project's requirements.lock, which brings one on Linux x86-64"
        )
    else:
        return True
    warnings.warn(reason, stacklevel=2)
    return False


def app_link(dataset: Any) -> str:
    """Open the FiftyOne App on a dataset and say where, or say how it is opened.

    A dataset that was given maps is shown beside a list of them. In batch runs nobody would look
    at it, so no server is started there. FiftyOne waits a minute for the App's server; where that
    is too short, what is returned says so.

    Examples
    --------
    >>> print(app_link(dataset))  # doctest: +SKIP
    FiftyOne App: http://localhost:5151/
    """
    if in_batch():
        return "The FiftyOne App opens here when this notebook is run in JupyterLab or Colab."
    fiftyone = connect()
    try:
        with _quiet():
            spaces = _beside_its_maps(fiftyone, dataset)
            session = fiftyone.launch_app(dataset, spaces=spaces, auto=False)
    except Exception as error:  # FiftyOne has no common class for what can fail here
        # The App is for looking; what follows in a notebook needs the database only.
        return (
            f"The FiftyOne App did not start ({type(error).__name__}: {error}). Run this again "
            f"when the machine is less busy, or `fiftyone app launch {dataset.name}` in a terminal."
        )
    # 0.0.0.0 is where the App listens inside a container, not where a browser finds it.
    return f"FiftyOne App: {session.url.replace('0.0.0.0', 'localhost')}"  # noqa: S104


def _beside_its_maps(fiftyone: Any, dataset: Any) -> Any:
    """The App's layout: images left, maps right; None, which is images only, without a map."""
    if not dataset.list_brain_runs(type="visualization"):
        return None
    panels = [
        fiftyone.Panel(type="Samples", pinned=True),
        fiftyone.Panel(type="Embeddings"),
    ]
    halves = [
        # Without an active child a space stays empty in the App.
        fiftyone.Space(children=[panel], active_child=panel.component_id)
        for panel in panels
    ]
    return fiftyone.Space(children=halves, orientation="horizontal")


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out FiftyOne's welcome, a screen of advertisement, in which the link would be lost."""
    logger = logging.getLogger("fiftyone")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
