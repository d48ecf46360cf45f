"""Batch runs and what strangers send: folders of runs, configurations, pages and secrets.

Each test builds the hostile input itself.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

import nbformat
import pytest
from run_folders import make_run
from typer.testing import CliRunner

from workbench.batch import (
    Job,
    JobError,
    RunRecord,
    compose,
    read_runs,
    rerun,
    run_notebook,
    run_pipeline,
    write_index,
    write_report,
)
from workbench.batch.cli import app
from workbench.batch.html_page import is_our_page, to_html
from workbench.batch.jobs import check_jobs
from workbench.batch.notebook import write_text
from workbench.batch.presets import read_yaml
from workbench.batch.results import HashingStoppedError, file_state, size_and_sha256
from workbench.batch.run_record import prune, results_of

pytestmark = pytest.mark.kernel
SECRET = "hunter2-correct-horse"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_notebook(name: str, *cells: str, parameters: str = "") -> Path:
    notebook = nbformat.v4.new_notebook()
    tags = {"tags": ["parameters"]}
    notebook.cells = [nbformat.v4.new_code_cell(parameters, metadata=tags)] * bool(parameters)
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, name)
    return Path(name)


def foreign_run(name: str, **fields: Any) -> Path:
    """A folder of a run as somebody else may send it."""
    return make_run(name, **fields).folder


class TestSecrets:
    def test_the_environment_is_recorded_by_a_list_of_names(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hidden = ["GDAL_HTTP_USERPWD", "GDAL_HTTP_BEARER", "DASK_GATEWAY__AUTH__KWARGS"]
        hidden += ["TORCH_HUB_PW", "WORKBENCH_DB", "CUDA_LICENSE", "LC_MINE"]
        for name in hidden:
            monkeypatch.setenv(name, SECRET)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        record = run_notebook(write_notebook("a.ipynb", "1"))
        assert record.environment["OMP_NUM_THREADS"] == "2"
        assert not {*hidden} & record.environment.keys()
        assert SECRET not in (record.folder / "run.json").read_text()

    def test_a_secret_reaches_the_kernel_and_no_file(self) -> None:
        source = (
            "import os, sys\nprint(len(password), word.get_secret_value() == password)\n"
            "print(password)\nprint(password, file=sys.stderr)\nos.write(2, password.encode())"
        )
        leaks = (
            "from workbench import batch\nbatch.record('leak', password)\n"
            "raise ValueError(password)"
        )
        path = write_notebook(
            "a.ipynb",
            source,
            "print('x' * 300_000 + password)",
            leaks,
            parameters="from pydantic import SecretStr\npassword: str = ''\nword: SecretStr = ''",
        )
        given = {"password": SECRET, "word": SECRET}
        record = run_notebook(path, given)
        assert (record.status, record.error and record.error.type) == ("failed", "ValueError")
        document = nbformat.read(record.folder / "a.ipynb", as_version=4)
        assert document.cells[2].outputs[0].text.startswith(f"{len(SECRET)} True\n")
        assert record.parameters == {"password": "**********", "word": "**********"}
        write_index()
        write_report([record], "report")
        files = [p for place in ("runs", "report") for p in Path(place).rglob("*") if p.is_file()]
        assert len(files) > 7
        assert [p for p in files if SECRET.encode() in p.read_bytes()] == []

        with pytest.raises(JobError, match="'password' was a secret, which no record keeps"):
            rerun(record.id)
        executed = Job(record.folder / "a.ipynb")
        with pytest.raises(JobError, match="'password' was a secret in an earlier run"):
            check_jobs([executed])
        assert check_jobs([Job(executed.notebook, given)])[0].given == given

    def test_folders_of_runs_are_the_users_own(self) -> None:
        record = run_notebook(write_notebook("a.ipynb", "1"))
        for folder in (Path("runs"), record.folder):
            assert folder.stat().st_mode & 0o077 == 0


class TestForeignRuns:
    def test_a_record_is_that_of_its_folder(self, caplog: pytest.LogCaptureFixture) -> None:
        folder = foreign_run("mine")
        foreign_run("theirs", id="mine")
        (Path("runs") / "link").symlink_to(folder.absolute())
        os.mkfifo(Path("runs") / "pipe")
        for name, target in (("linked", "/etc/hostname"), ("fifo", None)):
            (Path("runs") / name).mkdir()
            place = Path("runs") / name / "run.json"
            place.symlink_to(target) if target else os.mkfifo(place)
        assert [record.id for record in read_runs()] == ["mine"]
        assert "it is the record of 'mine', not of 'theirs'" in caplog.text

    def test_paths_in_a_record_lead_nowhere_else(self) -> None:
        Path("outside").mkdir()
        Path("outside/secret.txt").write_text(SECRET)
        Path("outside/results.json").write_text(json.dumps({"leak": SECRET}))
        outputs = [
            {"path": path, "size": 3, "sha256": "0" * 64, "name": name}
            for name, path in (
                ("up", "../../outside/secret.txt"),
                ("absolute", str(Path("outside/secret.txt").absolute())),
                ("linked", "link.txt"),
                ("through", "folder/secret.txt"),
                ("device", "zero"),
                ("nul", "a\0b"),
            )
        ]
        folder = foreign_run("mine", notebook="../../outside/secret.txt", outputs=outputs)
        (folder / "link.txt").symlink_to(Path("outside/secret.txt").absolute())
        (folder / "folder").symlink_to(Path("outside").absolute())
        (folder / "zero").symlink_to("/dev/zero")
        (folder / "results.json").symlink_to(Path("outside/results.json").absolute())
        (folder / "secret.html").symlink_to(Path("outside/secret.txt").absolute())
        record = RunRecord.load(folder)
        assert [record.file(file.path) for file in record.outputs] == [None] * 6
        assert record.file("") is record.file(".") is record.file("..") is None
        assert results_of(record) == {}
        write_index()
        write_report([record], "report")
        made = [p for p in [*Path("report").rglob("*"), Path("runs/index.html")] if p.is_file()]
        assert not [path for path in made if SECRET in path.read_text()]
        assert sorted(p.name for p in Path("report").iterdir()) == ["index.html"]

    def test_a_page_that_may_run_scripts_is_not_passed_on(self) -> None:
        folder = foreign_run("mine")
        ours = to_html(nbformat.v4.new_notebook(), "a", ".")
        weaker = ours.replace("script-src 'none'; ", "")
        cases = ((ours, True), (weaker, False), (f"<script>1</script>{ours}", False))
        for text, shown in cases:
            (folder / "a.html").write_text(text)
            assert is_our_page(folder / "a.html") is shown
            for path in Path("report").glob("*"):
                path.unlink()
            write_report(read_runs(), "report")
            assert Path("report/a.html").exists() is shown

    def test_prune_goes_by_the_folders_names(self) -> None:
        foreign_run("theirs", id="../../precious")
        Path("precious").mkdir()
        Path("precious/run.json").write_text("{}")
        (Path("runs") / "link").symlink_to(Path("precious").absolute())
        for name in ("link", "../precious", ".", "", str(Path("precious").absolute())):
            with pytest.raises(LookupError, match="is not the folder of a run"):
                prune("runs", [name])
        assert Path("precious/run.json").exists()
        prune("runs", ["theirs"])
        assert not Path("runs/theirs").exists()

    def test_a_changed_notebook_is_not_repeated_unasked(self) -> None:
        record = run_notebook(write_notebook("a.ipynb", "1"))
        write_notebook("a.ipynb", "open('ran', 'w')")
        done = CliRunner().invoke(app, ["rerun", record.id])
        assert done.exit_code == 1
        assert "a.ipynb is not the notebook that ran as" in done.stdout
        with pytest.raises(JobError, match=r"is not the notebook that ran as .* even_if_changed"):
            rerun(record.id)
        assert not Path("ran").exists()
        before, after = rerun(record.id, even_if_changed=True)
        assert (before.id, after.status) == (record.id, "succeeded")
        assert (after.folder / "ran").exists() or Path("ran").exists()


class TestOverwriting:
    def test_foreign_pages_are_left(self) -> None:
        foreign_run("mine")
        for place in ("runs", "report"):
            Path(place).mkdir(exist_ok=True)
            Path(place, "index.html").write_text("<h1>precious</h1>")
        with pytest.raises(FileExistsError, match="was not written by workbench"):
            write_index()
        with pytest.raises(FileExistsError, match="was not written by workbench"):
            write_report(read_runs(), "report")
        assert Path("report/index.html").read_text() == "<h1>precious</h1>"
        assert Path("runs/index.html").read_text() == "<h1>precious</h1>"

    def test_a_notebook_called_index_is_beside_the_report(self) -> None:
        record = run_notebook(write_notebook("index.ipynb", "'the page itself'"))
        write_report([record], "report")
        assert "the page itself" in Path(f"report/{record.id}.html").read_text()
        assert "How to repeat it" in Path("report/index.html").read_text()

    def test_a_temporary_file_follows_no_link(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("precious").write_text("kept")
        monkeypatch.setattr("secrets.token_hex", lambda n: "00")
        Path(".a.txt.00.part").symlink_to("precious")
        with pytest.raises(FileExistsError):
            write_text(Path("a.txt"), "new")
        assert Path("precious").read_text() == "kept"

    def test_a_run_never_takes_anothers_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import secrets

        first = run_notebook(write_notebook("a.ipynb", "1"))
        drawn = iter([first.id[-6:]] * 3 + ["abcdef"])
        real = secrets.token_hex
        monkeypatch.setattr(
            "workbench.batch.run.secrets.token_hex",
            lambda n: next(drawn, "abcdef") if n == 3 else real(n),
        )
        monkeypatch.setattr("workbench.batch.run.datetime", _Frozen(first.started))
        second = run_notebook("a.ipynb")
        assert (second.status, second.id[-6:]) == ("succeeded", "abcdef")
        assert RunRecord.load(first.folder) == first


class _Frozen:
    """A clock that stands."""

    def __init__(self, moment: Any) -> None:
        self.moment = moment

    def now(self, zone: Any) -> Any:
        return self.moment


class _SetWhenAsked(threading.Event):
    """An event that is set once it has been asked for a few times."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.asked = after, 0

    def is_set(self) -> bool:
        self.asked += 1
        return self.asked > self.after


class TestHangsAndSizes:
    def test_pipes_and_devices_are_no_inputs(self, tmp_path: Path) -> None:
        os.mkfifo("pipe")
        for name in ("pipe", "/dev/zero"):
            with pytest.raises(OSError, match="neither a file nor a folder"):
                size_and_sha256(Path(name))
        path = write_notebook("a.ipynb", "1", parameters="data: str = ''")
        for name in ("./pipe", "/dev/zero", "a/\0b"):
            assert run_notebook(path, {"data": name}).status == "succeeded"
        with pytest.raises(JobError, match="not a regular file"):
            run_notebook("pipe")
        for name in ("pipe", "/dev/zero"):
            with pytest.raises(JobError, match="not a regular file"):
                run_pipeline(name)

    def test_a_large_folder_is_hashed_by_listing_and_can_be_stopped(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("data").mkdir()
        for n in range(3):
            with Path(f"data/{n}.bin").open("wb") as file:
                file.truncate(2**30)  # holes, which take no space
        opened: list[Path] = []
        really_open = Path.open
        monkeypatch.setattr(
            Path, "open", lambda path, *how: opened.append(path) or really_open(path, *how)
        )
        state = file_state(Path("data"))
        assert (state["size"], state["hashed"]) == (3 * 2**30, "listing")
        assert file_state(Path("data")) == state
        os.utime("data/0.bin", (0, 0))
        assert file_state(Path("data"))["sha256"] != state["sha256"]
        assert opened == []  # no content of it was read
        stop = _SetWhenAsked(after=3)
        with pytest.raises(HashingStoppedError):
            file_state(Path("data"), contents=True, stop=stop)
        assert opened == [Path("data/0.bin")]
        assert stop.asked == 4

    def test_hashing_ends_with_the_runs_time(self, caplog: pytest.LogCaptureFixture) -> None:
        Path("data").mkdir()
        with Path("data/big.bin").open("wb") as file:
            file.truncate(2**42)
        path = write_notebook("a.ipynb", "1", parameters="data: str = ''")
        from workbench.batch import run_many

        job = Job(path, {"data": "./data"})
        (record,) = run_many([job], hash_contents=True, timeout=20)
        assert record.status == "succeeded"
        assert [(file.path, file.sha256) for file in record.inputs] == [("data", "")]
        assert "data was not hashed: there was no time" in caplog.text

    def test_yaml_that_grows_is_refused(self) -> None:
        bomb = ["a0: &a0 [x, x]"]
        bomb += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
        Path("bomb.yaml").write_text("\n".join(bomb))
        Path("large.yaml").write_text("a: " + "x" * 2_000_000)
        Path("deep.yaml").write_text("[" * 50_000)
        for name, said in (
            ("bomb", "aliases"),
            ("large", "bytes"),
            ("deep", "nested more than 50 deep"),
        ):
            with pytest.raises(JobError, match=said):
                read_yaml(Path(f"{name}.yaml"))
            with pytest.raises(JobError, match=said):
                compose(f"{name}.yaml")

    def test_a_configuration_reads_no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("API_KEY", SECRET)
        Path("own.yaml").write_text("version: 4\nvalues: {k: '${oc.env:API_KEY}'}")
        with pytest.raises(JobError, match="does not read environment variables") as caught:
            compose("own.yaml")
        assert SECRET not in str(caught.value)

    def test_texts_that_make_patterns_slow(self) -> None:
        """A pattern that looks back would take hours, and the limit of every test ends it."""
        from workbench._units import parse_size
        from workbench.batch.html_page import safe_html
        from workbench.batch.parameters import read_range
        from workbench.batch.report import _unmarked

        for refused in ("1" * 200_000, "1" * 200_000 + "x"):
            with pytest.raises(ValueError, match="a size is a number"):
                parse_size(refused)
        with pytest.raises(JobError, match="a sweep is a list or range"):
            read_range("range(" + "1," * 100_000)
        for script in ("<script>" * 20_000, "<script" * 20_000 + "</script" * 20_000):
            assert "<script" not in safe_html(script)
        marks = "**a" * 3_000 + "![" * 3_000 + "[" * 3_000
        assert len(_unmarked(marks)) <= len(marks)


HOSTILE = {
    "script": "<script>document.title='ran'</script><b>kept</b>",
    "handler": "<img src=x onerror=\"document.title='ran'\"><b>kept</b>",
    "link": "<a href=\"javascript:document.title='ran'\">kept</a>",
    "refresh": '<meta http-equiv="refresh" content="0; url=http://127.0.0.1:9/leak"><b>kept</b>',
    "form": '<form action="http://127.0.0.1:9/leak"><input name=a><b>kept</b></form>',
    "frame": "<iframe src=\"javascript:parent.document.title='ran'\"></iframe><b>kept</b>",
    "style": "<style>body{display:none}</style><b>kept</b>",
    "image": '<img alt="far" src="http://127.0.0.1:9/leak"><b>kept</b>',
    "svg": "<svg onload=\"document.title='ran'\"><text>kept</text></svg>",
    "base": '<base href="http://127.0.0.1:9/"><b>kept</b>',
}


@pytest.fixture(scope="module")
def page() -> str:
    """A page of a notebook that tries everything, in its texts and in its outputs."""
    notebook = nbformat.v4.new_notebook()
    for html in HOSTILE.values():
        shown = nbformat.v4.new_output("display_data", {"text/html": html, "text/plain": "plain"})
        notebook.cells.append(nbformat.v4.new_markdown_cell(html))
        notebook.cells.append(nbformat.v4.new_code_cell("1", outputs=[shown]))
        marked = nbformat.v4.new_output("display_data", {"text/markdown": html})
        notebook.cells.append(nbformat.v4.new_code_cell("2", outputs=[marked]))
    return to_html(notebook, "<script>1</script>", ".")


def test_a_page_holds_no_script_and_names_no_address(page: str) -> None:
    for text in ("<script", "javascript:", "<form", "<base", 'http-equiv="refresh"'):
        assert text not in page
    assert " onerror=" not in page
    assert "127.0.0.1" not in page
    assert "script-src 'none'" in page
    assert page.count('sandbox=""') >= 2


def test_a_browser_runs_and_asks_nothing(page: str, tmp_path: Path, browser: Any) -> None:
    (tmp_path / "page.html").write_text(page)
    asked: list[str] = []
    tab = browser.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_timeout(500)
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert tab.title() == "<script>1</script>"
    assert tab.get_by_text("kept").count() >= 2 * len(HOSTILE) - 4
    assert tab.evaluate("getComputedStyle(document.body).display") != "none"
    tab.close()
