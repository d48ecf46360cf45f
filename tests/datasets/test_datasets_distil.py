"""Distilled images: the linear theorem is exact, label solve is a least, the kernel is right."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from toys import toys

from workbench import datasets
from workbench.datasets import BadDataError, distil, ntk, predict_distilled


def accuracy(made, ds):
    return float((predict_distilled(made, ds).argmax("class").values == ds["label"]).mean())


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", split="train"), datasets.load("digits", split="test")


class TestKernel:
    def test_is_what_wide_networks_do(self):
        """The mean over networks of the products of their gradients (Monte Carlo)."""
        torch.manual_seed(0)
        x, width, networks = torch.randn(5, 7), 4096, 60
        total = torch.zeros(5, 5)
        for _ in range(networks):
            w, v, b = torch.randn(width, 7), torch.randn(width), torch.randn(width)
            into = (ntk.WEIGHT / 7) ** 0.5 * x @ w.T + ntk.BIAS**0.5 * b
            out = (ntk.WEIGHT / width) ** 0.5
            hidden, slope = into.relu(), out * v * (into > 0)
            total += out**2 * hidden @ hidden.T + ntk.BIAS  # the last layer's weights and bias
            total += (slope @ slope.T) * (ntk.WEIGHT / 7 * x @ x.T + ntk.BIAS)
        assert torch.allclose(ntk.ntk(x, x), total / networks, rtol=0.02, atol=0.03)

    def test_has_the_right_gradient(self):
        torch.manual_seed(0)
        x, z = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(ntk.ntk, (x, z))
        assert torch.autograd.gradcheck(lambda v: ntk.ntk(v, v), (x,))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_is_finite_and_positive_where_vectors_are_the_same(self, dtype):
        x = torch.randn(20, 30, dtype=dtype).repeat(2, 1).requires_grad_()
        gram = ntk.ntk(x, x)
        gram.sum().backward()
        assert torch.isfinite(x.grad).all()
        assert torch.linalg.eigvalsh(ntk.with_ridge(gram.detach().double())).min() > -1e-3


class TestLinear:
    def test_ten_images_give_exactly_the_ridge_classifier(self, digits):
        train, test = digits
        ten = distil(train, 1, "linear")
        x = (train["image"].values / 255 - ten.attrs["mean"]) / ten.attrs["std"]
        x = x.reshape(len(x), -1)
        gram = x.T @ x
        ridge = 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
        weights = np.linalg.solve(gram + ridge, x.T @ np.eye(10)[train["label"]])
        asked = (test["image"].values / 255 - ten.attrs["mean"]) / ten.attrs["std"]
        expected = asked.reshape(len(asked), -1) @ weights
        found = predict_distilled(ten, test)
        assert np.allclose(found, expected, atol=5e-3)
        assert (found.argmax("class").values == expected.argmax(1)).mean() > 0.998

    def test_on_mnist(self, real_data):
        """.8602 of the ridge classifier of 60,000, .8602 of ten images."""
        real_data("mnist")
        ten = distil(datasets.load("mnist", split="train"), 1, "linear")
        assert ten.sizes["sample"] == 10
        assert round(accuracy(ten, datasets.load("mnist", split="test")), 4) == 0.8602

    def test_more_than_one_image_a_class_is_no_use(self):
        with pytest.raises(BadDataError, match="one image a class is all that linear can use"):
            distil(toys(30), 2, "linear")


class TestLabelSolve:
    @pytest.mark.parametrize("per_class", [1, 5, 20])
    def test_has_never_a_larger_loss_than_the_given_labels(self, digits, per_class):
        train, _ = digits
        made = distil(train, per_class, "label-solve", seed=per_class)
        wanted = np.eye(10)[train["label"]] - 0.1
        given = made.assign(
            soft_label=made["soft_label"].copy(data=np.eye(10)[made["label"]] - 0.1)
        )

        def loss(some):
            return float(((predict_distilled(some, train).values - wanted) ** 2).sum(1).mean())

        assert loss(made) <= loss(given) + 1e-6
        moved = made["soft_label"] + np.random.default_rng(0).normal(
            0, 0.01, made["soft_label"].shape
        )
        assert loss(made) < loss(made.assign(soft_label=moved.astype(np.float32)))

    def test_keeps_real_images(self, digits):
        train, _ = digits
        made = distil(train, 1, "label-solve")
        every = train["image"].values.reshape(len(train["sample"]), -1) / 255
        for image, label in zip(made["image"].values, made["label"].values, strict=True):
            away = np.abs(every - image.ravel()).max(axis=1)
            assert away.min() < 1e-5
            assert train["label"].values[away.argmin()] == label


class TestKip:
    def test_learns_more_than_labels_alone_can_give(self, digits):
        train, test = digits
        solved, learnt = (
            accuracy(distil(train, 1, method, steps=150, progress=False), test)
            for method in ("label-solve", "kip")
        )
        assert learnt > solved + 0.05
        assert learnt > 0.85

    def test_the_seed_fixes_it(self, digits):
        a, b = (distil(digits[0], 1, steps=5, seed=3, progress=False) for _ in range(2))
        assert np.allclose(a["image"], b["image"], atol=1e-4)
        assert a["label"].values.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "best"}, "method='best' is not one of linear, label-solve, kip"),
        ({"per_class": 0}, "per_class=0: class ant has 4 images"),
        ({"per_class": 5}, "per_class=5: class ant has 4 images"),
    ],
)
def test_errors(options, says):
    with pytest.raises(BadDataError, match=says):
        distil(toys(12), **{"per_class": 1, **options})


def test_datasets_load_no_torch():
    code = (
        "import sys; from workbench import datasets; datasets.distil; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
