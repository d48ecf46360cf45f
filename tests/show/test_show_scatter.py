"""The interactive map: its state from Python, its widgets without a browser, its outputs."""

import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from workbench import show
from workbench.show.scatter import Scatter

pytest.importorskip("jscatter")
pytest.importorskip("ipywidgets")


@pytest.mark.parametrize(("version", "given"), [("7.7.1", "&lt;b&gt;"), ("8.1.8", "<b>")])
def test_class_names_are_escaped_where_the_widgets_do_not(ds, xy, monkeypatch, version, given):
    monkeypatch.setattr("ipywidgets.__version__", version)
    scatter = show.scatter(ds.assign_coords({"class": ["<b>", "bee", "cow"]}), xy)
    assert scatter.widget is not None
    assert scatter._panel.class_name.options == (given, "bee", "cow")


@pytest.fixture
def seen(ds, xy):
    scatter = show.scatter(ds, xy, thumbnails=5)
    assert scatter.widget is not None
    return scatter


def shown(scatter):
    """The pictures and captions of the gallery."""
    html = scatter._panel.gallery.value
    images = [
        np.asarray(Image.open(BytesIO(b64decode(uri))))
        for uri in re.findall(r"data:image/png;base64,([^\"]+)", html)
    ]
    return images, re.findall(r"<figcaption[^>]*>([^<]*)<", html)


def canvas(scatter):
    return scatter._panel._plot.widget


def test_a_selection_from_python_fills_gallery_table_and_canvas(seen, ds):
    seen.select([105, 101])
    assert seen.selection().tolist() == [101, 105]
    images, captions = shown(seen)
    assert captions == ["101 · bee", "105 · cow"]
    for image, at in zip(images, (1, 5), strict=True):
        np.testing.assert_array_equal(image[..., :1], ds.image[at])
    assert canvas(seen).selection.tolist() == [1, 5]
    assert "<b>2 selected</b>" in seen._panel.status.value
    seen.select(ds.label == 0)
    assert len(shown(seen)[0]) == 5
    assert "5 of 20 shown" in seen._panel.status.value
    seen.select([])
    assert seen.selection().dtype == ds.sample.dtype
    assert shown(seen) == ([], [])


def test_a_lasso_in_the_canvas_reaches_python(seen):
    canvas(seen).selection = np.array([7, 3], dtype=np.uint32)
    assert seen.selection().tolist() == [103, 107]
    assert shown(seen)[1] == ["103 · ant", "107 · bee"]
    canvas(seen).hovering = 9
    assert "109 · ant" in seen._panel._pointed.value
    canvas(seen).hovering = None
    assert "img" not in seen._panel._pointed.value


def test_tags_corrections_and_the_way_back(seen, ds):
    seen.select([100, 101])
    seen.tag("odd")
    seen.select({101, 102})
    seen.tag("odd")
    seen.relabel("cow")
    assert seen.tags == {"odd": {100, 101, 102}}
    assert seen.corrections == {101: 2, 102: 2}
    assert shown(seen)[1] == ["101 · bee → cow", "102 · cow → cow"]
    labels = seen.labels()
    assert labels.sel(sample=[100, 101, 102, 103]).values.tolist() == [0, 2, 2, 0]
    assert ds.label.sel(sample=101) == 1
    seen.relabel(-1)
    assert seen.labels().sel(sample=101) == -1
    seen.undo()
    assert seen.labels().sel(sample=101) == 2
    seen.undo()
    seen.undo()
    assert seen.tags == {"odd": {100, 101}}
    xr.testing.assert_equal(seen.labels(), ds.label)
    seen.undo()
    seen.undo()
    assert seen.tags == {}


def painted(scatter):
    """The colour of every point in the canvas, and the legend's text."""
    drawn = canvas(scatter)
    codes = np.rint(drawn.points[:, 2]).astype(int)
    legend = scatter.widget.children[0].children[0].value
    return [mpl.colors.to_hex(drawn.color[code]) for code in codes], legend


def test_relabelled_points_take_the_colour_of_their_new_class(seen, ds):
    before, legend = painted(seen)
    assert "no label" not in legend
    ant, bee, cow = (before[list(ds.label.values).index(number)] for number in range(3))
    assert len({ant, bee, cow}) == 3
    seen.select([100])
    seen.relabel("cow")
    after, _ = painted(seen)
    assert after == [cow, *before[1:]]
    assert canvas(seen).selection.tolist() == [0]
    seen.relabel(-1)
    nobody, legend = painted(seen)
    assert nobody[0] not in (ant, bee, cow)
    assert "no label" in legend
    assert "no label" in [text.get_text() for text in seen.figure().legends[0].get_texts()]
    seen.select(ds.label == 1)
    seen.relabel("ant")
    without_bees, legend = painted(seen)
    assert set(without_bees) == {ant, cow, nobody[0]}
    assert "bee" not in legend
    for _ in range(3):
        seen.undo()
    assert painted(seen)[0] == before
    assert "bee" in painted(seen)[1]


def test_points_coloured_by_something_else_keep_their_colour(ds, xy):
    depth = xr.DataArray(np.linspace(2, 5, 60), dims="sample", name="depth")
    wide = show.scatter(ds, xy, depth)
    assert wide.widget is not None
    before = canvas(wide).points.copy()
    wide.select([100])
    wide.relabel("cow")
    np.testing.assert_array_equal(canvas(wide).points, before)


def test_buttons_do_the_same_and_say_what_does_not_work(seen):
    panel = seen._panel
    panel.buttons["tag"].click()
    assert "a tag needs a name" in panel.status.value
    panel.tag_name.value = "odd"
    panel.buttons["tag"].click()
    assert "nothing is selected" in panel.status.value
    seen.select([100])
    panel.buttons["tag"].click()
    assert seen.tags == {"odd": {100}}
    panel.class_name.value = "bea"
    panel.buttons["relabel"].click()
    assert "did you mean &#x27;bee&#x27;" in panel.status.value
    panel.class_name.value = " bee "
    panel.buttons["relabel"].click()
    assert seen.corrections == {100: 1}
    panel.buttons["undo"].click()
    panel.buttons["clear"].click()
    assert seen.corrections == {}
    assert len(seen.selection()) == 0
    panel.buttons["undo"].click()
    panel.buttons["undo"].click()
    assert "nothing to take back" in panel.status.value


def test_the_table_is_what_the_csv_holds(seen):
    seen.select([100, 104])
    seen.tag("b")
    seen.tag("a")
    seen.relabel(2)
    frame = seen.to_frame()
    assert frame.index.tolist() == [100, 104]
    assert frame[["label", "corrected", "tags"]].values.tolist() == [
        ["ant", "cow", "a, b"], ["bee", "cow", "a, b"],
    ]  # fmt: skip
    html = seen._panel._table.value
    csv = b64decode(re.search(r"text/csv;base64,([^\"]+)", html)[1]).decode()
    assert csv == frame.to_csv()
    assert seen.to_frame([159]).label.tolist() == ["cow"]
    with pytest.raises(ValueError, match="1 of 1 ids are not in the dataset"):
        seen.to_frame([5])


def test_what_python_cannot_do_is_an_error(seen, ds, xy):
    with pytest.raises(ValueError, match="2 of 3 ids are not in the dataset; the first is 1"):
        seen.select([1, 100, 2])
    with pytest.raises(ValueError, match="a mask of"):
        seen.select(np.array([True, False]))
    with pytest.raises(ValueError, match="nothing is selected"):
        seen.tag("odd")
    with pytest.raises(ValueError, match=r"no class '9'; there are ant, bee, cow"):
        seen.relabel(9)
    with pytest.raises(ValueError, match=r"60 samples .* shape \(10, 2\)"):
        show.scatter(ds, xy[:10])


def test_multi_label_data_is_tagged_but_not_relabelled(ds, xy):
    several = np.arange(180).reshape(60, 3) % 2 == 0
    multi = show.scatter(ds.drop_vars("label").assign(labels=(("sample", "class"), several)), xy)
    multi.select([100])
    controls = multi.widget.children[1].children[1].children
    assert multi._panel.buttons["relabel"] not in [w for row in controls for w in row.children]
    with pytest.raises(ValueError, match="no single labels"):
        multi.relabel("ant")
    with pytest.raises(ValueError, match="no 'label' to correct"):
        multi.labels()
    assert shown(multi)[1] == ["100 · ant, cow"]


def test_names_are_shown_as_text_and_never_as_html(ds, xy):
    nasty = ds.drop_dims("class").assign_coords({"class": ["<b>", "&", "\"'"]})
    scatter = show.scatter(nasty, xy, title="<script>")
    heading = scatter.widget.children[0].children[0].value
    scatter.select([100, 101, 102])
    assert shown(scatter)[1] == ["100 · &lt;b&gt;", "101 · &amp;", "102 · &quot;&#x27;"]
    assert "&lt;script&gt;" in heading
    assert "&lt;b&gt;" in heading
    scatter.tag("<i>")
    assert "<i>" not in scatter._panel.status.value + scatter._panel._table.value


def test_both_axes_have_one_scale_and_values_one_colour_each(ds, xy):
    value = xr.DataArray(np.r_[np.nan, np.linspace(2, 5, 59)], dims="sample", name="depth")
    wide = show.scatter(ds, xy * np.array([9, 1]), value)
    assert wide.widget is not None
    drawn = canvas(wide)
    spans = [np.ptp(domain) for domain in (drawn.x_scale_domain, drawn.y_scale_domain)]
    assert spans[0] == pytest.approx(spans[1])
    assert mpl.colors.to_hex(drawn.color[0]) == "#d8d8d8"
    assert drawn.points[0, 2] == 0
    assert drawn.points[1:, 2].min() > 0
    assert drawn.points[-1, 2] == pytest.approx(1)


def test_large_images_are_reduced_and_lazy_ones_read_where_needed(xy):
    image = np.random.default_rng(0).integers(0, 9, (60, 300, 200, 3)).astype("uint16")
    big = xr.Dataset({"image": (("sample", "y", "x", "channel"), image)})
    scatter = show.scatter(big.chunk({"sample": 7}), xy)
    assert scatter.widget is not None
    scatter.select([0, 59])
    assert [picture.shape for picture in shown(scatter)[0]] == [(96, 64, 3)] * 2
    assert shown(scatter)[1] == ["0", "59"]


def executed(monkeypatch, run_id):
    """Run a small notebook; return its cell's outputs, its metadata and its HTML."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    exporters = pytest.importorskip("nbconvert.exporters")
    monkeypatch.setenv("WORKBENCH_RUN_ID", run_id)
    code = """
        import numpy as np, xarray as xr
        from workbench import show
        ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((9, 4, 4, 1), "u1"))})
        xy = xr.DataArray(np.random.default_rng(0).random((9, 2)), dims=("sample", "axis"))
        show.scatter(ds, xy)
    """
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(re.sub("\n +", "\n", code))]
    )
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    html, _ = exporters.HTMLExporter(template_name="lab").from_notebook_node(notebook)
    outputs = [set(output.get("data", {})) for output in notebook.cells[0].outputs]
    return outputs, notebook.metadata, html


@pytest.mark.kernel
def test_a_batch_run_shows_the_picture_and_keeps_no_widget(monkeypatch):
    outputs, metadata, html = executed(monkeypatch, "run-7")
    assert outputs == [{"text/plain", "image/png"}]
    assert "widgets" not in metadata
    assert "data:image/png;base64," in html


@pytest.mark.kernel
def test_elsewhere_there_are_a_widget_with_its_state_and_the_picture(monkeypatch):
    outputs, metadata, html = executed(monkeypatch, "")
    assert "application/vnd.jupyter.widget-view+json" in outputs[0]
    assert outputs[1] == {"text/plain", "image/png"}
    state = metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert any(model["model_module"] == "anywidget" for model in state.values())
    assert "data:image/png;base64," in html


def test_batch_runs_need_no_widget_library(ds, xy, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RUN_ID", "run-7")
    monkeypatch.setitem(sys.modules, "jscatter", None)
    still = show.scatter(ds, xy)
    still.select([100])
    assert isinstance(still, Scatter)
    assert repr(still) == "<Scatter of 60 samples, 1 selected>"
    assert "marked (1)" in [t.get_text() for t in still.figure().legends[0].get_texts()]


def test_widget_libraries_are_not_imported_before_they_are_needed():
    code = """
import sys
from workbench import show
assert not {"jscatter", "ipywidgets", "fiftyone"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
