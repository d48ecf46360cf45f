"""What can befall a run, for real; after each, its record is true and nothing else is lost."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from batch_helpers import STARTED, run_ids, survivors, wait_for
from nbclient.exceptions import CellTimeoutError

from workbench.batch import Job, RunRecord, processes, read_runs, run_many, run_notebook
from workbench.batch.processes import Group
from workbench.batch.worker import Worker

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]
HOG = "x = b'x' * (600 * 2**20)\nimport time\ntime.sleep(120)"


def loaded(record: RunRecord) -> RunRecord:
    """The record as the file has it, which must be what the run returned."""
    again = RunRecord.load(record.folder)
    assert again == record
    document = nbformat.read(record.folder / Path(record.notebook).name, as_version=4)
    nbformat.validate(document)
    assert not survivors([record.id])
    return again


def can_make_groups() -> bool:
    group = Group.create("probe", 2**30, process.pid) if (process := sleeper()) else None
    process.kill()
    process.wait()
    if group:
        group.remove()
    return group is not None


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"])


@pytest.mark.parametrize("held_by", ["control group", "watching"])
def test_a_run_at_its_memory_limit(
    make_notebook: Make, monkeypatch: pytest.MonkeyPatch, held_by: str
) -> None:
    if held_by == "watching":  # as where the user may make no control groups
        monkeypatch.setattr(processes, "_homes", lambda: iter(()))
    elif not can_make_groups():
        pytest.skip("no control group can be made here")
    path = make_notebook("hog", "print('kept')", HOG, "3", parameters="k: int = 1")
    record = loaded(run_notebook(path, {"k": 2}, memory="400MiB"))
    assert record.error is not None
    assert (record.status, record.error.type) == ("killed", "MemoryLimit")
    assert record.error.cause == "memory limit"
    assert record.error.message == "the run reached its memory limit of 400 MiB"
    assert record.error.cell == 3
    assert record.memory.held_by == held_by
    assert record.memory.killed == (held_by == "control group")
    assert record.memory.limit_bytes == 400 * 2**20
    assert record.memory.samples
    assert record.memory.last[-1][2] == 3
    assert "kept" in (record.folder / "hog.html").read_text()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/workbench-{record.id}"))


def test_a_child_killed_at_the_limit_is_the_reason_of_the_failure(make_notebook: Make) -> None:
    if not can_make_groups():
        pytest.skip("no control group can be made here")
    child = "import sys; x = b'x' * (600 * 2**20)"
    source = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    record = loaded(run_notebook(make_notebook("parent", source), memory="400MiB"))
    assert record.error is not None
    assert (record.status, record.error.type) == ("failed", "CalledProcessError")
    assert record.error.cause == "memory limit"
    assert record.memory.killed == 1


def test_a_crash_and_an_exit_are_the_codes_own_doing(make_notebook: Make) -> None:
    crash = make_notebook("crash", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    leave = make_notebook("leave", "import os\nos._exit(3)")
    said = ("crashed with SIGSEGV", "ended itself with exit code 3")
    for record, words in zip(run_many([Job(crash), Job(leave)], n_jobs=2), said, strict=True):
        loaded(record)
        assert record.error is not None
        assert (record.status, record.error.cause) == ("killed", "code")
        assert record.error.message == f"the kernel {words}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk(make_notebook: Make, small_disk: Path) -> None:
    fill = "with open('big', 'wb') as file:\n    while True: file.write(bytes(4096))"
    record = loaded_from(
        run_notebook(make_notebook("fills", "'before'", fill), out=small_disk, cwd="run")
    )
    assert record.error is not None
    assert (record.status, record.error.type) == ("failed", "OSError")
    assert "No space left on device" in record.error.message
    assert record.error.cell == 2
    assert record.memory.samples


def test_a_disk_that_is_full_from_the_start(make_notebook: Make, small_disk: Path) -> None:
    path = make_notebook("a", "1")
    (before,) = run_many([Job(path)], out=small_disk)
    with suppress(OSError), (small_disk / "big").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    record = run_notebook(path, out=small_disk)
    assert record.error is not None
    assert (record.status, record.error.cause) == ("failed", "system")
    assert "No space left on device" in record.error.message
    assert not record.folder.exists()
    assert loaded_from(before).status == "succeeded"
    assert [r.id for r in read_runs(small_disk)] == [before.id]


def loaded_from(record: RunRecord) -> RunRecord:
    """The record as the file has it; the executed notebook is whole or not there."""
    again = RunRecord.load(record.folder)
    assert again == record
    for path in record.folder.glob("*.ipynb"):
        nbformat.read(path, as_version=4)
    assert not survivors([record.id])
    return again


def test_two_runners_share_a_folder(make_notebook: Make, start_workbench: Start) -> None:
    path = make_notebook(
        "a", "from workbench.batch import record\nrecord('k', k)", parameters="k=0"
    )
    both = [start_workbench("run", path, path, "-p", f"k={k}") for k in (1, 2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    found = read_runs()
    assert sorted(r.parameters["k"] for r in found) == [1, 1, 2, 2]
    assert len({r.id for r in found}) == 4
    for record in found:
        results = json.loads((record.folder / "results.json").read_text())
        assert results == {"k": record.parameters["k"]}


def test_fifty_megabytes_of_prints(make_notebook: Make) -> None:
    source = "line = 'x' * 99\nfor i in range(500_000): print(line)\nprint('the end')"
    record = loaded(run_notebook(make_notebook("prints", source, "'after'")))
    assert record.status == "succeeded"
    assert "cell-1-stdout.txt" in record.files
    whole = (record.folder / "cell-1-stdout.txt").stat().st_size
    assert whole == 100 * 500_000 + len("the end\n")
    document = nbformat.read(record.folder / "prints.ipynb", as_version=4)
    text = "".join(o.text for o in document.cells[1].outputs)
    assert text.endswith("the end\n")
    assert "left out here; the whole is in cell-1-stdout.txt" in text
    assert (record.folder / "prints.ipynb").stat().st_size < 300_000
    assert (record.folder / "prints.html").stat().st_size < 2_000_000


def test_bars_leave_one_line(make_notebook: Make) -> None:
    source = (
        "import time\nfrom tqdm import tqdm\n"
        "for _ in tqdm(range(300), desc='bar', mininterval=0): time.sleep(0.001)"
    )
    record = loaded(run_notebook(make_notebook("bar", source)))
    document = nbformat.read(record.folder / "bar.ipynb", as_version=4)
    (output,) = document.cells[1].outputs
    assert output.text.strip().startswith("bar: 100%")
    assert output.text.strip().count("\n") == output.text.count("\r") == 0
    assert (record.folder / "log.txt").read_text() == ""


def test_a_bar_that_wipes_itself_out_leaves_nothing(make_notebook: Make) -> None:
    source = "from tqdm import tqdm\nfor _ in tqdm(range(300), leave=False): pass\nprint('said')"
    record = loaded(run_notebook(make_notebook("wiped", source)))
    document = nbformat.read(record.folder / "wiped.ipynb", as_version=4)
    assert [output.text for output in document.cells[1].outputs] == ["said\n"]


def test_ctrl_c_with_eight_running(make_notebook: Make, start_workbench: Start) -> None:
    source = f"{STARTED}\ntime.sleep(600)"
    path = make_notebook("waits", source)
    process = start_workbench("run", *[path] * 9, "--jobs", 8)
    wait_for(lambda: len(list(Path("runs").glob("*/started"))) == 8)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    records = read_runs()
    assert len(records) == out.count("interrupted") == 8
    for record in records:
        assert record.status == "interrupted"
        assert record.error is not None
        assert (record.error.cause, record.error.cell) == ("interruption", 1)
    assert not survivors(run_ids(Path("runs")))


@pytest.mark.parametrize(
    ("cell_timeout", "message", "expected"),
    [
        (600.0, "A cell timed out", ("timed-out", "CellTimeoutError", "timeout")),
        (600.0, "Timeout waiting for IOPub output", ("failed", "OutputTimeout", "system")),
        (None, "Timeout waiting for IOPub output", ("failed", "OutputTimeout", "system")),
    ],
)
def test_outputs_that_do_not_come_are_no_slow_cell(
    cell_timeout: float | None, message: str, expected: tuple[str, str, str]
) -> None:
    worker = Worker.__new__(Worker)
    worker.job, worker.stop, worker.secrets = {"cell_timeout": cell_timeout}, None, []
    worker.cell, worker.source = 0, "x"
    outcome = worker.explain(CellTimeoutError(message))
    assert outcome.error is not None
    assert (outcome.status, outcome.error.type, outcome.error.cause) == expected
