"""Sweeps: read, combined, run, here and on a cluster."""

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from batch_helpers import STARTED, run_ids, survivors, wait_for
from hypothesis import given
from hypothesis import strategies as st

from workbench.batch import Job, JobError, read_runs
from workbench.batch import cluster as cluster_module
from workbench.batch.cluster import RunsLostError, run_on_cluster
from workbench.batch.parameters import CommandLine, Parameter, Sweep, combinations, read_range

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]


@given(st.lists(st.integers(), min_size=1))
def test_numbers_come_back(numbers: list[int]) -> None:
    k = Parameter("k", "int", int, default=0)
    assert list(k.values(CommandLine(str(numbers)))) == numbers


@pytest.mark.parametrize("text", ["range(0)", "range(1, 2, 0)", "range(10**9)", "range(999999999)"])
def test_refuses_a_range_that_is_none(text: str) -> None:
    with pytest.raises(JobError, match="range"):
        read_range(text)


def test_combines_all_with_all() -> None:
    found = combinations({}, {"k": Sweep([1, 2]), "fixed": "x", "seed": Sweep(range(3))})
    assert len(found) == 6
    assert found[0] == {"k": 1, "fixed": "x", "seed": 0}
    assert found[1] == {"k": 1, "fixed": "x", "seed": 1}
    assert combinations({}, {}) == [{}]


SOURCE = "from workbench.batch import record\nrecord('score', k * 10 + seed)"


def test_the_command_sweeps(make_notebook: Make, start_workbench: Start) -> None:
    path = make_notebook("a", SOURCE, parameters="k: int = 1\nseed: int = 0")
    process = start_workbench(
        "run", path, "-p", "k=[1,2]", "-p", "seed=0", "-p", "seed=1", "--jobs", 2
    )
    _, err = process.communicate()
    assert process.returncode == 0, err
    found = read_runs()
    assert sorted((r.given["k"], r.given["seed"]) for r in found) == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert len({r.group for r in found}) == 1
    assert found[0].group
    process = start_workbench("run", path, "-p", "k=1,two", "-p", "seed=range(2)")
    _, err = process.communicate()
    assert process.returncode == 2
    assert err == "error: a.ipynb: 'k' is int, got '1,two', which is str\n"


@pytest.fixture
def scheduler() -> Iterator[str]:
    """The address of a dask cluster on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_runs_the_same_and_ctrl_c_stops_it(
    make_notebook: Make, start_workbench: Start, scheduler: str
) -> None:
    path = make_notebook("a", SOURCE + "\nopen('mine.txt', 'w').close()", parameters="k=1\nseed=0")
    jobs = [Job(path, {"k": k}) for k in (1, 2)]
    found = run_on_cluster(jobs, scheduler, out="far", timeout=200)
    assert [(r.status, r.parameters["k"]) for r in found] == [("succeeded", 1), ("succeeded", 2)]
    assert {str(r.folder.parent) for r in found} == {str(Path("far").absolute())}
    assert found[0].group == found[1].group is not None
    assert found[0].notebook == "a.ipynb"
    assert json.loads((found[1].folder / "results.json").read_text()) == {"score": 20}
    with pytest.raises(JobError, match="unknown parameter 'q'"):
        run_on_cluster([Job(path, {"q": 1})], "tcp://127.0.0.1:1")

    wait = f"{STARTED}\ntime.sleep(600)"
    path = make_notebook("waits", wait, parameters="k: int = 0")
    process = start_workbench("run", path, "-p", "k=range(3)", "--scheduler", scheduler)
    wait_for(lambda: len(list(Path("runs").glob("*/started"))) == 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out.count("interrupted ") == 2
    assert [r.status for r in read_runs()] == ["interrupted"] * 2
    assert not survivors(run_ids(Path("runs")))


def test_lost_runs_are_counted_and_the_others_are_kept(
    make_notebook: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    monkeypatch.setattr(cluster_module, "_PATIENCE", 2.0)
    quick = make_notebook("quick", "1")
    waits = make_notebook("waits", f"{STARTED}\ntime.sleep(600)")
    found: list[RunsLostError] = []

    def run(scheduler: str) -> None:
        with pytest.raises(RunsLostError) as caught:
            run_on_cluster([Job(quick), Job(waits)], scheduler)
        found.append(caught.value)

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as cluster,
    ):
        thread = threading.Thread(target=run, args=[cluster.scheduler_address])
        thread.start()
        wait_for(lambda: list(Path("runs").glob("*/started")))
        wait_for(lambda: "succeeded" in [r.status for r in read_runs()])
        cluster.workers[0].process.process.kill()
        thread.join()
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(RunsLostError, match=r"1 of 1 runs were lost: .* no worker for 2 s"),
    ):
        run_on_cluster([Job(quick)], empty.scheduler_address)
    assert "1 of 2 runs were lost" in str(found[0])
    assert [r.notebook for r in found[0].records] == ["quick.ipynb"]
    wait_for(lambda: "interrupted" in [r.status for r in read_runs()])
    (lost,) = [r for r in read_runs() if r.status == "interrupted"]
    assert lost.error is not None
    assert lost.error.message == "the dask worker that ran this is gone"
