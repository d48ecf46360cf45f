"""What a run read and wrote: noted, traced, verified, repeated, compared."""

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from batch_helpers import command, write_notebook

from workbench.batch import Job, read_runs, run_many, run_notebook
from workbench.batch.provenance import compare, differences, rerun, trace, verify
from workbench.batch.results import size_and_sha256

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]

WRITE = """
import pathlib
from workbench import batch
pathlib.Path('numbers.txt').write_text(str(k))
batch.output('numbers.txt', 'numbers')
batch.record('k', k)
"""
READ = """
from pathlib import Path
from workbench import batch
text = Path(data).read_text()
more = batch.input_file(other).read_text()
Path('sum.txt').write_text(text + more)
batch.record('sum', int(text) + int(more))
"""


def test_a_hash_is_what_sha256sum_says(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("b/x.txt", "one"), ("a.txt", "two")):
        (tmp_path / name).write_text(text)
    command = "sha256sum a.txt b/x.txt | sha256sum | cut -d' ' -f1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert size_and_sha256(tmp_path) == (6, done.stdout.strip())
    assert size_and_sha256(tmp_path / "a.txt") == (3, hashlib.sha256(b"two").hexdigest())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that wrote a file, and one that read it together with another file."""
    folder = tmp_path_factory.mktemp("chain")
    write_notebook(folder / "write.ipynb", WRITE, parameters="k: int = 1\nseed: int = 5")
    write_notebook(folder / "read.ipynb", READ, parameters="data: str = ''\nother: str = ''")
    (folder / "other.txt").write_text("38")
    with contextlib.chdir(folder):
        first = run_notebook("write.ipynb", {"k": 4})
        source = first.folder / "numbers.txt"
        second = run_notebook("read.ipynb", {"data": str(source), "other": "./other.txt"})
    assert [r.status for r in (first, second)] == ["succeeded", "succeeded"], second.error
    return folder


@pytest.fixture
def chain(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which becomes the working directory; the folder of the later run."""
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "chain"))
    return read_runs()[0].folder


@pytest.mark.kernel
def test_what_was_read_and_written_is_noted_traced_and_verified(chain: Path) -> None:
    last, first = read_runs()
    assert first.seeds == {"seed": 5}
    assert first.threads
    (numbers,) = [file for file in first.outputs if file.name == "numbers"]
    assert (numbers.path, numbers.size) == ("numbers.txt", 1)
    assert numbers.sha256 == hashlib.sha256(b"4").hexdigest()
    assert {f.path for f in first.outputs} == {
        "numbers.txt", "results.json", "write.html", "write.ipynb",
    }  # fmt: skip
    assert [(f.path, f.name) for f in last.inputs] == [
        (f"runs/{first.id}/numbers.txt", "data"),
        ("other.txt", "other"),
        ("other.txt", None),
    ]

    found = trace("last")
    assert [source.record.id if source else None for _, source in found.inputs] == [
        first.id, None, None,
    ]  # fmt: skip
    lines = found.text().splitlines()
    assert lines[0] == f"read.ipynb  {last.id}  succeeded"
    assert lines[1].startswith("├─ numbers.txt  4b227777")
    assert lines[2] == f"│  └─ write.ipynb  {first.id}  succeeded"
    assert {c.state for c in verify("last")} == {"same"}
    Path("other.txt").write_text("39")
    (chain / "sum.txt").unlink()
    code, out, _ = command("verify", "last")
    assert code == 1
    bad = [line.split() for line in out.splitlines() if not line.startswith("same")]
    assert bad == [
        ["changed", "input", "other.txt"],
        ["changed", "input", "other.txt"],
        ["missing", "output", f"runs/{last.id}/sum.txt"],
    ]


def test_a_run_is_repeated_and_compared(make_notebook: Make, start_workbench: Start) -> None:
    source = (
        "import os, pathlib\nfrom workbench.batch import record\nrecord('k', k)\n"
        "count = len(list(pathlib.Path('..').glob('*/run.json')))\nrecord('loss', 1 + count / 1000)"
    )
    path = make_notebook("a", source, parameters="k: int = 1\nshape: tuple[int, int] = (1, 2)")
    first = run_notebook(path, {"k": 3, "shape": (5, 6)}, timeout=300, memory="3GiB")
    before, after = rerun(first.id)
    configs = [(record.folder / "config.yaml").read_text() for record in (before, after)]
    assert configs[0] == configs[1]
    assert "timeout: 300" in configs[1]
    assert before.id == first.id
    assert after.parent == first.id
    assert after.parameters == {"k": 3, "shape": (5, 6)}
    process = start_workbench("rerun", first.id, "--tolerance", "loss=0")
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert "differs  loss: 1.001 before, 1.003 now" in out
    assert "does not agree" in out


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (0.060, 0.020, False),
        (0.060, 0.0605, True),
        (0.990, 0.985, False),
        (0.99, 0.99005, True),
        (100.0, 100.9, True),
        (100.0, 102.0, False),
        (10, 11, False),
        (0.0, 0.0, True),
        (0.0, 1e-9, False),
        (1.0, 1.0, True),
        ("nan", "nan", True),
        (True, False, False),
        (1.0, None, False),
        ([1.0, 2.0], [1.0, 2.001], True),
        ([1.0, 2.0], [1.0], False),
    ],
)
def test_tolerances_are_scaled_to_the_metric(before: object, after: object, same: bool) -> None:
    assert (differences({"x": before}, {"x": after}) == []) is same
    assert (differences({"x": after}, {"x": before}) == []) is same


def test_a_sweep_is_compared(make_notebook: Make) -> None:
    source = (
        "from workbench.batch import record\nimport pandas as pd\n"
        "record('q', {'recall': k * 0.1 + seed * 0.001, 'n': 7})\n"
        "record('t', pd.DataFrame({'a': [1]}))\nrecord('word', method)"
    )
    path = make_notebook("a", source, parameters="k: int = 1\nseed: int = 0\nmethod: str = 'u'")
    given = [{"k": k, "seed": s} for k in (3, 1) for s in (0, 1)]
    run_many([Job(path, values) for values in given], n_jobs=2)
    table = compare()
    assert table.attrs["swept"] == ["k", "seed"]
    assert table[["k", "seed"]].to_numpy().tolist() == [[1, 0], [1, 1], [3, 0], [3, 1]]
    assert list(table["q.recall"]) == pytest.approx([0.1, 0.101, 0.3, 0.301])
    assert list(table.columns[2:]) == ["status", "seconds", "peak_memory_bytes", "q.recall", "q.n",
                                       "word"]  # fmt: skip
    code, out, err = command("compare", "--to", "t.csv")
    assert code == 0, err
    assert out.splitlines()[0].split()[:3] == ["k", "seed", "status"]
    pd.testing.assert_frame_equal(pd.read_csv("t.csv", index_col=0), table, check_dtype=False)
    assert command("compare", "--to", "t.csv")[0] == 0  # ours is replaced
    Path("mine.csv").write_text("run,mine\n")
    code, _, err = command("compare", "--to", "mine.csv")
    assert (code, Path("mine.csv").read_text()) == (2, "run,mine\n")
    assert err == "error: mine.csv is there already and was not written by workbench\n"
