"""Images of which it is known where the object is."""

import numpy as np
import pytest
import torch

from workbench import gradcam


def test_mosaics_hold_the_class_asked_for_once_and_where_they_say():
    classes = np.repeat([3, 5, 7, 8, 9], 4)
    images = torch.arange(20.0)[:, None, None, None].expand(20, 1, 4, 6)
    x, targets, boxes = gradcam.mosaics(images, classes, n=30, seed=1)
    assert x.shape == (30, 1, 8, 12)
    for mosaic, target, (left, top, right, bottom) in zip(x, targets, boxes, strict=True):
        shown = classes[mosaic[0].long().numpy()]
        assert (shown == target.item()).sum() == 24
        assert (shown[top:bottom, left:right] == target.item()).all()
        assert len(np.unique(shown)) == 4
    assert len(boxes.unique(dim=0)) == 4
    again = gradcam.mosaics(images, classes, n=30, seed=1)[0]
    assert torch.equal(x, again)


def test_mosaics_of_two_classes_and_of_one():
    x, targets, _ = gradcam.mosaics(torch.arange(2.0).view(2, 1, 1, 1), [0, 1], n=9)
    assert all((m == t).sum() == 1 for m, t in zip(x, targets, strict=True))
    with pytest.raises(ValueError, match="all of these are of one"):
        gradcam.mosaics(torch.zeros(4, 1, 2, 2), [1] * 4, n=1)


def test_the_photographs_boxes_grow_with_them():
    small, large = gradcam.photographs(32), gradcam.photographs(320)
    assert small["image"].shape == (4, 32, 32, 3)
    assert abs(large["box"] / 10 - small["box"]).max() <= 1
    # the silhouette is black within its box and white around it
    horse, box = large.sel(sample="horse"), large["box"].sel(sample="horse").values
    dark = horse["image"].values.mean(2) < 128
    left, top, right, bottom = box
    assert dark[top:bottom, left:right].sum() == dark.sum() > 10_000
    rows, columns = np.nonzero(dark)
    extent = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.abs(extent - box).max() < 12
