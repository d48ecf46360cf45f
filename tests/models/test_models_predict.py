"""Predictions: the probabilities themselves, how images reach the network, and bad input."""

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from workbench import models


def dataset(values):
    return xr.Dataset(
        {"image": (("sample", "y", "x", "channel"), values)},
        coords={"sample": [f"s{i}" for i in range(len(values))]},
    )


@pytest.fixture(scope="module")
def images():
    return dataset(np.random.default_rng(0).integers(0, 256, (23, 16, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.SmallResNet(classes=4, widths=(4, 4, 8, 8, 8))


class Scores(nn.Module):
    """Returns the first pixels of the first row, whatever they are."""

    def __init__(self, n=3):
        super().__init__()
        self.n = n

    def forward(self, x):
        return x[:, 0, 0, : self.n]


class TestProbabilities:
    def test_are_the_softmax_in_evaluation_mode(self, images, network):
        network.train()
        found = models.predict(network, images, batch_size=7, progress=False)
        assert network.training
        x = torch.from_numpy(images["image"].values).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            expected = network.eval()(x).softmax(1)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(found.sum("class"), 1, atol=1e-6)
        assert found.dims == ("sample", "class")
        assert found.dtype == np.float32
        assert found["sample"].values[3] == "s3"
        assert found["class"].values.tolist() == [0, 1, 2, 3]

    def test_class_names_come_from_the_network(self, images):
        network = models.SmallResNet(classes=2, widths=(4, 4, 4, 4, 4))
        network.classes = ["cat", "dog"]
        found = models.predict(network, images, progress=False)
        assert found["class"].values.tolist() == ["cat", "dog"]

    def test_what_are_probabilities_already_is_left_alone(self):
        rows = np.array([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]], np.float32)
        ds = dataset(rows[:, None, :, None])
        np.testing.assert_array_equal(models.predict(Scores(), ds, progress=False), rows)

    def test_scores_and_independent_labels(self):
        rows = np.array([[0.25, 1.0, 0.5]], np.float32)
        ds = dataset(rows[:, None, :, None])
        plain = models.predict(Scores(), ds, activation="none", progress=False)
        np.testing.assert_array_equal(plain, rows)
        labels = models.predict(Scores(), ds, activation="sigmoid", progress=False)
        np.testing.assert_allclose(labels, 1 / (1 + np.exp(-rows)), rtol=1e-6)

    def test_one_score_is_no_softmax(self):
        ds = dataset(np.ones((1, 1, 1, 1), np.float32))
        with pytest.raises(ValueError, match="say activation='sigmoid'"):
            models.predict(Scores(1), ds, progress=False)
        with pytest.raises(ValueError, match="activation='relu'"):
            models.predict(Scores(1), ds, activation="relu")


class TestHowImagesArrive:
    @pytest.mark.parametrize("chunk", [1, 4, 10, 23])
    def test_dask_gives_the_same_and_computes_each_chunk_once(self, chunk, images, network):
        computed = []

        def look(block):
            computed.append(len(block))
            return block

        lazy = images.copy()
        values = da.from_array(images["image"].values, chunks=(chunk, 16, 16, 3))
        lazy["image"] = images["image"].copy(data=values.map_blocks(look, dtype=np.uint8))
        expected = models.predict(network, images, progress=False)
        computed.clear()
        found = models.predict(network, lazy, batch_size=6, progress=False)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert sum(computed) == 23
        np.testing.assert_allclose(
            models.activations(network, lazy, "layer2", batch_size=6, progress=False),
            models.activations(network, images, "layer2", progress=False),
            atol=1e-6,
        )

    def test_small_chunks_are_loaded_a_batch_at_a_time(self, network):
        loaded, before_each_batch = [], []

        def look(block):
            loaded.append(len(block))
            return block

        class Watched(nn.Module):
            def forward(self, x):
                before_each_batch.append(sum(loaded))
                return network(x)

        values = da.zeros((40, 16, 16, 3), chunks=(4, 16, 16, 3), dtype=np.uint8)
        lazy = dataset(values.map_blocks(look, dtype=np.uint8, meta=np.empty(0, np.uint8)))
        models.predict(Watched(), lazy, batch_size=8, progress=False)
        assert before_each_batch == [8, 16, 24, 32, 40]

    def test_grey_images_are_repeated_for_a_network_of_three_channels(self, images, network):
        grey = images.isel(channel=[0])
        repeated = images.isel(channel=[0, 0, 0])
        np.testing.assert_allclose(
            models.predict(network, grey, progress=False),
            models.predict(network, repeated, progress=False),
            atol=1e-6,
        )

    def test_larger_integers_are_scaled_by_their_type(self, images, network):
        deep = images.assign(image=images["image"].astype(np.uint16) * 257)
        np.testing.assert_allclose(
            models.predict(network, deep, progress=False),
            models.predict(network, images, progress=False),
            atol=1e-6,
        )

    def test_half_precision_networks_get_half_precision(self, images):
        network = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16 * 3, 2)).half()
        found = models.predict(network, images, progress=False)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_gpu_agrees_with_the_cpu(self, images, network):
        expected = models.predict(network, images, progress=False)
        found = models.predict(network.to("cuda"), images, progress=False)
        network.to("cpu")
        np.testing.assert_allclose(found, expected, atol=1e-3)

    def test_the_bar_counts_every_image(self, images, network, capsys):
        models.predict(network, images, batch_size=5)
        assert "23/23" in capsys.readouterr().err


class TestBadInput:
    def test_channels_that_the_network_does_not_take(self, images, network):
        two = images.isel(channel=[0, 1])
        message = "the images have 2 channels, the network takes 3"
        with pytest.raises(ValueError, match=message):
            models.predict(network, two, progress=False)
        with pytest.raises(ValueError, match=message):
            models.activations(network, two, progress=False)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_pixels_that_are_no_numbers(self, bad, images, network):
        values = images["image"].values / np.float32(255)
        values[5, 3, 3, 0] = bad
        with pytest.raises(ValueError, match="sample 's5' holds NaN or infinite"):
            models.predict(network, dataset(values), batch_size=4, progress=False)

    def test_floats_far_from_zero_to_one_are_told_of_once(self, images, network):
        with pytest.warns(UserWarning, match=r"run from 0\.0 to 255") as told:
            models.predict(
                network, images.assign(image=images.image.astype(float)), batch_size=4,
                progress=False,
            )  # fmt: skip
        assert len(told) == 1

    def test_outputs_that_are_no_scores(self, images):
        with pytest.raises(ValueError, match=r"gives \(23, 3, 16, 16\) for 23 images"):
            models.predict(nn.Identity(), images, progress=False)

        class Broken(nn.Module):
            def forward(self, x):
                return x[:, :, 0, 0] * torch.nan

        with pytest.raises(ValueError, match="NaN for 23 images, first 's0'"):
            models.predict(Broken(), images, progress=False)

    def test_nothing_to_predict(self, images, network):
        with pytest.raises(ValueError, match="no image"):
            models.predict(network, images.isel(sample=[]))
        with pytest.raises(KeyError, match="no variable 'image'"):
            models.predict(network, images.drop_vars("image"))
        with pytest.raises(ValueError, match="batch_size=0"):
            models.predict(network, images, batch_size=0)


class TestEvaluate:
    def test_leaves_unlabelled_samples_out(self):
        rows = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
        ds = dataset(rows[:, None, :, None]).assign(label=("sample", [0, 1, 1, -1]))
        found = models.evaluate(Scores(), ds, progress=False)
        assert found["n"] == 3
        assert found["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
        assert found["expected_calibration_error"] == pytest.approx(1 / 3, abs=1e-4)

    def test_refuses_other_classes(self, images, network):
        with pytest.raises(ValueError, match="no sample has a label"):
            models.evaluate(network, images.assign(label=("sample", [-1] * 23)))
        named = models.SmallResNet(classes=2, widths=(4, 4, 4, 4, 4))
        named.classes = ["cat", "dog"]
        labelled = images.assign(label=("sample", [0] * 23)).assign_coords(
            {"class": ["dog", "cat"]}
        )
        with pytest.raises(ValueError, match=r"classes are \['cat', 'dog'\]"):
            models.evaluate(named, labelled, progress=False)
