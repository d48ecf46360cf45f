"""The pages of a store: what they show, and whom they answer."""

import io
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from workbench import store


@pytest.fixture(scope="module")
def server(written):
    server = store.serve(written[2])
    yield server
    server.stop()


def get(server, path="/", query="", headers=(), token=True):
    base, _, secret = server.url.partition("/?")
    url = f"{base}{path}?{secret if token else ''}&{query}"
    with urlopen(Request(url, headers=dict(headers)), timeout=20) as answer:
        return answer.read(), answer.headers


def picture(answer):
    return np.asarray(Image.open(io.BytesIO(answer[0]))).astype(int)


def test_the_page_shows_every_sample_and_filters_by_label(server, written):
    ds, boxes, _ = written
    page = get(server)[0].decode()
    assert len(re.findall("<figure>", page)) == 40
    assert "1 to 40 of 40" in page
    cats = get(server, query="label=cat")[0].decode()
    marked = ds["sample"].isin(boxes["sample"][boxes["label"] == "cat"])
    assert len(re.findall("<figure>", cats)) == int(((ds["label"] == 0) | marked).sum()) < 40
    assert "dir/39" in page
    # every picture of the page is there
    for address in re.findall('src="(/sample/[^"]*)"', cats)[:3]:
        path, _, query = address.replace("&amp;", "&").partition("?")
        assert picture(get(server, path, query)).shape == (150, 200, 3)


def test_annotations_lie_on_the_picture_and_move_with_it(server, written):
    ds, boxes, _ = written
    sample = ds["sample"].values[3]
    shown = picture(get(server, "/sample/3"))
    assert shown.shape == (300, 400, 3)
    colored = np.ptp(shown, axis=2) > 60  # the images are grey
    assert colored.any() == (boxes["sample"] == sample).any()
    same = picture(get(server, "/sample/3", "perturb=0&angle=90"))
    np.testing.assert_array_equal(shown, same)
    turned = picture(get(server, "/sample/3", "perturb=1&angle=90&draw=1"))
    other = picture(get(server, "/sample/3", "perturb=1&angle=90&draw=2"))
    assert (shown != turned).any()
    assert (turned != other).any()


def test_only_who_has_the_token_is_answered(server):
    for path in ("/", "/sample/0"):
        with pytest.raises(HTTPError, match="the token is missing or wrong") as error:
            get(server, path, token=False)
        assert error.value.code == 403
        with pytest.raises(HTTPError, match="the token is missing or wrong"):
            get(server, path, "token=guess", token=False)
    with pytest.raises(HTTPError, match=r"ask for 127\.0\.0\.1"):
        get(server, headers={"Host": "attacker.example"})


def test_it_listens_on_this_machine_alone(server):
    import psutil

    port = int(re.search(r":(\d+)/", server.url)[1])
    found = [c.laddr.ip for c in psutil.Process().net_connections() if c.laddr.port == port]
    assert set(found) == {"127.0.0.1"}
    headers = get(server)[1]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/sample/../../../etc/passwd",
        "/sample/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/index.parquet",
        "/sample/shard-00000.tar",
        "/sample/40",
        "/sample/-1",
        "/static/server.html",
    ],
)
def test_no_path_leaves_the_store(server, path):
    with pytest.raises(HTTPError) as error:
        get(server, path)
    assert error.value.code == 404


@pytest.mark.parametrize("query", ["perturb=1&angle=500", "perturb=1&color=red", "page=x"])
def test_what_cannot_be_drawn_is_said(server, query):
    with pytest.raises(HTTPError) as error:
        get(server, "/sample/0", query)
    assert error.value.code == 400


def test_what_a_store_says_is_text_and_no_page(tmp_path, written):
    ds, _, _ = written
    names = np.array(["<script>alert(1)</script>", *ds["sample"].values[1:4]])
    bad = ds.isel(sample=slice(4)).assign_coords(sample=names, **{"class": ["<b>", "dog"]})
    server = store.serve(store.write(bad, tmp_path / "<i>", progress=False))
    page = get(server)[0].decode()
    server.stop()
    for tag in ("<script>", "<b>", "<i>"):
        assert tag not in page
    assert "&lt;script&gt;" in page
