"""Scores by training dynamics are what their papers say, on sequences counted by hand."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from torch.nn import functional as F
from toys import toys

from workbench import dynamics
from workbench.models import SmallResNet
from workbench.models.inference import batches


def recording(right):
    """Logits of one sample of class 0 that is right or wrong as told, (epoch, sample, class)."""
    right = np.asarray(right, float)
    return xr.DataArray(np.c_[right, 1 - right][:, None], dims=("epoch", "sample", "class"))


def random_logits(seeds=2, epochs=3, samples=5, classes=4):
    values = np.random.default_rng(0).normal(size=(seeds, epochs, samples, classes))
    return xr.DataArray(values, dims=("seed", "epoch", "sample", "class"))


class TestEl2n:
    @pytest.mark.parametrize("classes", [2, 10, 100])
    def test_of_a_uniform_guess(self, classes):
        guess = xr.DataArray(np.zeros((1, classes)), dims=("sample", "class"))
        assert dynamics.el2n(guess, [1]).item() == pytest.approx(
            np.sqrt(1 - 1 / classes), abs=1e-12
        )

    def test_of_ten_classes_is_the_known_number(self):
        guess = xr.DataArray(np.zeros((1, 10)), dims=("sample", "class"))
        assert dynamics.el2n(guess, [0]).item() == pytest.approx(0.948683, abs=5e-7)

    def test_is_the_mean_over_seeds_and_epochs(self):
        logits, labels = random_logits(), [0, 1, 2, 3, 0]
        p = torch.softmax(torch.tensor(logits.values), -1)
        length = (p - F.one_hot(torch.tensor(labels), 4)).norm(dim=-1)
        assert np.allclose(dynamics.el2n(logits, labels), length.mean((0, 1)), atol=1e-12)


class TestForgetting:
    @pytest.mark.parametrize(
        ("right", "events", "never", "unforgettable"),
        [
            ([0, 1, 1, 0, 1], 1, 0, False),
            ([1, 0, 1, 0, 0], 2, 0, False),
            ([0, 0, 1, 1, 1], 0, 0, True),
            ([0, 0, 0, 0, 0], 5, 1, False),
        ],
    )
    def test_of_known_sequences(self, right, events, never, unforgettable):
        found = dynamics.forgetting(recording(right), [0])
        assert found["events"].item() == events
        assert found["never_learnt"].item() == never
        assert found["unforgettable"].item() == unforgettable

    def test_never_learnt_counts_as_more_than_any_that_was(self):
        epochs = 9
        most = dynamics.forgetting(recording([1, 0] * 4 + [1]), [0])["events"].item()
        assert most < dynamics.forgetting(recording([0] * epochs), [0])["events"].item()

    def test_over_seeds(self):
        both = xr.concat([recording([0, 1, 0]), recording([0, 0, 0])], "seed")
        found = dynamics.forgetting(both, [0])
        assert (found["events"].item(), found["never_learnt"].item()) == (2.0, 0.5)


def test_aum_is_the_mean_margin():
    logits, labels = random_logits(), np.array([0, 1, 2, 3, 0])
    values = logits.values.copy()
    own = np.take_along_axis(values, labels[None, None, :, None], -1)[..., 0]
    np.put_along_axis(
        values, np.broadcast_to(labels[None, None, :, None], (2, 3, 5, 1)), -np.inf, -1
    )
    expected = (own - values.max(-1)).mean((0, 1))
    assert np.allclose(dynamics.aum(logits, labels), expected)
    assert np.isfinite(logits.values).all(), "the caller's logits are untouched"


def test_cartography_of_a_sample_that_is_learnt_halfway():
    logits = xr.DataArray([[[-30.0, 30]], [[30.0, -30]]], dims=("epoch", "sample", "class"))
    found = dynamics.cartography(logits, [0])
    assert found["confidence"].item() == pytest.approx(0.5)
    assert found["variability"].item() == pytest.approx(0.5)
    assert found["correctness"].item() == 0.5


@pytest.mark.parametrize("score", ["el2n", "aum", "forgetting", "cartography"])
class TestErrors:
    def test_a_label_that_is_no_class(self, score):
        with pytest.raises(
            ValueError, match="1 labels are none of the classes 0 to 3, the first is 4"
        ):
            getattr(dynamics, score)(random_logits(), [0, 1, 2, 3, 4])

    def test_an_epoch_that_was_not_recorded(self, score):
        logits = random_logits()
        logits[1, 2] = np.nan
        with pytest.raises(ValueError, match=r"1 of 3 epochs of training 1 are not recorded"):
            getattr(dynamics, score)(logits, [0, 1, 2, 3, 0])

    def test_other_samples(self, score):
        with pytest.raises(ValueError, match="the labels hold 3 samples and the logits 5"):
            getattr(dynamics, score)(random_logits(), [0, 1, 2])


class TestGrand:
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return SmallResNet(1, 3, (4, 4, 4, 4, 8)).eval()

    def by_autograd(self, network, ds, last):
        weights = list(network.fc.parameters() if last else network.parameters())
        found = []
        for image, label in zip(next(batches(ds, 99, False)), ds["label"].values, strict=True):
            loss = F.cross_entropy(network(image[None]), torch.tensor([label]))
            gradients = torch.autograd.grad(loss, weights)
            found.append(float(sum(g.double().square().sum() for g in gradients).sqrt()))
        return np.array(found)

    @pytest.mark.parametrize("full", [False, True])
    def test_is_what_autograd_gives(self, network, full):
        ds = toys(7, side=12)
        found = dynamics.grand(network, ds, full=full, batch_size=3, progress=False)
        assert np.allclose(found, self.by_autograd(network, ds, not full), rtol=0, atol=2e-6)

    def test_in_double_precision_within_a_millionth(self, network):
        ds = toys(7, side=12)
        found = dynamics.grand(network, ds, progress=False)
        exact = self.by_autograd(network, ds, True)
        assert np.abs(found.values / exact - 1).max() < 1e-6

    def test_leaves_the_network_as_it_was(self, network):
        network.train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        dynamics.grand(network, toys(4, side=12), full=True, progress=False)
        assert network.training
        assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
        assert all(weight.grad is None for weight in network.parameters())

    def test_at_initialisation_is_the_norm_of_the_input(self):
        """arXiv:2303.14753, of one linear layer, where it is so by its very formula, nearly."""
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 10))
        network[1].weight.data.mul_(0.01)
        ds = toys(200)
        scale = np.random.default_rng(0).random(200)[:, None, None, None]
        ds = ds.assign(image=(ds["image"] * scale).astype(np.uint8))
        norm = np.linalg.norm(ds["image"].values.reshape(200, -1) / 255.0, axis=1)
        found = dynamics.grand(network, ds, progress=False).values
        assert spearmanr(found, norm).statistic > 0.99

    def test_a_label_that_is_no_class(self, network):
        ds = toys(4, side=12)
        ds["label"][0] = 3
        with pytest.raises(ValueError, match="labels run from 0 to 3"):
            dynamics.grand(network, ds, progress=False)
