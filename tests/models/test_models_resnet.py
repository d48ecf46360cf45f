"""The small network, its training, and what its layers make of images."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional as F

from workbench import datasets, models
from workbench.models.augmentation import Recipe, augment, cutmix
from workbench.models.inference import calibration_error
from workbench.models.training import calibrate, train

MODEL_CARD = Path(str(files("workbench.models"))) / "weights" / "README.md"


@pytest.fixture(scope="module")
def photos():
    return datasets.load("photos", split="train", n=200)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.SmallResNet(classes=10, widths=(4, 4, 8, 8, 8))


class TestActivations:
    def test_a_stage_is_averaged_over_the_image(self, photos, network):
        found = models.activations(network, photos, "layer3", progress=False)
        image = torch.from_numpy(photos["image"].values).permute(0, 3, 1, 2).float() / 255
        network.eval()
        with torch.no_grad():
            x = network.stem((image - network.mean) / network.std)
            expected = network.layer3(network.layer2(network.layer1(x))).mean((2, 3))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert list(found.sample.values) == list(photos.sample.values)

    @pytest.mark.parametrize(
        ("build", "layer", "axes"),
        [
            (lambda: _timm("vit_tiny_patch16_224", img_size=32, depth=2), "blocks.1", 1),
            (lambda: _timm("vit_tiny_patch16_224", img_size=32, depth=2), "norm", 1),
            (lambda: _swin(), "features.1", (1, 2)),
            (lambda: nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.AdaptiveAvgPool2d(1)), "1", (2, 3)),
        ],
    )
    def test_transformers_are_averaged_over_the_image_too(self, photos, build, layer, axes):
        torch.manual_seed(0)
        network = build().eval()
        kept = []
        handle = network.get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2]))
        image = torch.from_numpy(photos["image"].values).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            network(image)
        handle.remove()
        vectors = models.activations(network, photos, layer, progress=False)
        np.testing.assert_allclose(vectors, kept[0].mean(axes), atol=1e-4)

    def test_an_activation_that_writes_into_the_layers_output_is_not_seen(self, photos):
        first = nn.Conv2d(3, 8, 3)
        in_place = nn.Sequential(first, nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2))
        vectors = models.activations(in_place, photos, "0", progress=False)
        alone = models.activations(nn.Sequential(first), photos, "0", progress=False)
        np.testing.assert_array_equal(vectors, alone)

    def test_a_network_that_ends_in_a_convolution(self, photos):
        from torchvision.models import squeezenet1_1

        vectors = models.activations(squeezenet1_1(num_classes=4), photos, progress=False)
        assert vectors.attrs["layer"] == "before classifier.1"
        assert vectors.sizes["feature"] == 512

    def test_leaves_the_model_as_it_was(self, photos, network):
        network.train()
        network.layer1.eval()
        before = {k: v.clone() for k, v in network.state_dict().items()}
        models.activations(network, photos, progress=False)
        assert network.training
        assert not network.layer1.training
        assert all((before[k] == v).all() for k, v in network.state_dict().items())
        assert not any(module._forward_hooks for module in network.modules())

    def test_unknown_layers_name_the_nearest(self, photos, network):
        with pytest.raises(ValueError, match=r"no layer 'layer9'; there is layer\d"):
            models.activations(network, photos, "layer9")
        with pytest.raises(ValueError, match=r"no nn.Linear"):
            models.activations(nn.Sequential(nn.Flatten()), photos)

    def test_an_exception_leaves_no_hook(self, network):
        wrong = xr.Dataset({"image": (("sample", "y", "x", "channel"), np.zeros((2, 8, 8, 5)))})
        with pytest.raises(ValueError, match="5 channels"):
            models.activations(network, wrong, progress=False)
        assert not any(module._forward_hooks for module in network.modules())


class TestTraining:
    recipe = Recipe(epochs=2, batch_size=50, peak_rate=0.05, averaged=2)

    def fresh(self):
        torch.manual_seed(1)
        return models.SmallResNet(classes=10, widths=(8, 8, 16, 16, 16))

    def losses(self, photos, recipe):
        return train(self.fresh(), photos, recipe, progress=False).log["loss"].tolist()

    def test_learns_more_than_chance(self, photos):
        model = self.fresh()
        recipe = Recipe(epochs=6, batch_size=25, peak_rate=0.1)
        losses = train(model, photos, recipe, progress=False).log["loss"].tolist()
        assert losses[-1] < losses[0]
        assert models.evaluate(model, photos, progress=False)["accuracy"] > 0.3

    def test_an_interrupted_run_ends_as_an_uninterrupted_one(self, photos, tmp_path):
        whole = self.fresh()
        expected = train(whole, photos, self.recipe, progress=False).log

        def stop_in_the_last(epoch, _):
            if epoch == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(self.fresh(), photos, self.recipe, out=tmp_path, on_epoch=stop_in_the_last)
        names = sorted(file.name for file in (tmp_path / "snapshots").iterdir())
        assert names == ["epoch-0001.pt", "epoch-0002.pt", "epoch-0003.pt"]
        # from any of them
        for last in ("epoch-0003.pt", "epoch-0002.pt"):
            for file in (tmp_path / "snapshots").iterdir():
                if file.name > last:
                    file.unlink()
            resumed, log = train(self.fresh(), photos, self.recipe, out=tmp_path, progress=False)
            np.testing.assert_allclose(log["loss"], expected["loss"], rtol=1e-4)
            for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        assert pd.read_csv(tmp_path / "log.csv")["epoch"].tolist() == [0, 1, 2, 3]
        assert (tmp_path / "log.png").stat().st_size > 1000

    def test_the_weights_are_the_mean_of_the_last_steps(self, photos, monkeypatch):
        from workbench.models import training

        seen, rates, plain_step = [], [], training._State.step

        def step(state, averaging):
            plain_step(state, averaging)
            if averaging:
                seen.append([p.detach().clone() for p in state.model.parameters()])
                rates.append(state.optimizer.param_groups[0]["lr"])

        monkeypatch.setattr(training._State, "step", step)
        model = self.fresh()
        losses = train(model, photos, self.recipe, progress=False).log["loss"]
        assert len(losses) == 4
        assert len(seen) == 2 * -(-photos.sizes["sample"] // 50)
        assert set(rates) == {0.03}
        for ours, steps in zip(model.parameters(), zip(*seen, strict=True), strict=True):
            torch.testing.assert_close(ours, torch.stack(steps).mean(0), rtol=1e-4, atol=1e-6)
        pixels = photos.image.transpose("sample", "channel", "y", "x").values / np.float32(255)
        with torch.no_grad():
            stem = model.stem[0]((torch.from_numpy(pixels) - model.mean) / model.std)
        torch.testing.assert_close(
            model.stem[1].running_mean, stem.mean((0, 2, 3)), rtol=1e-2, atol=1e-3
        )

    def test_snapshots_of_another_recipe_or_other_data_are_refused(self, photos, tmp_path):
        recipe = Recipe(epochs=1, batch_size=100)
        train(self.fresh(), photos, recipe, out=tmp_path, progress=False)
        with pytest.raises(ValueError, match="made with another recipe"):
            train(self.fresh(), photos, replace(recipe, epochs=2), out=tmp_path)
        with pytest.raises(ValueError, match="made with another data"):
            train(self.fresh(), photos.isel(sample=slice(100)), recipe, out=tmp_path)

    def test_unlabelled_samples_are_refused(self, photos):
        unlabelled = photos.assign(label=photos.label.where(photos.label != 3, -1))
        with pytest.raises(ValueError, match="20 samples have no label"):
            train(self.fresh(), unlabelled, self.recipe)

    def test_augmentation_only_shifts_and_flips(self):
        images = torch.arange(6 * 6, dtype=torch.uint8).view(1, 1, 6, 6).repeat(64, 1, 1, 1)
        dice = torch.Generator().manual_seed(0)
        same = augment(images, Recipe(shift=0, flip=False, cutout=0), dice)
        assert (same == images).all()
        flipped = augment(images, Recipe(shift=0, flip=True, cutout=0), dice)
        turned = (flipped != images).any((1, 2, 3))
        assert 15 < turned.sum() < 49
        assert (flipped[turned] == images[turned].flip(3)).all()
        moved = augment(images, Recipe(shift=2, flip=False, cutout=0), dice)
        assert moved.shape == images.shape
        assert len(moved.flatten(1).unique(dim=0)) > 10

    def test_cutout_greys_one_square_and_nothing_else(self):
        images = torch.full((500, 3, 12, 12), 7, dtype=torch.uint8)
        dice = torch.Generator().manual_seed(0)
        changed = augment(images, Recipe(shift=0, flip=False, cutout=4), dice)
        grey = changed == 128
        assert (changed[~grey] == 7).all()
        assert (grey == grey[:, :1]).all()
        sizes = grey[:, 0].sum((1, 2))
        # at an edge part of the square is outside, at least a quarter never
        assert sizes.min() >= 4
        assert sizes.max() == 16
        hit = grey[:, 0].float().mean(0)
        assert (hit > 0).all()

    def test_a_pasted_box_brings_as_much_of_its_label_as_of_its_image(self):
        labels = torch.arange(8) % 5
        images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 10, 10)
        dice, shares = torch.Generator().manual_seed(0), []
        for _ in range(300):
            mixed, wanted = cutmix(images, F.one_hot(labels, 5).float(), dice)
            pasted = (mixed != images)[:, 0].float().mean((1, 2))
            before = images.roll(1, 0)
            assert ((mixed == images) | (mixed == before)).all()
            assert pasted.unique().numel() == 1
            own, other = F.one_hot(labels, 5), F.one_hot(labels.roll(1), 5)
            share = pasted[0]
            torch.testing.assert_close(wanted, (1 - share) * own + share * other)
            shares.append(float(share))
        assert min(shares) < 0.1
        assert max(shares) > 0.7
        assert np.mean(shares) == pytest.approx(0.321, abs=0.05)  # of a million boxes

    def test_the_last_epochs_are_plain(self, photos):
        plain = Recipe(epochs=3, batch_size=50, peak_rate=0.05, bfloat16=False)
        always = self.losses(photos, replace(plain, mixed=1.0))
        never = self.losses(photos, replace(plain, mixed=1.0, last_plain=3))
        some = self.losses(photos, replace(plain, mixed=1.0, last_plain=2))
        hardly = self.losses(photos, replace(plain, mixed=1e-9))
        assert never == pytest.approx(hardly, rel=1e-4)
        assert some[0] == pytest.approx(always[0], rel=1e-4)
        assert some[1] < always[1]

    def test_bfloat16_changes_the_loss_a_little(self, photos):
        whole = self.losses(photos, Recipe(epochs=1, batch_size=50, bfloat16=False))
        half = self.losses(photos, Recipe(epochs=1, batch_size=50, bfloat16=True))
        assert whole[0] == pytest.approx(half[0], rel=0.05)
        assert whole[0] != half[0]


class TestCalibration:
    def test_the_temperature_undoes_what_was_done_to_the_last_layer(self, photos):
        torch.manual_seed(1)
        model = models.SmallResNet(classes=10, widths=(8, 8, 16, 16, 16))
        recipe = Recipe(epochs=4, batch_size=25, peak_rate=0.1)
        train(model, photos, recipe)
        calibrate(model, photos, recipe)
        before = models.predict(model, photos, progress=False)
        assert calibrate(model, photos, recipe) == pytest.approx(1, abs=0.02)
        with torch.no_grad():
            model.fc.weight *= 3
            model.fc.bias *= 3
        assert calibrate(model, photos, recipe) == pytest.approx(3, abs=0.05)
        after = models.predict(model, photos, progress=False)
        np.testing.assert_allclose(after, before, atol=0.01)


def _timm(name, **options):
    import timm

    return timm.create_model(name, num_classes=5, **options)


def _swin():
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=5)


def test_calibration_error_of_a_worked_example():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)


#: Accuracy and calibration error as the model card tells them.
CARD = {"cifar10": (0.9061, 0.0424), "mnist": (0.9963, 0.0026)}


class TestShipped:
    @pytest.mark.parametrize("name", CARD)
    def test_is_what_its_card_says_on_the_official_test_images(self, name, real_data):
        if not (real_data / name).is_dir():
            pytest.skip(f"needs real {name} in WORKBENCH_DATA")
        ds = datasets.load(name, split="test")
        measured = models.evaluate(models.load(name), ds, progress=False)
        accuracy, error = CARD[name]
        assert measured["n"] == 10_000
        assert measured["accuracy"] == pytest.approx(accuracy, abs=0.0005)
        assert measured["expected_calibration_error"] == pytest.approx(error, abs=0.002)

    @pytest.mark.parametrize("name", CARD)
    def test_the_card_says_so(self, name):
        accuracy, error = CARD[name]
        section = MODEL_CARD.read_text().partition(f"## `{name}`")[2].partition("\n## ")[0]
        assert f"**{100 * accuracy:.2f} %**" in section
        assert f"error {error:.3f} over" in section

    @pytest.mark.parametrize(("name", "shape", "third"), [
        ("cifar10", (2, 3, 32, 32), "cat"), ("mnist", (2, 1, 28, 28), "3"),
    ])  # fmt: skip
    def test_loads_ready_to_predict(self, name, shape, third):
        network = models.load(name)
        assert not network.training
        assert network(torch.rand(shape)).shape == (2, 10)
        assert network.classes[3] == third

    def test_the_weights_are_small(self):
        assert sum(file.stat().st_size for file in MODEL_CARD.parent.iterdir()) < 5e6
