"""Targets beyond classification, and surveys of whole datasets, where it is known what is right."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from workbench import datasets, gradcam, labels, models


class Pixels(nn.Module):
    """Labels every pixel by its own colour: class 0, 1, 2 for red, green, blue."""

    def __init__(self):
        super().__init__()
        self.body = nn.Identity()

    def forward(self, x):
        return {"out": self.body(x) * 4}


@pytest.fixture
def colours():
    x = torch.full((2, 3, 16, 16), 0.1)
    x[:, 0, :8] = 0.9  # the upper half is red
    x[:, 2, 8:] = 0.9  # the lower one blue
    return x


class TestSegmentation:
    def test_the_map_lies_where_the_class_is_said_or_asked_for(self, colours):
        region = np.zeros((16, 16), dtype=bool)
        region[10:14, 2:6] = True
        with gradcam.Probe(Pixels(), "body") as probe:
            red = probe.run(colours, gradcam.segmentation_target(0)).map("hirescam")
            asked = probe.run(colours, gradcam.segmentation_target(2, region)).map("hirescam")
        assert (red[:, :8] > 0).all()
        assert not red[:, 8:].any()
        assert np.array_equal(asked[0].numpy() > 0, region)
        with gradcam.Probe(Pixels()) as probe:
            occluded = probe.run(colours, gradcam.segmentation_target(0, region)).map(
                "occlusion", window=4, signed=True
            )
        assert occluded.shape == (2, 16, 16)

    def test_a_class_that_is_nowhere_is_named(self, colours):
        with pytest.raises(ValueError, match="image 0 is empty: class 1 is said nowhere"):
            gradcam.Probe(Pixels(), "body").run(colours, gradcam.segmentation_target(1))
        with pytest.raises(ValueError, match=r"not \(sample, class, y, x\)"):
            gradcam.segmentation_target(1)(torch.rand(2, 3))


def test_a_detection_is_explained_by_what_lies_in_its_box(colours):
    class Detector(nn.Module):
        """Two boxes an image, whose scores are the red and the blue light in them."""

        def __init__(self):
            super().__init__()
            self.body = nn.Identity()

        def forward(self, x):
            x = self.body(x)
            boxes = torch.tensor([[0, 0, 16, 8], [0, 8, 16, 16]]).float()
            red, blue = x[:, 0, :8].mean((1, 2)), x[:, 2, 8:].mean((1, 2))
            tags = torch.tensor([1, 2])
            return [
                {"boxes": boxes, "labels": tags, "scores": torch.stack([a, b])}
                for a, b in zip(red, blue, strict=True)
            ]

    with gradcam.Probe(Detector(), "body") as probe:
        seen = probe.run(colours, gradcam.detection_target([0, 9, 16, 16], class_=2))
        maps = seen.map("hirescam")
        assert (maps[:, 8:] > 0).all()
        assert not maps[:, :8].any()
        torch.testing.assert_close(seen.score, torch.full((2,), 0.9 * 7 / 8))
        assert seen.map("occlusion", window=8, stride=8)[:, 8:].mean() > 0
        with pytest.raises(ValueError, match="does not depend"):
            probe.run(colours, gradcam.detection_target([0, 0, 16, 8], class_=2))


def test_regression_and_likeness():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(0))
    with gradcam.Probe(model, "0") as probe:
        one = probe.run(torch.rand(1, 3, 8, 8), lambda o: o[:1]).map(signed=True)
    assert one.shape == (1, 6, 6)
    assert gradcam.regression_target(1)(torch.eye(2)).tolist() == [0, 1]
    assert gradcam.regression_target()(torch.ones(3)).tolist() == [1, 1, 1]
    ds = datasets.load("photos", n=3)
    network = models.load("cifar10")
    embedder = models.Embedder(network)
    vectors = models.activations(network, ds, progress=False)
    with gradcam.Probe(embedder, "model.layer4") as probe:
        seen = probe.run(ds, gradcam.similarity_target(vectors[[1, 0, 2]].values))
    np.testing.assert_allclose(seen.output, vectors, atol=1e-5)
    unit = vectors.values / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = (unit * unit[[1, 0, 2]]).sum(1)
    np.testing.assert_allclose(seen.score, expected, atol=1e-5)
    assert not network._forward_pre_hooks


class Brightest(nn.Module):
    """Class 0 by the light on the left, 1 by the light on the right."""

    def __init__(self):
        super().__init__()
        self.body = nn.Identity()
        self.classes = ["left", "right"]

    def forward(self, x):
        x = self.body(x).mean(1)
        return torch.stack([x[:, :, :8].mean((1, 2)), x[:, :, 8:].mean((1, 2))], 1) * 10


@pytest.fixture
def scenes():
    """Light on the left or right; of the last image it lies outside of its box."""
    values = np.zeros((13, 16, 16, 3), dtype=np.uint8)
    label = np.arange(13) % 2
    for i, right in enumerate(label):
        values[i, 4:12, 8 * right + 2 : 8 * right + 6] = 200
    values[12] = 0
    values[12, 0:3, 0:3] = 250
    boxes = np.stack([8 * label + 2, 0 * label + 4, 8 * label + 6, 0 * label + 12], 1)
    coords = {"sample": [f"s{i}" for i in range(13)], "class": ["left", "right"]}
    return xr.Dataset(
        {"image": (("sample", "y", "x", "channel"), values), "label": ("sample", label)}, coords
    ), boxes


class TestSurvey:
    @pytest.mark.parametrize("lazy", [False, True])
    def test_sums_up_by_class_and_finds_the_strange_one(self, scenes, lazy):
        ds, boxes = scenes
        given = ds.chunk(sample=4) if lazy else ds
        found = gradcam.survey(
            Brightest(), given, "body", method="hirescam", boxes=boxes, deletion_steps=4,
            batch_size=5, progress=False,
        )  # fmt: skip
        assert found["n"].values.tolist() == [7, 6]
        assert found["class"].values.tolist() == ["left", "right"]
        np.testing.assert_allclose(found["class_map"].sum(("map_y", "map_x")), 1, rtol=1e-5)
        assert found["class_map"].sel({"class": "right"})[:, :8].sum() == 0
        np.testing.assert_allclose(found["energy"][:12], 1)
        assert found["energy"][12] == 0
        assert found["strangeness"].argmax() == 12
        joined = ds.merge(found)
        assert joined["strangeness"].sel(sample="s12") == found["strangeness"][12]
        expected = [found["deletion"][np.arange(13) % 2 == c].mean() for c in (0, 1)]
        np.testing.assert_allclose(found["class_deletion"], expected)

    def test_deletion_is_that_of_faithfulness(self, scenes):
        ds, _ = scenes
        model = Brightest()
        with gradcam.Probe(model, "body") as probe:
            maps = {"hirescam": probe.run(ds).map("hirescam")}
        table = gradcam.faithfulness(model, ds, maps, progress=False).table
        found = gradcam.survey(model, ds, "body", method="hirescam", deletion_steps=4,
                               progress=False)  # fmt: skip
        assert table.loc["hirescam", "deletion"] == pytest.approx(float(found["deletion"].mean()))

    @pytest.mark.parametrize("with_boxes", [True, False])
    def test_feeds_the_review(self, scenes, with_boxes, tmp_path):
        ds, boxes = scenes
        found = gradcam.survey(Brightest(), ds, "body", method="hirescam", progress=False,
                               boxes=boxes if with_boxes else None)  # fmt: skip
        table = gradcam.suspects(found, ds["label"])
        assert table.index[0] == "s12"
        assert table["is_issue"].sum() == 1
        assert labels.review(ds, table, tmp_path / "review.db") is not None

    def test_boxes_must_fit(self, scenes):
        ds, boxes = scenes
        with pytest.raises(ValueError, match=r"\(3, 4\) for 13 images"):
            gradcam.survey(Brightest(), ds, "body", boxes=boxes[:3], progress=False)
