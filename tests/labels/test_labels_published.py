"""The published verdicts on MNIST's test labels."""

import numpy as np
import pytest

from workbench import datasets, labels


def test_fifteen_of_the_hundred_checked_are_wrong(real_data):
    if not (real_data / "label_errors").is_dir():
        pytest.skip("needs label_errors/ in the folder of real data")
    ds = datasets.load("mnist", split="test")
    known = labels.published_errors(ds)
    assert (int(known.is_wrong.sum()), int(known.checked.sum())) == (15, 100)
    assert not (known.is_wrong & ~known.checked).any()
    np.testing.assert_allclose(known.probabilities.sum("class"), 1, atol=1e-6)
    assert (known.probabilities.argmax("class") == ds.label).mean() > 0.98
    part = labels.published_errors(datasets.subset(ds, 500))
    np.testing.assert_array_equal(
        part.probabilities, known.probabilities.sel(sample=part.sample.values)
    )


def test_other_data_have_none(real_data, monkeypatch):
    train = datasets.load("mnist", split="train", n=50)
    assert labels.published_errors(train) is None
    monkeypatch.delenv("WORKBENCH_DATA")
    assert labels.published_errors(datasets.load("digits", n=50)) is None
    assert labels.published_errors(datasets.load("digits", n=50).assign_attrs(name="mnist")) is None
