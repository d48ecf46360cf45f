"""Does a notebook's first cell leave Colab as it was? ``python tests/colab/install.py [NOTEBOOK]``.

Makes an environment with the versions that Colab had loaded (packages.txt), starts a kernel in it
that has numpy, pandas and torch imported, runs the notebook's Colab cell there as it stands, except
that the package comes from this checkout, and then the notebook's imports. Fails if any package
that was there has moved or anything cannot be imported without a restart. It takes some minutes and
2 GB, so it is not among the tests. Versions that this Python or the indexes no longer have are left
out and named. `--find-links DIR` is handed to pip: where torch may be found.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import nbformat
from jupyter_client.manager import KernelManager
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# The one part of Colab that cannot be installed: what the cell asks of `google.colab`.
COLAB = """
import sys, types
colab, output = types.ModuleType("google.colab"), types.ModuleType("google.colab.output")
output.enable_custom_widget_manager = lambda: print("widget manager on")
colab.output = output
sys.modules.update({"google.colab": colab, "google.colab.output": output})
import numpy, pandas, torch
"""


def versions(python: Path) -> dict[str, str]:
    """Every installed package's version."""
    found = subprocess.run(
        [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {entry["name"]: entry["version"] for entry in json.loads(found.stdout)}


def environment(folder: Path, options: list[str]) -> Path:
    """Install Colab's versions, leaving out what there is none of for this Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = [x for x in (HERE / "packages.txt").read_text().split("\n") if x and x[0] != "#"]
    pip = [python, "-m", "pip", "install", "--quiet", *options]
    for package in tqdm(wanted, desc="Colab's packages", unit="package"):
        torch = package.startswith(("torch==", "torchvision=="))
        # torch's CPU build of whatever version there is: gigabytes of CUDA would prove no more.
        name = package.partition("==")[0] if torch and options else package
        done = subprocess.run([*pip, "--no-deps", name], capture_output=True, check=False)
        if done.returncode:
            tqdm.write(f"left out: {package}")
    subprocess.run([*pip, "torch"], check=True, capture_output=True)
    return python


def run(python: Path, notebook: Path, folder: Path) -> None:
    """Run the Colab cell and the imports in one kernel, without a restart between them."""
    cells = [c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    here = re.sub(r"git\+[^\"]+", f"file://{ROOT}", cells[0])
    manager = KernelManager()
    manager.kernel_cmd = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=120)
        for source in (COLAB, here, cells[1], cells[2]):
            reply = client.execute_interactive(source, timeout=900)["content"]
            if reply["status"] != "ok":
                sys.exit(f"{notebook.name}: {reply['ename']}: {reply['evalue']}\nin\n{source}")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def main() -> None:
    """Try the notebooks that are named, or all."""
    options = sys.argv[1:3] if sys.argv[1:2] == ["--find-links"] else []
    named = [Path(name) for name in sys.argv[1 + len(options) :]]
    with tempfile.TemporaryDirectory() as place:
        python = environment(Path(place) / "venv", options)
        before = versions(python)
        for notebook in named or sorted((ROOT / "notebooks").glob("*.ipynb")):
            run(python, notebook, Path(place))
            after = versions(python)
            moved = {k: (v, after.get(k)) for k, v in before.items() if after.get(k) != v}
            tqdm.write(f"{notebook.name}: {len(before)} packages, {len(moved)} moved {moved or ''}")
            if moved:
                sys.exit(1)


if __name__ == "__main__":
    main()
