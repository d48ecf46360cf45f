"""Parameters: read from the cell by ast, and checked before anything starts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.batch.notebook import JobError, Notebook
from workbench.batch.parameters import (
    CommandLine,
    check_parameters,
    move_paths,
    read_parameters,
    undeclared,
)


def document_of(*cells: dict[str, Any]) -> dict[str, Any]:
    cells = tuple({"metadata": {}, **cell} for cell in cells)
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def notebook_of(source: str) -> Notebook:
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": ["parameters"]}}
    return Notebook(Path("a.ipynb"), b"", document_of(cell))


def check(source: str, **given: Any) -> dict[str, Any]:
    return check_parameters(read_parameters(notebook_of(source)), given)


def typed(source: str, text: str) -> Any:
    return check(source, p=CommandLine(text))["p"]


@pytest.mark.parametrize(
    ("annotation", "default", "text", "value"),
    [
        ("int", "1", "10_000", 10_000),
        ("int", "1", "1e3", 1000),
        ("int", "1", "-3", -3),
        ("float", "1.0", "2", 2.0),
        ("float", "1.0", "1e-3", 1e-3),
        ("bool", "False", "true", True),
        ("bool", "True", "False", False),
        ("str", "'x'", "a=b=c", "a=b=c"),
        ("str", "'x'", "1", "1"),
        ("str", "'x'", "none", "none"),
        ("str", "'x'", "", ""),
        ("str | None", "None", "a=b", "a=b"),
        ("str | None", "'x'", "None", None),
        ("str | None", "'x'", "null", None),
        ("Optional[str]", "None", "photos/a.png", "photos/a.png"),
        ("'str | None'", "None", "x", "x"),
        ("Path | None", "None", "data", "data"),
        ("int | None", "None", "none", None),
        ("int | str", "'auto'", "3", 3),
        ("int | str", "'auto'", "auto", "auto"),
        ("list[int]", "[]", "[1, 2]", [1, 2]),
        ("list[str]", "[]", '["a=1", "b"]', ["a=1", "b"]),
        ("tuple[int, int]", "(1, 2)", "[3, 4]", (3, 4)),
        ("tuple[int, ...]", "()", "(3, 4, 5)", (3, 4, 5)),
        ("dict[str, bool]", "{}", '{"a": true}', {"a": True}),
        ("dict[int, str]", "{}", "{1: 'a'}", {1: "a"}),
        ("Literal['umap', 'tsne']", "'umap'", "tsne", "tsne"),
        ("Literal[1, 2]", "1", "2", 2),
        ("Any", "None", "[1, 'a']", [1, "a"]),
        ("Any", "None", "plain", "plain"),
    ],
)
def test_reads_text_as_the_type(annotation: str, default: str, text: str, value: Any) -> None:
    found = typed(f"p: {annotation} = {default}", text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "text", "said"),
    [
        ("p: int = 1", "one", "'p' is int, got 'one', which is str"),
        ("p: int = 1", "True", "'p' is int, got True, which is bool"),
        ("p: int = 1", "1.5", "'p' is int, got 1.5, which is float"),
        ("p: float = 1.0", "true", "'p' is float, got True, which is bool"),
        ("p: float = 1.0", "1e999", "'p' is float, got inf, which is float"),
        ("p: bool = True", "1", "'p' is bool, got 1, which is int"),
        ("p: list[int] = []", "[1, 'a']", "'p' is list[int], got [1, 'a'], which is list"),
        ("p: Literal['a', 'b'] = 'a'", "c", "'p' is Literal['a', 'b'], got 'c'"),
        ("p = 3", "x", "'p' is int, got 'x'"),
        ("p: str = 'a'  #@param ['a', 'b']".replace("'", '"'), "c", "is one of 'a', 'b'; got 'c'"),
        ("p: int = 5  #@param {type:'slider', min:1, max:50}", "51", "from 1 to 50; got 51"),
    ],
)
def test_says_what_is_wrong_with_a_value(source: str, text: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        typed(source, text)
    assert said in caught.value.problems[0]


def test_colab_forms_that_restrict_nothing() -> None:
    assert typed('p: str = "a"  #@param ["a", "b"] {allow-input: true}', "c") == "c"
    assert typed('p: int = 1  #@param ["1", "2"] {type:"raw"}', "2") == 2
    assert typed('p: int = 1  #@param {type:"integer"}', "2") == 2
    assert typed('p: str | None = None  #@param ["a"]', "none") is None


def test_takes_typed_values() -> None:
    source = (
        "k: int = 1\nx: float = 0.5\ns: str = ''\np: Path = ''\nshape: tuple[int, int] = (1, 2)"
    )
    found = check(
        source, k=np.int64(3), x=np.float64(0.25), s=Path("a/b"), p=Path("c"), shape=(3, 4)
    )
    assert found == {"k": 3, "x": 0.25, "s": "a/b", "p": "c", "shape": (3, 4)}
    assert [type(v) for v in found.values()] == [int, float, str, str, tuple]


def test_reports_everything_together_with_the_nearest_name() -> None:
    with pytest.raises(JobError) as caught:
        check("epochs: int = 2\nrate: float = 0.1", epcohs=1, rate="fast", other=object())
    first, second, third = caught.value.problems
    assert "unknown parameter 'epcohs'; did you mean 'epochs'?" in first
    assert "the parameters are epochs, rate" in first
    assert "'rate' is float, got 'fast', which is str" in second
    assert "unknown parameter 'other' (" in third


def test_refuses_what_no_notebook_can_hold() -> None:
    for value in ([Path("a")], {1, 2}, float("nan"), [float("inf")], b"x"):
        with pytest.raises(JobError, match="'p' "):
            check("p: Any = None", p=value)


def test_without_a_tagged_cell_any_name_is_taken() -> None:
    notebook = Notebook(Path("a.ipynb"), b"", document_of({"cell_type": "code", "source": "n = 1"}))
    assert read_parameters(notebook) == {}
    assert check_parameters({}, {"n": CommandLine("1"), "s": CommandLine("x y")}) == {
        "n": 1,
        "s": "x y",
    }
    for text in ("123", "[1]"):  # a secret is a text, and one
        assert check_parameters({}, {"api_key": CommandLine(text)}) == {"api_key": text}
        assert list(undeclared("api_key").values(CommandLine(text))) == [text]
    with pytest.raises(JobError, match="'a-b' is no name of a variable"):
        check_parameters({}, {"a-b": 1})


@pytest.mark.parametrize(
    ("source", "name", "text", "value"),
    [
        ("epochs = 2\nsteps = epochs * 10", "steps", "7", 7),
        ("n: int", "n", "3", 3),
        ("n: int = 'a'", "n", "3", 3),
        ("n: int = None", "n", "3", 3),
        ("n: List[int] = [1]", "n", "[2]", [2]),
        ("n: typing.Optional[int] = None", "n", "none", None),
        ("n: os.PathLike = 'a'", "n", "b", "b"),
        ("n: __import__('os').system('true') = 1", "n", "2", 2),
        ("a = b = 1", "b", "2", 2),
        ("a, b = 1, 'x'", "b", "y", "y"),
        ("%matplotlib inline\n!ls\nk = 60*60", "k", "2", 2),
        ("for i in range(3): pass\nk = 1", "k", "2", 2),
        ("SEED = DEFAULT_SEED", "SEED", "51", 51),
        ("where = os.path.join('a', 'b')", "where", "c", "c"),
        ("rate = float('nan')", "rate", "0.5", 0.5),
        ("k: int = 60  #@param {min:1, max:50}", "k", "70", 70),
        ("k = 'x'  #@param ['a', 'b']", "k", "c", "c"),
        ("k = 1  #@param {min: low, max:50}", "k", "2", 2),
    ],
)
def test_any_code_may_stand_in_the_cell(source: str, name: str, text: str, value: Any) -> None:
    assert check(source, **{name: CommandLine(text)}) == {name: value}


def test_a_cell_that_is_no_python_declares_nothing() -> None:
    assert read_parameters(notebook_of("x <- 1 # R")) == {}


@pytest.mark.parametrize(
    ("source", "name", "secret"),
    [
        ("password = ''", "password", True),
        ("db_password: str = 'x'", "db_password", True),
        ("HF_TOKEN: str | None = None", "HF_TOKEN", True),
        ("api_key = os.environ['KEY']", "api_key", True),
        ("word: SecretStr = ''", "word", True),
        ("max_tokens = '4'", "max_tokens", False),
        ("token = 3", "token", False),
        ("tokenizer = 'bpe'", "tokenizer", False),
        ("keyword = 'x'", "keyword", False),
    ],
)
def test_secrets_are_known_by_name_or_type(source: str, name: str, secret: bool) -> None:
    assert read_parameters(notebook_of(source))[name].secret is secret


@pytest.mark.parametrize(
    ("source", "text", "values"),
    [
        ("p: int = 1", "7", ["7"]),
        ("p: int = 1", "[7, 30]", [7, 30]),
        ("p: int = 1", "7,30", [7, 30]),
        ("p: int = 1", "range(3)", [0, 1, 2]),
        ("p: int = 1", "range(4, 0, -2)", [4, 2]),
        ("p: float = 1", "[0.5, 1]", [0.5, 1]),
        ("p: list[int] = []", "[7, 30]", ["[7, 30]"]),
        ("p: list[int] = []", "[[7], [30]]", [[7], [30]]),
        ("p: str = ''", "airplane,runway,trees", ["airplane,runway,trees"]),
        ("p: str = ''", "['a', 'b']", ["['a', 'b']"]),
        ("p: str | None = None", "range(3)", ["range(3)"]),
        ("p: str | None = None", "a,b", ["a,b"]),
        ("p: int | None = None", "[1, None]", [1, None]),
        ("p: int = 1", "two", ["two"]),
        ("p: int = 1", "(1", ["(1"]),
        ("p = None", "range(2)", [0, 1]),
    ],
)
def test_a_list_that_does_not_fit_is_swept(source: str, text: str, values: list[Any]) -> None:
    known = read_parameters(notebook_of(source))["p"]
    assert list(known.values(CommandLine(text))) == values


def test_reads_all_the_ways_to_write_a_parameter() -> None:
    source = (
        '"""What to set."""\nfrom pathlib import Path\n'
        "n: int = 10_000  #@param {type:'integer'}\nname = 'x#@param'\nlow: float = -1.5\n"
        "names: list[str] = [\n    'a',\n    'b',\n]  #@param {type:'raw'}\nnothing = None"
    )
    found = read_parameters(notebook_of(source))
    assert {name: p.default for name, p in found.items()} == {
        "n": 10_000,
        "name": "x#@param",
        "low": -1.5,
        "names": ["a", "b"],
        "nothing": None,
    }
    assert [p.annotation for p in found.values()] == ["int", "str", "float", "list[str]", "Any"]


def test_moves_only_relative_paths_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data/photos").mkdir(parents=True)
    Path("table.csv").touch()
    Path("mnist").mkdir()
    known = read_parameters(
        notebook_of("a = ''\nb = ''\nc = ''\nd = ''\ne: Path = ''\nf = ''\ng = 1")
    )
    given = {
        "a": "data/photos",
        "b": "table.csv",
        "c": "mnist",  # a name, though a folder of that name exists
        "d": "no/such/file",
        "e": "mnist",
        "f": str(tmp_path / "table.csv"),
        "g": 2,
    }
    assert move_paths(known, given, Path("runs/x")) == {
        **given,
        "a": "../../data/photos",
        "b": "../../table.csv",
        "e": "../../mnist",
    }
