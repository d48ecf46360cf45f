"""Widgets as pictures, for pages in which no kernel and no script runs.

nbclient keeps the state of an executed notebook's widgets; what the common ones show is drawn from
it in plain HTML. Of a widget that is not known, what it is set to is shown.
"""

import itertools
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from typing import Any

from workbench.batch.scatter_picture import draw as draw_scatter

VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
_COLUMN = ("VBoxModel", "AccordionModel", "TabModel", "StackModel")
_KNOWN = ("@jupyter-widgets/controls", "@jupyter-widgets/base", "@jupyter-widgets/output")
_LOOKS = ("layout", "style", "tabbable", "tooltip")
_MOST = 20


def leave_pictures(document: Any) -> None:
    """Add HTML to each output of a notebook that is a widget and has no picture of its own."""
    state = document.metadata.get("widgets", {}).get(_STATE, {}).get("state", {})
    for cell in document.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            pictured = any(kind == "text/html" or kind.startswith("image/") for kind in data)
            if VIEW in data and not pictured:
                drawn = _draw(data[VIEW].get("model_id", ""), state)
                if drawn:
                    data["text/html"] = drawn


def _draw(identifier: str, state: Mapping[str, Any]) -> str:
    """Return a widget's HTML; nothing if it shows nothing."""
    model = state.get(identifier.removeprefix("IPY_MODEL_"))
    if model is None:
        return ""
    name, values = model["model_name"], model["state"]
    if "children" in values:
        return _box(name, values, state)
    if name == "ImageModel":
        return _image(model)
    if name == "MPLCanvasModel":  # ipympl
        return f'<img alt="figure" src="{escape(values.get("_data_url", ""))}">'
    if name == "OutputModel":
        return "".join(_output(output) for output in values["outputs"])
    if model["model_module"] not in _KNOWN:
        return _foreign(model)
    return _control(name, values)


def _box(name: str, values: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """Return what holds others, with the titles of tabs above theirs."""
    children = [_draw(child, state) for child in values["children"]]
    titles = values.get("titles") or ()
    drawn = [
        f"<div><b>{escape(title)}</b>{child}</div>" if title else child
        for title, child in itertools.zip_longest(titles, children, fillvalue="")
    ]
    direction = "column" if name in _COLUMN else "row"
    style = f"display:flex;flex-flow:{direction} wrap;gap:.3em .8em"
    return f'<div style="{style}">{"".join(drawn)}</div>' if any(children) else ""


def _foreign(model: Mapping[str, Any]) -> str:
    """Return a widget of another library: its picture if we can draw it, else what it is set to."""
    values = model["state"]
    kind = str(values.get("_anywidget_id") or model["model_name"].removesuffix("Model"))
    if kind == "jscatter.widget.JupyterScatter":
        with suppress(StopIteration, KeyError, ValueError, TypeError):  # of another version
            return draw_scatter(model)
    settings = {name: _setting(value) for name, value in values.items() if name[:1] != "_"}
    rows = [
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(said)}</td></tr>'
        for name, said in settings.items()
        if said is not None and name not in _LOOKS
    ]
    name = escape(kind.rpartition(".")[2])
    return f"<table><caption>{name}</caption>{''.join(rows[:_MOST])}</table>"


def _setting(value: Any) -> str | None:
    """Return what a widget is set to in a few words; None for what says nothing."""
    if value is None or (isinstance(value, str) and value.startswith("IPY_MODEL_")):
        return None
    if isinstance(value, list | dict) and len(value) > 5:
        return f"{len(value):,} values"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _control(name: str, values: Mapping[str, Any]) -> str:
    """Return a single control: its description and what it is set to."""
    label = escape(str(values.get("description") or ""))
    value = values.get("value")
    if name in ("HTMLModel", "HTMLMathModel"):
        return f"<div>{label} {value}</div>"
    if name.endswith("ProgressModel"):
        low, high = values.get("min", 0), values.get("max", 100)
        return f'<div>{label} <progress max="{high - low}" value="{value - low}"></progress></div>'
    if name == "ButtonModel":
        return f"<button disabled>{label}</button>"
    if name == "CheckboxModel":
        return f"<div>{'☑' if value else '☐'} {label}</div>"
    if "_options_labels" in values:
        index = values.get("index")
        chosen = index if isinstance(index, list) else [] if index is None else [index]
        value = ", ".join(values["_options_labels"][i] for i in chosen)
    elif value is None:
        return ""
    if isinstance(value, list):
        value = " – ".join(map(str, value)) or "nothing"
    return f"<div>{label} <b>{escape(str(value))}</b></div>"


def _image(model: Mapping[str, Any]) -> str:
    for buffer in model.get("buffers", []):
        if buffer["path"] == ["value"] and buffer["encoding"] == "base64":
            kind = escape(model["state"].get("format", "png"))
            data = buffer["data"].replace("\n", "")
            return f'<img alt="image" src="data:image/{kind};base64,{data}">'
    return ""


def _output(output: Mapping[str, Any]) -> str:
    """Return what a cell's output inside an Output widget shows."""
    if output["output_type"] == "stream":
        return f"<pre>{escape(output['text'])}</pre>"
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="output" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "text/html" in data:
        return str(data["text/html"])
    return f"<pre>{escape(str(data.get('text/plain', output.get('evalue', ''))))}</pre>"
