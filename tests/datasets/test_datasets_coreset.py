"""Coresets keep what their method says, and are no worse than it promises."""

from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from toys import toys

from workbench.datasets import BadDataError, coreset
from workbench.datasets.coreset import farthest


def positions(ds, kept):
    return np.flatnonzero(np.isin(ds["sample"].values, kept["sample"].values))


class TestCoreset:
    @pytest.mark.parametrize(
        ("method", "options"),
        [
            ("random", {}),
            ("hardest", {"scores": np.arange(60.0)}),
            ("ccs", {"scores": np.arange(60.0)}),
            ("moderate", {"features": np.random.default_rng(0).normal(size=(60, 4))}),
            ("k-center", {"features": np.random.default_rng(0).normal(size=(60, 4))}),
            ("herding", {"features": np.random.default_rng(0).normal(size=(60, 4))}),
        ],
    )
    @pytest.mark.parametrize("keep", [0.5, 7, 1])
    def test_keeps_as_many_as_asked_for_in_their_order(self, method, options, keep):
        ds = toys(60)
        kept = coreset(ds, keep, method, **options)
        assert kept.sizes["sample"] == (30 if keep == 0.5 else keep)
        assert (np.diff(kept["sample"].values) > 0).all()
        assert kept.attrs["coreset"] == method
        again = coreset(ds, keep, method, **options)
        assert again["sample"].values.tolist() == kept["sample"].values.tolist()

    @pytest.mark.parametrize("keep", range(1, 55))
    def test_ccs_keeps_exactly_as_many_whatever_the_scores(self, keep):
        scores = np.random.default_rng(keep).exponential(size=60)
        assert coreset(toys(60), keep, "ccs", scores=scores, seed=keep).sizes["sample"] == keep

    def test_random_is_the_default_and_keeps_the_classes_shares(self):
        kept = coreset(toys(60), 0.5)
        assert kept.attrs["coreset"] == "random"
        assert np.bincount(kept["label"].values).tolist() == [10, 10, 10]

    def test_hardest_takes_the_largest_scores(self):
        scores = np.random.default_rng(0).random(60)
        kept = coreset(toys(60), 5, "hardest", scores=scores)
        assert set(positions(toys(60), kept)) == set(np.argsort(scores)[-5:])

    def test_ccs_drops_the_hardest_and_takes_from_everywhere(self):
        scores = np.linspace(0, 1, 60) ** 4  # crowded where it is easy
        kept = positions(toys(60), coreset(toys(60), 20, "ccs", scores=scores))
        assert kept.max() < 54
        random = positions(toys(60), coreset(toys(60), 20))
        assert scores[kept].mean() > 1.5 * scores[random[random < 54]].mean()

    def test_herding_comes_nearer_to_the_mean_than_chance(self):
        vectors = np.random.default_rng(0).normal(size=(60, 5))
        plain = toys(60).drop_vars("label")

        def miss(kept):
            return np.linalg.norm(vectors[positions(plain, kept)].mean(0) - vectors.mean(0))

        herd = miss(coreset(plain, 8, "herding", features=vectors))
        chance = [miss(coreset(plain, 8, seed=seed)) for seed in range(20)]
        assert herd < 0.5 * min(chance)

    def test_moderate_takes_neither_the_near_nor_the_far(self):
        vectors = np.array([*np.linspace(-1, 1, 41), 0.0])[:, None]
        plain = toys(42).drop_vars("label")
        kept = positions(plain, coreset(plain, 10, "moderate", features=vectors))
        away = np.abs(vectors[kept, 0])
        assert 0.35 < away.min() < away.max() < 0.65

    @pytest.mark.parametrize(
        ("keep", "method", "options", "says"),
        [
            (0.5, "best", {}, "method='best' is not one of random, hardest"),
            (1.5, "random", {}, "keep=1.5 of 60"),
            (0, "random", {}, "keep=0 of 60"),
            (61, "random", {}, "keep=61 of 60"),
            (0.5, "hardest", {}, "goes by scores=; none were given"),
            (0.5, "herding", {"features": np.zeros(60)}, "2-D"),
            (0.5, "ccs", {"scores": np.full(60, np.nan)}, "60 NaN among them"),
            (0.95, "ccs", {"scores": np.arange(60.0)}, "a smaller drop="),
        ],
    )
    def test_errors(self, keep, method, options, says):
        with pytest.raises(BadDataError, match=says):
            coreset(toys(60), keep, method, **options)

    def test_scores_of_other_samples(self):
        scores = xr.DataArray(np.arange(60.0), dims="sample", coords={"sample": np.arange(60)})
        with pytest.raises(ValueError, match="hold other samples"):
            coreset(toys(60), 5, "hardest", scores=scores)


class TestFarthest:
    @pytest.mark.parametrize("seed", range(20))
    def test_is_at_most_twice_the_best(self, seed):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(11, 2))
        between = np.linalg.norm(points[:, None] - points, axis=-1)
        best = min(between[list(c)].min(0).max() for c in combinations(range(11), 3))
        found = farthest(points, 3, [int(rng.integers(11))])
        assert between[found].min(0).max() <= 2 * best + 1e-9

    def test_takes_copies_when_there_is_nothing_else(self):
        assert sorted(farthest(np.zeros((4, 2)), 4, [2])) == [0, 1, 2, 3]
