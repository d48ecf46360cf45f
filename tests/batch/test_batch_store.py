"""The folder of runs: listed, filtered, shown, pruned."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from batch_helpers import command
from run_folders import make_run

from workbench.batch.run_record import Memory, RunError, find_run, prune, read_runs


@pytest.fixture(autouse=True)
def three_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = RunError(type="MemoryLimit", message="full", cause="memory limit", cell=4)
    make_run("one-aaa", days=30, notebook="notebooks/01_map.ipynb", peak_memory_bytes=100_000_000)
    make_run(
        "two-bbb", days=2, notebook="notebooks/01_map.ipynb", peak_memory_bytes=300_000_000,
        status="killed", error=error, memory=Memory(limit_bytes=300_000_000, peak_cell=4),
    )  # fmt: skip
    make_run("three-ccc", notebook="notebooks/02.ipynb", peak_memory_bytes=50_000_000, seconds=3.0)


def test_a_broken_record_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    for name, text in (("broken", "{"), ("empty", "{}")):
        (Path("runs") / name).mkdir()
        (Path("runs") / name / "run.json").write_text(text)
    assert len(read_runs("runs")) == 3
    assert caplog.text.count("cannot be read") == 2


def test_finds_a_run_by_a_part_of_its_id() -> None:
    assert find_run("runs", "one").name == "one-aaa"
    assert find_run("runs", "bbb").name == "two-bbb"
    assert find_run("runs", "last").name == "three-ccc"
    assert find_run("elsewhere", "runs/one-aaa") == Path("runs/one-aaa")
    for name, said in (
        ("t", "2 runs in runs are called 't': three-ccc, two-bbb"),
        ("x", "no runs"),
    ):
        with pytest.raises(LookupError, match=said):
            find_run("runs", name)


def test_prunes_runs_and_nothing_else() -> None:
    Path("runs/one-aaa/deep/er").mkdir(parents=True)
    Path("runs/one-aaa/deep/er/file").write_bytes(bytes(1000))
    Path("kept").mkdir()
    Path("kept/file").touch()
    Path("runs/one-aaa/link").symlink_to(Path("kept").absolute())
    assert prune("runs", ["one-aaa"]) > 1000
    assert not Path("runs/one-aaa").exists()
    assert Path("kept/file").exists()
    Path("runs/mine").mkdir()
    with pytest.raises(LookupError, match="not the folder of a run"):
        prune("runs", ["mine"])


def test_the_command_lists_filters_shows_and_prunes() -> None:
    def said(*arguments: str, code: int = 0) -> str:
        ended, out, err = command("runs", *arguments)
        assert ended == code, err
        return out + err

    listed = said().splitlines()
    assert [line.split()[-1] for line in listed] == ["three-ccc", "two-bbb", "limit)", "one-aaa"]
    assert listed[2].strip() == "MemoryLimit: full in cells[4] (memory limit)"
    assert "one-aaa" not in said("--newer", "7d")
    assert said("--older", "1w", "--notebook", "01_map").split()[-1] == "one-aaa"
    assert said("--status", "killed").count("-") >= 1
    assert said("--status", "running").strip() == "No runs in runs"
    assert json.loads(said("three"))["id"] == "three-ccc"
    assert "no runs in runs are called 'nine'" in said("nine", code=2)
    assert "an age is a number" in said("--older", "soon", code=2)

    assert "Aborted" in said("--prune", "--older", "7d", code=1)  # no answer: nothing is removed
    assert len(list(Path("runs").iterdir())) == 3
    assert "Removed 1 run," in said("--prune", "--older", "7d", "--yes")
    assert not Path("runs/one-aaa").exists()
    assert Path("runs/two-bbb").exists()


@pytest.mark.parametrize(("silent", "status"), [(5, "running"), (900, "killed")])
def test_a_run_elsewhere_lives_as_long_as_its_heart_beats(silent: int, status: str) -> None:
    beat = datetime.now(UTC) - timedelta(seconds=silent)
    make_run("far-ddd", days=-1, status="running", heartbeat=beat, pid_namespace="another")
    assert {r.id: r.status for r in read_runs()}["far-ddd"] == status
    assert json.loads(command("runs", "last")[1])["status"] == status
    listed = command("runs")[1].splitlines()[0]
    assert listed.split()[2] == status
    assert "far-ddd" in listed
    code, _, err = command("runs", "--status", status, "--newer", "1h", "--prune", "--yes")
    assert (code, Path("runs/far-ddd").exists()) == (
        (2, True) if status == "running" else (0, False)
    )
    if status == "running":
        assert "these runs are still running; --force removes them" in err
        assert command("runs", "--newer", "1h", "--prune", "--yes", "--force")[0] == 0
        assert not Path("runs/far-ddd").exists()
