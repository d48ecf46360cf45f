"""Shared by all tests: a FiftyOne database and a cache of their own, and the real data's place."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory):
    """Keep the user's FiftyOne database and cache out of the tests; subprocesses inherit it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("FIFTYONE_DATABASE_DIR", str(home / "mongo"))
        patch.setenv("FIFTYONE_DO_NOT_TRACK", "true")
        yield


@pytest.fixture(scope="module", autouse=True)
def _same_environment(_own_home):
    """Undo what a module did to the environment, which all later runs of notebooks would inherit.

    dask's LocalCluster leaves one thread for BLAS and OpenMP behind, and has malloc give memory
    back so eagerly that large temporary arrays cost several times as much.
    """
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def fiftyone_database() -> None:
    """Skip where a minimal system lacks what MongoDB is linked with; in CI that is a failure."""
    from workbench import show

    if not os.environ.get("CI") and not show.fiftyone_ready():
        pytest.skip("FiftyOne's database does not start here")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real MNIST; tests that need it are skipped where there is none."""
    folder = Path(os.environ.get("WORKBENCH_DATA", ""))
    if not (folder / "mnist").is_dir():
        pytest.skip("needs real MNIST: set WORKBENCH_DATA to a folder that holds mnist/")
    return folder
