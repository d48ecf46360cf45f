"""The tests of maps, tested on networks of which it is known what they look at."""

import numpy as np
import pytest
import torch
from torch import nn

from workbench import datasets, gradcam, models
from workbench.gradcam.faithfulness import _order, impute, rank_correlation

BOX = [4, 6, 10, 14]


class Patch(nn.Module):
    """Says class 1 as far as the box is bright, and looks at nothing else."""

    def forward(self, x):
        left, top, right, bottom = BOX
        light = x[:, :, top:bottom, left:right].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(light), 8 * light - 4], 1)


@pytest.fixture
def scene():
    x = 0.2 * torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    left, top, right, bottom = BOX
    x[:, :, top:bottom, left:right] += 0.8
    right_map = torch.zeros(4, 24, 24)
    right_map[:, top:bottom, left:right] = 1
    return x, {"right": right_map, "wrong": 1 - right_map}


def test_the_right_map_wins_every_test_and_the_wrong_one_loses(scene):
    x, maps = scene
    found = gradcam.faithfulness(Patch(), x, maps, target=1, boxes=[BOX] * 4, progress=False)
    table = found.table
    assert list(table.index) == ["right", "wrong", "random map", "centre blob", "plain gradient"]
    for column in ("insertion", "road", "pointing", "energy"):
        assert table[column].idxmax() in ("right", "plain gradient")
        assert table[column].idxmin() == "wrong"
    assert table.loc["right", "deletion"] < table.loc["random map", "deletion"]
    assert table.loc["wrong", "deletion"] == table["deletion"].max()
    assert table.loc["right", ["pointing", "energy"]].tolist() == [1, 1]
    share = (10 - 4) * (14 - 6) / 24**2
    assert table.loc["random map", "energy"] == pytest.approx(share, rel=0.5)


def test_curves_begin_and_end_where_they_must(scene):
    x, maps = scene
    curves = gradcam.faithfulness(Patch(), x, maps, target=1, steps=4, progress=False).curves
    whole = Patch()(x).softmax(1)[:, 1].mean().item()
    for _, curve in curves.groupby("map"):
        assert curve["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert curve["deletion"].iloc[0] == pytest.approx(whole, abs=1e-5)
        assert curve["insertion"].iloc[-1] == pytest.approx(whole, abs=1e-5)
    ends = curves.groupby("map")[["deletion", "insertion"]].agg(
        {"deletion": "last", "insertion": "first"}
    )
    assert (ends.max() - ends.min() < 1e-5).all()


def test_equal_values_come_in_random_order():
    order = _order(torch.zeros(1, 20, 20), seed=0)
    assert sorted(order.flatten().tolist()) == pytest.approx(np.linspace(0, 1, 400))
    # by place, the upper half would hold the first half
    assert 0.35 < (order[0, :10] < 0.5).float().mean() < 0.65
    ranked = _order(torch.tensor([[[0.1, 0.9], [0.5, 0.3]]]), seed=0)
    assert ranked.flatten().tolist() == pytest.approx([1, 0, 1 / 3, 2 / 3])


def test_imputation_is_roads():
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    dice = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 12, 12, generator=dice)
    keep = torch.rand(2, 12, 12, generator=dice) > 0.7
    found = impute(x, keep, tolerance=1e-7)
    peer = NoisyLinearImputer(noise=0.0)
    for image, mask, ours in zip(x, keep.float(), found, strict=True):
        torch.testing.assert_close(ours, peer(image, mask), rtol=0, atol=1e-4)
    assert torch.equal(found[keep[:, None].expand_as(x)], x[keep[:, None].expand_as(x)])


def test_imputation_without_any_pixel_left_gives_the_mean():
    x = torch.rand(1, 3, 6, 6)
    found = impute(x, torch.zeros(1, 6, 6, dtype=torch.bool))
    torch.testing.assert_close(found, x.mean((2, 3), keepdim=True).expand_as(x))


class TestRandomization:
    def test_guided_backpropagation_fails_and_gradients_pass_on_the_trained_network(self):
        ds = datasets.load("photos", n=6)
        model = models.load("cifar10")
        before = {k: v.clone() for k, v in model.state_dict().items()}
        methods = ["gradcam", "gradient", "guided_backprop"]
        table = gradcam.randomization(model, ds, methods, "layer4", progress=False)
        verdicts = table["verdict"].str.split(":").str[0]
        assert verdicts.to_dict() == {
            "gradcam": "passes", "gradient": "passes", "guided_backprop": "fails",
        }  # fmt: skip
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())

    def test_joins_the_table_with_a_layer(self):
        ds = datasets.load("photos", n=2)
        model = models.load("cifar10")
        with gradcam.Probe(model, "layer4") as probe:
            maps = {"gradcam": probe.run(ds).map()}
        table = gradcam.faithfulness(model, ds, maps, layer="layer4", steps=2, progress=False).table
        assert table["verdict"].notna().to_dict() == {
            "gradcam": True, "random map": False, "centre blob": False, "plain gradient": True,
        }  # fmt: skip

    def test_rank_correlation_is_scipys(self):
        from scipy.stats import spearmanr

        one, other = torch.rand(3, 5, 6), torch.rand(3, 5, 6).round(decimals=1)
        theirs = [spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(one, other, strict=True)]
        np.testing.assert_allclose(rank_correlation(one, other), theirs, atol=1e-6)
        assert rank_correlation(one, torch.zeros(3, 5, 6)).tolist() == [0, 0, 0]


def test_energy_and_points():
    maps = torch.zeros(3, 4, 6)
    maps[0, 1, 2], maps[0, 3, 5], maps[0, 0, 0] = 3, 1, -9
    maps[1, 3, 5] = 1
    boxes = torch.tensor([[2, 1, 3, 2]] * 3)
    assert gradcam.energy_inside(maps, boxes).tolist() == [0.75, 0, 0]
    assert gradcam.points_inside(maps, boxes).tolist() == [True, False, False]


def test_what_is_wrong_is_named(scene):
    x, maps = scene
    right = {"right": maps["right"]}
    for bad, words in (
        ({}, "no map to test"),
        ({"flat": maps["right"][0]}, r"map 'flat', \(24, 24\), is not \(sample, y, x\)"),
        ({"random map": maps["right"]}, "is a baseline"),
    ):
        with pytest.raises(ValueError, match=words):
            gradcam.faithfulness(Patch(), x, bad, progress=False)
    with pytest.raises(ValueError, match=r"4 maps need boxes \(4, 4\)"):
        gradcam.faithfulness(Patch(), x, right, boxes=[BOX], progress=False)
    with pytest.raises(
        ValueError, match=r"box 1, \[0, 0, 25, 9\], does not lie in the image of 24×24"
    ):
        gradcam.faithfulness(
            Patch(), x, right, boxes=[BOX, [0, 0, 25, 9], BOX, BOX], progress=False
        )
    with pytest.raises(ValueError, match="steps=0: it must be at least 1"):
        gradcam.faithfulness(Patch(), x, right, steps=0, progress=False)
    with pytest.raises(ValueError, match="give class numbers"):
        gradcam.faithfulness(Patch(), x, right, target=lambda o: o[:, 0], progress=False)
