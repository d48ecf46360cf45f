"""The command, in a process of its own: exit codes, signals, the report."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
from batch_helpers import STARTED, run_ids, survivors, wait_for

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]
SLEEP = f"{STARTED}\ntime.sleep(600)"


def saved(run_id: str) -> dict[str, object]:
    return dict(json.loads((Path("runs") / run_id / "run.json").read_text()))


def worker_of(run_id: str) -> psutil.Process:
    for process in psutil.process_iter():
        try:
            mine = Path(process.cwd()).name == run_id
            if mine and any("multiprocessing.forkserver" in word for word in process.cmdline()):
                return process
        except (psutil.Error, OSError):
            continue
    raise AssertionError("no worker")


def test_runs_and_reports(make_notebook: Make, start_workbench: Start) -> None:
    Path("notebooks").mkdir()
    source = "from workbench.batch import record\nrecord('k', k)\nrecord('bad <b>', '<script>')"
    make_notebook("notebooks/b", source, parameters="k: int = 1")
    make_notebook("notebooks/a", source + "\n1 / 0", parameters="k: int = 1")
    process = start_workbench("run", "--all", "-p", "k=1_000", "--jobs", 2)
    out, err = process.communicate()
    assert process.returncode == 1, err
    first, reason, second, report = out.splitlines()
    assert first.startswith("failed ")
    assert reason.strip() == "ZeroDivisionError: division by zero in cells[2]"
    assert second.startswith("succeeded ")
    assert report == f"Runs: {Path('runs/index.html')}"
    assert len([line for line in err.splitlines() if line]) == 4  # two lines a run

    page = Path("runs/index.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "This invocation" in page
    for run_id in run_ids(Path("runs")):
        assert f'href="{run_id}/' in page
    listed, _ = start_workbench("runs").communicate()
    assert [line.split()[2] for line in listed.splitlines() if line[0] != " "] == [
        saved(run_id)["status"]
        for run_id in sorted(run_ids(Path("runs")), key=lambda i: str(saved(i)["started"]))[::-1]
    ]


def test_what_is_wrong_is_said_before_anything_is_made(
    make_notebook: Make, start_workbench: Start
) -> None:
    make_notebook("a", "1", parameters="epochs: int = 1")
    make_notebook("b", "1", parameters="n: int = 1")
    cases = {
        ("run", "a.ipynb", "-p", "epcohs=1"): "did you mean 'epochs'?",
        ("run", "a.ipynb", "b.ipynb", "-p", "epochs=2"): "b.ipynb: unknown parameter 'epochs'",
        ("run", "a.ipynb", "-p", "epochs"): "-p takes name=value, got 'epochs'",
        ("run", "a.ipynb", "-p", "epochs=1", "-p", "epochs=x"): "'epochs' is int, got 'x'",
        ("run", "a.ipynb", "-k", "ir"): "the kernel 'ir' is not installed; there are ",
        ("run", "a.ipynb", "--memory", "lots"): "a size is a number and a unit",
        ("run", "a.ipynb", "--preset", "no"): "there is no preset 'no'",
        ("run",): "name the notebooks to run",
        ("run", "--all"): "there are none here",
        ("run", "none.ipynb"): "none.ipynb: No such file",
        ("run", "a.ipynb", "--out", "a.ipynb/runs"): "runs cannot be written here",
    }
    started = {arguments: start_workbench(*arguments) for arguments in cases}
    for arguments, process in started.items():
        out, err = process.communicate()
        assert (process.returncode, out) == (2, ""), arguments
        assert cases[arguments] in err
        assert "Traceback" not in err
    assert not Path("runs").exists()


def test_a_folder_without_permission_is_said(make_notebook: Make, start_workbench: Start) -> None:
    make_notebook("a", "1")
    Path("runs").mkdir(mode=0o555)
    _, err = start_workbench("run", "a.ipynb").communicate()
    assert err == "error: runs: runs cannot be written here: Permission denied\n"
    assert not list(Path("runs").iterdir())


def test_a_termination_stops_all_and_starts_no_more(
    make_notebook: Make, start_workbench: Start
) -> None:
    for name in "abc":
        make_notebook(name, "1", SLEEP)
    process = start_workbench("run", "a.ipynb", "b.ipynb", "c.ipynb", "--jobs", 2)
    wait_for(lambda: len(list(Path("runs").glob("*/started"))) == 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    ids = run_ids(Path("runs"))
    assert len(ids) == 2
    for run_id in ids:
        record = saved(run_id)
        assert record["status"] == "interrupted"
        assert record["error"]["cell"] == 2  # type: ignore[index]
        assert f"{record['notebook']}".replace(".ipynb", ".html") in record["files"]  # type: ignore[operator]
    assert out.count("interrupted") == 2
    assert not survivors(ids)


def test_a_killed_worker_is_recorded(make_notebook: Make, start_workbench: Start) -> None:
    make_notebook("a", "print('kept')", SLEEP, parameters="k: int = 1")
    process = start_workbench("run", "a.ipynb", "-p", "k=2")
    wait_for(lambda: list(Path("runs").glob("*/started")))
    (run_id,) = run_ids(Path("runs"))
    worker_of(run_id).kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    record = saved(run_id)
    assert record["status"] == "killed"
    assert record["error"]["type"] == "SIGKILL"  # type: ignore[index]
    assert record["error"]["cell"] == 3  # type: ignore[index]
    assert {"a.html", "results.json"} <= set(record["files"])  # type: ignore[call-overload]
    page = (Path("runs") / run_id / "a.html").read_text()
    assert "kept" in page
    assert "ended by SIGKILL" in page
    assert not survivors([run_id])


def test_a_killed_fork_server_loses_no_run(make_notebook: Make, start_workbench: Start) -> None:
    source = f"{STARTED}\ntime.sleep(3)"
    make_notebook("a", source)
    process = start_workbench("run", "a.ipynb")
    wait_for(lambda: list(Path("runs").glob("*/started")))
    (run_id,) = run_ids(Path("runs"))
    fork_server = worker_of(run_id).parent()
    assert fork_server is not None
    fork_server.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert saved(run_id)["status"] == "succeeded"
    assert not survivors([run_id])


def test_a_killed_parent_leaves_nobody(make_notebook: Make, start_workbench: Start) -> None:
    make_notebook("a", "import subprocess\nsubprocess.Popen(['sleep', '1000'])", SLEEP)
    process = start_workbench("run", "a.ipynb")
    wait_for(lambda: list(Path("runs").glob("*/started")))
    (run_id,) = run_ids(Path("runs"))
    assert len(survivors([run_id])) >= 3  # worker, kernel, sleep
    process.kill()
    process.wait()
    wait_for(lambda: not survivors([run_id]))
    assert saved(run_id)["status"] == "running"
    listed, _ = start_workbench("runs").communicate()
    assert "killed" in listed
    assert "the process that supervised this run is gone" in listed
