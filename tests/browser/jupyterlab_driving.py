"""JupyterLab as `make lab` starts it, and what a person does in it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import expect

TOKEN = "only-for-this-test"
#: Long enough for a machine with other things to do; a quiet one never waits for it.
PATIENCE = 120
expect.set_options(timeout=PATIENCE * 1000)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
#: Settings that keep JupyterLab from asking the internet for its news.
QUIET = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    }
}


@dataclass
class Lab:
    """A running server: where it answers, the folder it shows, its process."""

    address: str
    folder: Path
    server: subprocess.Popen

    def api(self, path, method="GET"):
        """What the server's REST interface answers."""
        request = urllib.request.Request(f"{self.address}/api/{path}", method=method)
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or "null")

    def end_kernels(self):
        """End every notebook's kernel."""
        for session in self.api("sessions"):
            self.api(f"sessions/{session['id']}", method="DELETE")

    def write(self, name, *sources):
        """Write a notebook of code cells."""
        cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
        nbformat.write(notebook, self.folder / name)


def free_port():
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(folder, own):
    """JupyterLab on a free port, with a token and none of the user's settings."""
    environment = _environment(own)
    port = free_port()
    command = [
        sys.executable, "-m", "jupyter", "lab", "--allow-root", "--no-browser",
        f"--notebook-dir={folder}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}",
    ]  # fmt: skip
    with (own / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _answering(f"{address}/api/status?token={TOKEN}", server, own / "log")
        yield Lab(address, folder, server)
    finally:
        server.terminate()
        server.wait(60)


def _environment(own):
    names = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    environment = {**os.environ, **{f"JUPYTER_{name}": str(own / name) for name in names}}
    environment |= {
        "IPYTHONDIR": str(own / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(own / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces"),
        "FIFTYONE_DEFAULT_APP_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("WORKBENCH_RUN_ID", "WORKBENCH_DATA"):
        environment.pop(name, None)
    for name, settings in QUIET.items():
        file = own / "settings" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    return environment


def _answering(url, server, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab does not answer:\n{log.read_text()}")


def open_notebook(tab, lab, name):
    """Open a notebook alone in a fresh workspace, its kernel started."""
    tab.goto(f"{lab.address}/lab/tree/{name}?token={TOKEN}&reset")
    tab.wait_for_selector(".jp-Notebook .jp-Cell")
    tab.wait_for_selector(".jp-Notebook .jp-Spinner", state="detached")
    tab.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    # Before it is connected to the kernel, JupyterLab asks which one to take.
    until = time.monotonic() + PATIENCE
    while not any(s["kernel"]["connections"] for s in lab.api("sessions")):
        assert time.monotonic() < until, "the kernel does not start"
        tab.wait_for_timeout(200)


def menu(tab, *labels):
    """Click through the menus at the top.

    A menu that is opened before JupyterLab knows which notebook is in front has other entries, all
    disabled, and keeps them until it is opened again.
    """
    top = tab.locator("#jp-MainMenu .lm-MenuBar-item", has_text=labels[0])
    entries = tab.locator(".lm-Menu-item:not(.lm-mod-hidden):not(.lm-mod-disabled)")
    until = time.monotonic() + PATIENCE
    top.click()
    while not entries.get_by_text(labels[1], exact=True).is_visible():
        assert time.monotonic() < until, f"{labels[0]} has no {labels[1]}"
        tab.keyboard.press("Escape")
        tab.wait_for_timeout(200)
        top.click()
    for label in labels[1:]:
        entries.get_by_text(label, exact=True).click()


def run_all(tab, patience=PATIENCE):
    """Run all cells; wait, so many seconds, until the last one is done or one has failed."""
    done = """() => {
        const prompts = document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt');
        const status = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status;
        const last = [...prompts].at(-1)?.textContent;
        const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.error"]');
        return status === 'idle' && (failed || /[0-9]/.test(last));
    }"""
    started = re.compile(r"[*0-9]")
    prompts = tab.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt")
    # While JupyterLab connects to the kernel it can lose an order, on a busy machine above all.
    for _ in range(3):
        menu(tab, "Run", "Run All Cells")
        with suppress(AssertionError):
            expect(prompts.filter(has_text=started).first).to_be_visible(timeout=PATIENCE * 250)
            break
    tab.wait_for_function(done, timeout=patience * 1000, polling=200)


def run_last(tab):
    """Run the last cell, and return what it prints."""
    cell = tab.locator(".jp-Notebook .jp-CodeCell").last
    prompt = cell.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    cell.locator(".cm-content").click()
    tab.keyboard.press("Control+Enter")
    expect(prompt).not_to_have_text(before)
    expect(prompt).to_have_text(re.compile(r"[0-9]"))
    return cell.locator(".jp-OutputArea-output").inner_text()


def saved_notebook(tab, lab, name):
    """Save the notebook from the menu, and read its file."""
    menu(tab, "File", "Save Notebook")
    tab.wait_for_selector(".lm-TabBar-tab.jp-mod-dirty", state="detached")
    return nbformat.read(lab.folder / name, 4)


def use_theme(tab, name):
    """Choose one of JupyterLab's themes, `"Light"` or `"Dark"`."""
    menu(tab, "Settings", "Theme", f"JupyterLab {name}")
    light = "true" if name == "Light" else "false"
    tab.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
    tab.wait_for_selector("#jupyterlab-splash", state="detached")
