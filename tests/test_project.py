"""The project's own files agree with one another, and the package is light to import."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from notebook_contract import NOTEBOOKS
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import workbench
from workbench._extras import DISTRIBUTION, REPOSITORY, MissingExtraError, need

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCKS = [(ROOT / name).read_text() for name in ("requirements.lock", "torch.lock")]
LOCKED = {canonicalize_name(n) for lock in LOCKS for n in re.findall(r"^([\w.-]+)==", lock, re.M)}


def requirements():
    """Every outside requirement of the package and its extras."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(line) for group in groups for line in group]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def test_environment_yml_installs_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert python == "python" + PROJECT["requires-python"]
    assert (pip, from_pip) == ("pip", {"pip": ["-e .[all]"]})
    assert environment["name"] == "workbench"


def test_the_extra_all_holds_every_other_extra():
    extras = PROJECT["optional-dependencies"]
    reached, waiting = set(), ["all"]
    while waiting:
        for requirement in map(Requirement, extras[waiting.pop()]):
            if requirement.name == PROJECT["name"]:
                waiting += requirement.extras - reached
                reached |= requirement.extras
    assert reached == set(extras) - {"all"}


def test_the_locks_cover_pyproject_the_build_and_the_installer():
    build = map(Requirement, PYPROJECT["build-system"]["requires"])
    wanted = {canonicalize_name(r.name) for r in [*requirements(), *build]} | {"uv", "editables"}
    assert not wanted - LOCKED


@pytest.mark.parametrize("lock", LOCKS, ids=["requirements", "torch"])
def test_the_locks_are_hashed_and_name_no_host(lock):
    assert "://" not in lock
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_upper_pins():
    """The package must install beside what a hosted notebook has loaded already."""
    pinned = [str(r) for r in requirements() if r.marker is None
              and any(s.operator not in (">=", "!=") for s in r.specifier)]  # fmt: skip
    assert not pinned


def loaded_by(statement):
    """Top-level modules that a statement loads in a fresh interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {"numpy", "pandas", "xarray", "matplotlib", "sklearn", "torch", "fiftyone", "umap"}


@pytest.mark.parametrize("statement", ["import workbench", "import workbench.commands"])
def test_importing_the_package_loads_nothing_heavy(statement):
    assert not HEAVY & loaded_by(statement)


def test_topics_load_no_optional_library_before_it_is_used():
    loaded = loaded_by("from workbench import datasets, embeddings, show, batch")
    assert not {"fiftyone", "umap", "sklearn", "torch", "papermill"} & loaded


@pytest.mark.parametrize("topic", workbench.__all__)
def test_every_public_name_of_a_topic_exists(topic):
    package = import_module(f"workbench.{topic}")
    assert len(set(package.__all__)) == len(package.__all__)
    assert not [name for name in package.__all__ if not hasattr(package, name)]


def test_attribute_access_imports_topics():
    assert "xarray" in loaded_by("import workbench; workbench.datasets")
    with pytest.raises(AttributeError, match="no attribute 'dataset'"):
        getattr(__import__("workbench"), "dataset")  # noqa: B009


def test_a_missing_extra_is_named():
    with pytest.raises(MissingExtraError, match=r"^no_such_library is not installed\.") as caught:
        need("no_such_library.part", extra="images")
    ours, here = re.findall(r"pip install '(.*?)'", str(caught.value))
    assert (Requirement(ours).name, Requirement(ours).extras) == (PROJECT["name"], {"images"})
    assert Requirement(ours).url == f"git+{PROJECT['urls']['Repository']}@v{workbench.__version__}"
    assert here == ".[images]"


def foreign(text):
    """What pip is told to install that is neither this package nor what the locks hold."""
    for hint in text.split("pip install ")[1:]:
        command = re.split(r"[`#)\n]|\\n", hint, maxsplit=1)[0]
        for name, extras in re.findall(
            r"""(?:^|[\s"'])(\.|[a-z][\w.-]*)(\[[\w,]+\])?(?=[\s"'\\=<>]|$)""", command, re.I
        ):
            ours = name in (".", PROJECT["name"])
            file = name.endswith((".txt", ".lock"))
            if not (ours or file or (canonicalize_name(name) in LOCKED and not extras)):
                yield name + extras


def test_every_hint_installs_this_package_and_not_another_of_its_name():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    files = [ROOT / line for line in tracked.splitlines() if not line.startswith("tests/")]
    texts = {file: file.read_text(errors="replace") for file in files if file.is_file()}
    assert sum("pip install " in text for text in texts.values()) > len(NOTEBOOKS)
    assert {file: [*foreign(text)] for file, text in texts.items() if [*foreign(text)]} == {}


@pytest.mark.parametrize(
    "hint", ["pip install 'workbench[labels]'", "`pip install workbench`", "%pip install -q x[a]"]
)
def test_a_hint_that_names_another_distribution_is_found(hint):
    assert len([*foreign(hint)]) == 1


def test_a_source_tree_without_metadata_can_be_imported(tmp_path):
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from importlib import metadata\n"
        "def missing(name): raise metadata.PackageNotFoundError(name)\n"
        "metadata.distribution = metadata.version = metadata.metadata = missing\n"
        "import workbench, workbench.batch, workbench.commands\n"
        "print(workbench.__version__, workbench.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    imported, file = done.stdout.split()
    assert imported == workbench.__version__
    assert Path(file) == tmp_path / "src" / "workbench" / "__init__.py"


def test_the_changelog_begins_with_the_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == workbench.__version__


def test_the_address_is_the_projects():
    assert (PROJECT["name"], PROJECT["urls"]["Repository"]) == (DISTRIBUTION, REPOSITORY)


def test_a_library_that_breaks_while_importing_raises_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import something_it_needs")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs") as caught:
        need("half_installed", extra="images")
    assert not isinstance(caught.value, MissingExtraError)


def test_the_command_names_a_missing_extra_and_nothing_else(tmp_path):
    code = "import sys; sys.modules['papermill'] = None; import workbench.commands as c; c.main()"
    command = [sys.executable, "-c", code, "run", str(ROOT / "notebooks/01_mnist_embeddings.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: papermill is not installed")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
