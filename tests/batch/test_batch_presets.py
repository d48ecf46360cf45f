"""Configurations: composed, migrated, validated against the notebooks, saved and repeated."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from notebook_contract import NOTEBOOKS, ROOT

from workbench.batch import JobError, RunConfig, compose, run_notebook
from workbench.batch.notebook import Notebook
from workbench.batch.parameters import read_parameters
from workbench.batch.presets import load_config

Make = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]


def write(path: str, text: str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return Path(path)


@pytest.fixture
def project(make_notebook: Make) -> None:
    """A folder with a notebook and presets."""
    Path("notebooks").mkdir()
    make_notebook("notebooks/01_a", "1", parameters="n: int = 5\nname: str = 'x'")
    write("notebooks/presets/smoke.yaml", "defaults: [{limits: short}, _self_]\nversion: 4\n"
          "values: {few: 7}\nnotebooks: {a: {n: '${values.few}'}}")  # fmt: skip
    write("notebooks/presets/limits/short.yaml", "timeout: 10")
    write("notebooks/presets/limits/long.yaml", "timeout: 99\nmemory: 4GiB")


def test_a_preset_is_composed_and_can_be_overridden(project: None) -> None:
    config = compose("smoke")
    assert config.parameters_of("notebooks/01_a.ipynb") == {"n": 7}
    assert (config.limits.timeout, config.limits.memory) == (10, None)
    config = compose("smoke", ["limits=long", "values.few=8", "+notebooks.a.name=y"])
    assert config.parameters_of("notebooks/01_a.ipynb") == {"n": 8, "name": "y"}
    assert (config.limits.timeout, config.limits.memory) == (99, "4GiB")


def test_ones_own_file_builds_on_a_preset(project: None) -> None:
    own = write("mine/own.yaml", "defaults: [smoke, _self_]\nnotebooks: {a: {name: z}}\njobs: 2")
    config = compose(own)
    assert config.parameters_of("notebooks/01_a.ipynb") == {"n": 7, "name": "z"}
    assert (config.jobs, config.limits.timeout) == (2, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 4\nnotebooks: {a: {epcohs: 1, n: 2}}",
            "notebooks.a: unknown parameter 'epcohs'",
        ),
        ("version: 4\nnotebooks: {a: {n: two}}", "notebooks.a: 'n' is int, got 'two'"),
        ("version: 4\nnotebooks: {b: {}}", "notebooks.b: no notebook is called so in notebooks"),
        ("version: 4\nsweep: {n: [1, x]}\nnotebooks: {a: {}}", "'n' is int, got 'x'"),
        ("version: 4\nsweep: {n: 'range(0)'}\nnotebooks: {a: {}}", "range(0) has no values"),
        ("version: 4\nlimits: {timeout: -1}", "limits.timeout is -1; it should be greater than 0"),
        ("version: 4\nlimits: {memory: lots}", "limits.memory: a size is a number and a unit"),
        ("version: 4\ntimeout: 1", "there is no timeout; allowed are version, notebooks_folder"),
        ("version: 2", "version is one of 3, 4; got 2"),
        ("jobs: 2", "version is one of 3, 4; got None"),
        ("version: 3\njobs: 0", "jobs is 0; it should be greater than or equal to 1"),
        ("version: 3\nnotebooks: {a: {n: x}}", "own.yaml: notebooks.a: 'n' is int, got 'x'"),
        ("version: 4\nfolder: x", "there is no folder; allowed are version, notebooks_folder"),
        ("- 1", "a mapping is expected, got list"),
        ("a: &a [1]\nb: [" + "*a, " * 30 + "]", "has more than 20 aliases"),
        ("version: 4\nvalues: {home: '${oc.env:HOME}'}", "does not read environment variables"),
        ("{", "is not YAML"),
        ("version: 4\ndefaults: [nothing, _self_]", "Could not load 'nothing'"),
        ("version: 4\nvalues: {a: '${values.b}'}", "values.b"),
    ],
)
def test_what_is_wrong_is_named(project: None, text: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        compose(write("own.yaml", text))
    assert any(said in problem for problem in caught.value.problems), caught.value.problems


def test_an_old_version_becomes_the_newest(project: None) -> None:
    Path("notebooks").rename("mine")
    old = "version: 3\nfolder: mine\nnotebooks: {a: {n: 3}}\njobs: 2"
    new = RunConfig(notebooks_folder="mine", notebooks={"a": {"n": 3}}, jobs=2)
    assert compose(write("old.yaml", old)) == new
    assert compose("old.yaml", ["jobs=3"]).jobs == 3
    third = {"version": 3, "folder": "mine", "notebooks": {"a": {"n": 3}}, "jobs": 2}
    assert load_config(third, "") == new


def test_a_saved_configuration_gives_the_same_run(
    make_notebook: Make, start_workbench: Start
) -> None:
    path = make_notebook(
        "a",
        "from workbench.batch import record\nrecord('all', [k, word, repr(shape), names])",
        parameters="k: int = 1\nword: str | None = None\nshape: tuple[int, int] = (1, 2)\n"
        "names: dict[int, str] = {}",
    )
    first = run_notebook(path, {"k": 7, "shape": (3, 4), "names": {1: "a: b\n#"}}, timeout=300)
    process = start_workbench("run", "--config", first.folder / "config.yaml", "--out", "again")
    _, err = process.communicate()
    assert process.returncode == 0, err
    (saved,) = Path("again").glob("*/run.json")
    again = json.loads(saved.read_text())
    assert again["notebook_sha256"] == first.notebook_sha256
    assert again["parameters"] == json.loads(first.model_dump_json())["parameters"]
    results = [json.loads((f / "results.json").read_text()) for f in (first.folder, saved.parent)]
    assert results[0] == results[1]
    configs = [
        yaml.safe_load((f / "config.yaml").read_text()) for f in (first.folder, saved.parent)
    ]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("name", ["smoke", "standard", "full"])
def test_the_projects_presets_fit_its_notebooks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = compose(name)
    assert config.limits.timeout
    for path in NOTEBOOKS:
        known = read_parameters(Notebook.read(path))
        given = config.parameters_of(path)
        changed = {k for k, v in given.items() if known[k].default != v}
        assert changed == set(given), f"{name} sets parameters of {path.stem} to their defaults"
