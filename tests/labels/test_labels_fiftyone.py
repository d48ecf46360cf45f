"""There and back: what a review came to as tags in FiftyOne, what is decided there in the store."""

import numpy as np
import pandas as pd
import pytest
from toys import toys

from workbench import datasets, labels, show

fo = pytest.importorskip("fiftyone")
pytestmark = pytest.mark.usefixtures("fiftyone_database")


def test_decisions_go_to_the_app_and_come_back_into_the_same_store(tmp_path):
    ds = toys(12, sha256="abc")
    issues = pd.DataFrame(
        {"suggested": np.arange(12) % 3, "score": np.linspace(1, 0, 12)},
        index=pd.Index(ds.sample.values, name="sample"),
    )
    store = tmp_path / "review.db"
    first = {100: "cow", 101: "given"}
    labels.review_batch(ds, issues, first, store, reviewer="anna", progress=False)
    made = show.to_fiftyone(ds, "round-trip", tags=labels.review_tags(ds, store), progress=False)
    assert made.match_tags("changed").values("workbench_id") == ["100"]
    assert made.match_tags("confirmed").values("workbench_id") == ["101"]

    edited = made.match(fo.ViewField("workbench_id") == "105").first()
    edited["ground_truth"] = fo.Classification(label="ant")
    edited.save()
    made.match(fo.ViewField("workbench_id") == "106").tag_samples("none")
    found = labels.from_tags(show.from_fiftyone(made, ds, progress=False))
    assert found.to_dict() == {101: "given", 105: 0, 106: "none"}
    labels.review_batch(ds, issues, found, store, reviewer="ben", source="fiftyone", progress=False)
    table = labels.decisions(ds, store)
    assert table["status"].to_dict() == {
        100: "changed", 101: "confirmed", 105: "changed", 106: "none",
    }  # fmt: skip
    assert table.loc[101, "reviewers"] == 2
    assert labels.apply_decisions(ds, store).label.sel(sample=[100, 105, 106]).values.tolist() == [
        2, 0, -1,
    ]  # fmt: skip


def test_mistakenness_is_fiftyones():
    import fiftyone.brain as fob

    ds = datasets.load("digits", n=40)
    given = ds.label.values.copy()
    given[::5] = (given[::5] + 1) % 10
    ds = ds.assign(label=("sample", given))
    p = np.random.default_rng(0).dirichlet(np.full(10, 0.2), 40) * 0.5 + 0.5 * np.eye(10)[given]
    p[::3] = np.roll(p[::3], 1, axis=1)
    made = show.to_fiftyone(ds, "mistakenness", progress=False)
    names = ds["class"].values
    predicted = [
        fo.Classification(label=str(names[row.argmax()]), confidence=row.max(), logits=np.log(row))
        for row in p
    ]
    order = [ds.sample.values.astype(str).tolist().index(i) for i in made.values("workbench_id")]
    made.set_values("predicted", [predicted[i] for i in order])
    for use_logits in (True, False):
        options = {"label_field": "ground_truth", "use_logits": use_logits, "progress": False}
        fob.compute_mistakenness(made, "predicted", mistakenness_field="m", **options)
        ours = labels.mistakenness(given, p, use_logits=use_logits)
        np.testing.assert_allclose(made.values("m"), ours[order])
