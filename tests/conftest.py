"""Shared by all tests: a FiftyOne database and a cache of their own, and the real data's place.

What runs beside what: ``make test`` has two workers, each with its own home. A file's tests stay
together, for what its fixtures share; those that run a whole notebook go wherever there is room,
and first, so that no worker ends long after the other. One worker alone starts FiftyOne's database
for the tests of FiftyOne.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# An example that takes long on a busy machine is not wrong.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

# Two workers with two threads each would wait for each other's; notebooks' kernels inherit this.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

#: Fixtures that bring a kernel or MongoDB into a test.
_KERNELS = {"make_notebook", "start_workbench", "fiftyone_database", "browser"}
_PROGRAMS = re.compile("ipykernel|forkserver|fiftyone/service|mongod|chromium|playwright")


def pytest_configure(config):
    """Hold the quick tests to it that they start no kernel, no MongoDB and no browser."""
    if "not kernel" in config.option.markexpr:
        sys.addaudithook(_refuse)


def _refuse(event, given):
    if event == "subprocess.Popen" and _PROGRAMS.search(" ".join(map(str, given[1]))):
        raise RuntimeError("a test that starts a kernel, MongoDB or a browser is marked `kernel`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what starts a kernel, and say which tests stay with one worker."""
    for item in items:
        notebook = _runs_a_notebook(item)
        if notebook or _KERNELS & {*item.fixturenames}:
            item.add_marker("kernel")
        if "fiftyone_database" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("fiftyone"))
        elif not notebook:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: not _runs_a_notebook(item))


def _runs_a_notebook(item):
    file = item.path.stem
    return file.startswith("test_notebook_") or (file == "test_notebooks" and item.cls is not None)


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


#: WebGL without a graphics card, as jupyter-scatter and FiftyOne's plots need it.
_CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window: one for all tests of a worker, where a second cannot start."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=chromium, args=_CHROMIUM_FLAGS)
        yield running
        running.close()
