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


class TestVerdict:
    def test_of_right_wrong_and_random_maps_over_seeds(self, scene):
        x, maps = scene
        x = x.repeat(4, 1, 1, 1)
        named = {name: values.repeat(4, 1, 1) for name, values in maps.items()}
        for grid in (4, 24):
            for seed in range(10):
                named[f"noise {grid} {seed}"] = gradcam.random_maps(
                    16, (24, 24), (grid, grid), seed
                )
        table = gradcam.faithfulness(Patch(), x, named, target=1, progress=False).table
        assert table.loc["right", "verdict"].startswith("better than chance, ")
        assert table.loc["wrong", "verdict"] == "worse than chance"
        noise = table.loc[[name for name in named if name.startswith("noise")]]
        # 5 % of 20 is 1
        assert noise["verdict"].str.startswith("better").sum() <= 2
        assert (noise["low"] < noise["over_chance"]).all()
        assert table.loc["centre blob", "verdict"] != table.loc["centre blob", "verdict"]

    def test_a_map_that_gets_worse_step_by_step_is_ordered_rightly(self, scene):
        x, maps = scene
        noise = torch.rand(10, *maps["right"].shape, generator=torch.Generator().manual_seed(3))
        worse = {i: maps["right"] * (1 - i / 9) + noise[i] * i / 9 for i in range(10)}
        worse = {f"{i}": values for i, values in worse.items()}
        table = gradcam.faithfulness(Patch(), x, worse, target=1, steps=16, progress=False).table
        scores = table.loc[list(worse), "score"].to_numpy()
        pairs = [scores[i] >= scores[j] - 0.01 for i in range(10) for j in range(i + 1, 10)]
        assert np.mean(pairs) >= 0.95

    def test_there_is_a_random_map_for_each_resolution_and_none_for_one_image(self, scene):
        x, maps = scene
        named = {"fine": maps["right"][:1], "coarse": torch.rand(1, 6, 6)}
        table = gradcam.faithfulness(Patch(), x[:1], named, target=1, progress=False).table
        assert [name for name in table.index if name.startswith("random")] == [
            "random map 24×24",
            "random map 6×6",
        ]
        assert table.loc["fine", "verdict"] == "one image allows no verdict"


class TestActivation:
    def test_one_score_an_image_needs_a_sigmoid(self, scene):
        x, maps = scene

        class One(Patch):
            def forward(self, x):
                return super().forward(x)[:, 1:]

        with pytest.raises(ValueError, match="one score an image; say activation='sigmoid'"):
            gradcam.faithfulness(One(), x, maps, progress=False)
        table = gradcam.faithfulness(
            One(), x, maps, activation="sigmoid", steps=4, progress=False
        ).table
        # one logit by sigmoid is two by softmax
        two = gradcam.faithfulness(Patch(), x, maps, target=1, steps=4, progress=False).table
        np.testing.assert_allclose(table["deletion"], two["deletion"], atol=1e-5)
        with gradcam.Probe(One(), activation="sigmoid") as probe:
            p = probe.run(x).probabilities
        torch.testing.assert_close(p[:, 0], Patch()(x).softmax(1)[:, 1])

    def test_a_network_that_ends_in_softmax_gets_none(self, scene):
        x, maps = scene
        twice = nn.Sequential(Patch(), nn.Softmax(1))
        with gradcam.Probe(twice) as probe:
            torch.testing.assert_close(probe.run(x).probabilities, twice(x))
        a, b = (gradcam.faithfulness(m, x, maps, target=1, steps=4, progress=False).table
                for m in (Patch(), twice))  # fmt: skip
        np.testing.assert_allclose(a["insertion"], b["insertion"], atol=1e-5)


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
        assert table["randomization"].notna().to_dict() == {
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
