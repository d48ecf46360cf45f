"""Find FiftyOne and open its App."""

import functools
import os
import warnings
from typing import Any

from platformdirs import user_cache_path

from workbench._extras import MissingExtraError, need

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

    In batch runs nobody would look at it, so no server is started there.
    """
    if os.environ.get("WORKBENCH_RUN_ID"):
        return "The FiftyOne App opens here when this notebook is run in JupyterLab or Colab."
    session = connect().launch_app(dataset, auto=False)
    # 0.0.0.0 is where the App listens inside a container, not where a browser finds it.
    return f"FiftyOne App: {session.url.replace('0.0.0.0', 'localhost')}"  # noqa: S104
