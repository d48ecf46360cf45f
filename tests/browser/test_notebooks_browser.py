"""Every curated notebook, opened in JupyterLab and run from top to bottom."""

import nbformat
import pytest
from jupyterlab_driving import open_notebook, run_all, saved_notebook
from notebook_contract import NOTEBOOKS
from notebook_running import smoke
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def small(request, lab):
    """A copy of a notebook, made small by the parameters of the preset `smoke`."""
    notebook = parameterize_notebook(
        load_notebook_node(str(request.param)), smoke(request.param.stem)
    )
    nbformat.write(notebook, lab.folder / request.param.name)
    return request.param.name


@pytest.mark.browser
@pytest.mark.timeout(1800)
def test_all_cells_run(small, lab, tab, keep):
    open_notebook(tab, lab, small)
    run_all(tab, patience=900)
    keep(tab, "end")
    cells = [cell for cell in saved_notebook(tab, lab, small).cells if cell.cell_type == "code"]
    failed = [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert failed == []
    assert all(cell.execution_count for cell in cells)
    look_through(tab, keep)


def look_through(tab, keep):
    """Screenshots of the notebook from top to bottom."""
    tab.set_viewport_size({"width": 1280, "height": 2400})
    top = tab.locator(".jp-WindowedPanel-outer").first
    n = 0
    while True:
        top.evaluate("(box, n) => { box.scrollTop = n * 2200; }", n)
        tab.wait_for_timeout(500)
        keep(tab, f"{n:02d}")
        if top.evaluate("box => box.scrollTop + box.clientHeight >= box.scrollHeight - 2"):
            return
        n += 1
