"""The arithmetic of a store, and that it is measured on the store."""

import numpy as np
import pytest

from workbench import show, store
from workbench.store.budget import rates


def test_the_arithmetic_is_exact():
    coming, going = rates(1350, encoded=48 * 1024, raw=192 * 1024)
    assert coming == 1350 * 48 / 1024 == pytest.approx(63.3, abs=0.05)
    assert going == 1350 * 192 / 1024 == pytest.approx(253.1, abs=0.05)


def test_each_stage_is_measured_and_the_slowest_named(written):
    torch = pytest.importorskip("torch")
    path = written[2]
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    table = store.budget(path, model, batch=8)
    assert list(table.index) == [
        "disk", "decoding, one core", "stream", "network predicts", "network learns",
    ]  # fmt: skip
    assert table.attrs["raw_bytes"] == 24 * 32
    assert table.attrs["encoded_bytes"] > 24 * 32  # noise does not compress
    row = table.loc["stream"]
    np.testing.assert_allclose(row["mib_out_per_s"], row["images_per_s"] * 24 * 32 / 2**20)
    stages = table.loc[["disk", "stream", "network learns"], "images_per_s"]
    assert table.attrs["bottleneck"] == stages.idxmin()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(p.grad is None for p in model.parameters())
    figure = show.rates(table, title="What training waits for")
    assert len(figure.axes[0].patches) == 5
