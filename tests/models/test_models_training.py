"""Training of any network on any data, and what is exact about it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from workbench import datasets, models, store
from workbench.datasets.boxes import CORNERS, as_table
from workbench.datasets.dataset import build
from workbench.datasets.detections import average_precision
from workbench.models.augmentation import Recipe, augment, jitter, mixup, warp
from workbench.models.fcn import FCN, moved, objects_of, targets

QUICK = Recipe(epochs=2, batch_size=20, peak_rate=0.05, shift=1, cutout=2, bfloat16=False)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", split="train", n=60)


def small(classes=10):
    torch.manual_seed(0)
    return models.SmallResNet(1, classes, widths=(8, 8, 16, 16, 16))


def scenes(n, seed=0):
    """Noise with bright squares and dark bars on it, and their boxes."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 130, (n, 48, 64, 3), dtype=np.uint8)
    rows = []
    for i in range(n):
        for k, (width, height, shade) in enumerate(((12, 12, 230), (20, 8, 10))):
            x, y = rng.integers([32 * k, 0], [32 * k + 32 - width, 48 - height]).tolist()
            image[i, y : y + height, x : x + width] = shade
            box = dict(zip(CORNERS, (x, y, x + width, y + height), strict=True))
            rows.append(box | {"sample": f"s{i}", "label": ["square", "bar"][k]})
    names = np.array([f"s{i}" for i in range(n)])
    ds = build(image, sample=names, classes=["square", "bar"], attrs={"name": "scenes"})
    return ds, as_table(rows)


class TestMixing:
    def test_the_loss_of_a_blend_is_the_blend_of_the_losses(self):
        rng = torch.Generator().manual_seed(0)
        images = torch.rand(8, 3, 4, 4, generator=rng)
        label = torch.arange(8) % 5
        one, other = F.one_hot(label, 5).float(), F.one_hot(label.roll(1), 5).float()
        shares = []
        for _ in range(50):
            mixed, wanted = mixup(images, one, 0.4, rng)
            share = float(((mixed - images.roll(1, 0)) / (images - images.roll(1, 0))).mean())
            logits = torch.randn(8, 5, generator=rng)
            both = [F.cross_entropy(logits, each) for each in (label, label.roll(1))]
            mixed_loss = F.cross_entropy(logits, wanted)
            torch.testing.assert_close(mixed_loss, share * both[0] + (1 - share) * both[1])
            torch.testing.assert_close(wanted, share * one + (1 - share) * other)
            shares.append(share)
        assert min(shares) < 0.1
        assert max(shares) > 0.9

    def test_smoothing_asks_for_what_the_recipe_says(self):
        logits, label = torch.randn(6, 4), torch.arange(6) % 4
        wanted = F.one_hot(label, 4) * (1 - 0.1) + 0.1 / 4
        torch.testing.assert_close(wanted.max(), torch.tensor(1 - 0.1 + 0.1 / 4))
        ours = F.cross_entropy(logits, label, label_smoothing=0.1)
        torch.testing.assert_close(ours, F.cross_entropy(logits, wanted))

    def test_a_recipe_mixes_in_training(self, digits):
        losses = [
            models.train(small(), digits, recipe, progress=False).log["loss"].iloc[0]
            for recipe in (QUICK, Recipe(**{**vars(QUICK), "mixup": 1.0}))
        ]
        assert losses[0] != losses[1]


class TestAugmentation:
    def test_an_image_goes_where_its_map_says(self):
        recipe = Recipe(angle=40, min_scale=0.8, max_scale=1.2, shift=3)
        images = torch.zeros(20, 1, 40, 48)
        images[:, :, 12:20, 16:28] = 1
        matrix = jitter(20, 40, 48, recipe, torch.Generator().manual_seed(0), True)
        changed = warp(images, matrix)
        box = torch.tensor([[16.0, 12, 28, 20]]).expand(20, -1)
        for image, (x0, y0, x1, y1) in zip(changed, moved(box, matrix), strict=True):
            rows, columns = torch.nonzero(image[0] > 0, as_tuple=True)
            seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(seen, [x0, y0, x1, y1], atol=1.6)
        # the mass of a box that stays inside is that of its area
        area = torch.linalg.det(matrix[:, :, :2]).abs() * 8 * 12
        torch.testing.assert_close(changed.sum((1, 2, 3)), area, rtol=0.03, atol=1)

    def test_color_and_rotation_keep_type_and_shape(self):
        images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
        recipe = Recipe(angle=20, color=30, shift=0, flip=False, cutout=0)
        changed = augment(images, recipe, torch.Generator().manual_seed(0))
        assert changed.dtype == torch.uint8
        assert changed.shape == images.shape
        plain = augment(images, Recipe(color=30, shift=0, flip=False, cutout=0),
                        torch.Generator().manual_seed(0))  # fmt: skip
        off = plain.float() - images.float()
        inside = (plain > 0) & (plain < 255)
        for image, there in zip(off, inside, strict=True):
            for channel, known in zip(image, there, strict=True):
                assert channel[known].unique().numel() == 1
                assert channel[known].abs().max() <= 30


class TestAnyData:
    def test_a_store_a_stream_and_the_dataset_train_alike(self, digits, tmp_path):
        path = store.write(digits, tmp_path / "store", progress=False)
        plain = Recipe(**{**vars(QUICK), "shift": 0, "cutout": 0, "flip": False})
        stream = store.stream(path, 20)
        logs = [models.train(small(), data, plain, progress=False).log
                for data in (digits, path, stream)]  # fmt: skip
        np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-4)
        assert logs[2]["loss"].iloc[-1] == pytest.approx(logs[0]["loss"].iloc[-1], rel=0.2)

    def test_several_labels_an_image(self, digits):
        label = digits["label"].values
        member = np.stack([label % 2 == 0, label > 4], axis=1)
        ds = digits.drop_vars(["label", "class"]).assign_coords({"class": ["even", "large"]})
        ds["labels"] = ("sample", "class"), member
        model, log = models.train(small(2), ds, QUICK, progress=False)
        found = models.predict(model, ds, activation="sigmoid", progress=False)
        assert found.shape == (60, 2)
        assert log["loss"].iloc[-1] < np.log(2) + 0.1

    def test_held_out_images_are_measured_and_not_trained_on(self, digits, tmp_path):
        seen = []
        model, log = models.train("small-resnet", digits, QUICK, validate=0.2, out=tmp_path,
                                  on_epoch=lambda epoch, model: seen.append((epoch, model)),
                                  progress=False)  # fmt: skip
        assert [epoch for epoch, _ in seen] == [0, 1]
        assert seen[0][1] is model
        assert log["accuracy"].between(0, 1).all()
        again = models.load(tmp_path / "model.safetensors")
        assert again.classes == [str(i) for i in range(10)]
        ours, theirs = (models.predict(m, digits, progress=False) for m in (model, again))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def test_a_network_of_torchvision_gets_a_new_head(self, digits, tmp_path):
        pytest.importorskip("torchvision")
        recipe = Recipe(epochs=1, batch_size=10, peak_rate=0.01, pretrained=False, shift=1)
        few = digits.isel(sample=slice(10))
        model, _ = models.train("shufflenet_v2_x0_5", few, recipe, out=tmp_path, progress=False)
        again = models.load(tmp_path / "model.safetensors")
        ours, theirs = (models.predict(m.eval(), few, progress=False) for m in (model, again))
        assert ours.sizes["class"] == 10
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def test_bad_input_is_named(self, digits):
        with pytest.raises(ValueError, match="no boxes to learn from"):
            models.train("fcn", digits.drop_vars(["class", "label"]))
        with pytest.raises(ValueError, match="no boxes to learn from"):
            models.train(FCN(["a"]), digits)
        with pytest.raises(ValueError, match=r"validate=1\.5"):
            models.train("small-resnet", digits, validate=1.5)
        with pytest.raises(ValueError, match="mixup=-1"):
            Recipe(mixup=-1)


@pytest.fixture(scope="module")
def trained():
    ds, boxes = scenes(16)
    recipe = Recipe(
        epochs=12, batch_size=4, peak_rate=6e-3, optimizer="adamw", shift=4, bfloat16=False
    )
    model = FCN(["square", "bar"], size=64, widths=(8, 16, 16, 16))
    return models.train(model, ds, recipe, boxes=boxes, progress=False).model


class TestDetection:
    def test_targets_are_highest_at_the_middle_and_tell_the_edges(self):
        box = torch.tensor([[8.0, 12, 40, 28]])
        heat, edges, weight = targets(box, torch.tensor([1]), torch.tensor([0]), (2, 3, 16, 16))
        assert heat[0, 1].argmax() == 5 * 16 + 6
        assert heat[0, 1].max() == 1
        assert heat[0, [0, 2]].abs().max() == heat[1].abs().max() == 0
        inside = weight[0, 0] > 0
        distance = edges[0].exp() * 8
        x = torch.arange(16) * 4 + 2.0
        assert inside.sum() > 4
        np.testing.assert_allclose((x - distance[0])[inside], 8, rtol=1e-5)
        np.testing.assert_allclose((x + distance[2])[inside], 40, rtol=1e-5)

    def test_it_finds_objects_in_unseen_scenes(self, trained):
        ds, boxes = scenes(12, seed=5)
        found = models.predict(trained, ds, boxes=True, progress=False)
        score = average_precision(boxes, found, resamples=100)
        assert score["mean"] > 0.8
        assert score["low"] <= score["mean"] <= score["high"]
        assert set(found["source"]) == {"FCN"}

    def test_every_form_of_the_network_finds_the_same(self, trained, tmp_path):
        ds, _ = scenes(5, seed=5)
        expected = models.predict(trained, ds, boxes=True, progress=False)
        models.save(trained, tmp_path / "fcn.safetensors")
        example = torch.rand(5, 3, 48, 64)
        trained.eval()
        torch.jit.trace(trained, example).save(tmp_path / "fcn.pt")
        torch.export.save(torch.export.export(trained, (example,)), tmp_path / "fcn.pt2")
        torch.onnx.export(trained, (example,), tmp_path / "fcn.onnx", dynamo=False)
        for name in ("fcn.safetensors", "fcn.pt", "fcn.pt2", "fcn.onnx"):
            network = models.load(tmp_path / name, trusted=True)
            told = {"classes": ["square", "bar"], "size": 64}
            options = {} if name == "fcn.safetensors" else told
            found = models.predict(network, ds, boxes=True, progress=False, **options)
            pd.testing.assert_frame_equal(
                found.drop(columns="source"), expected.drop(columns="source"), atol=1e-2
            )
        with pytest.raises(ValueError, match="does not tell its classes"):
            models.predict(models.load(tmp_path / "fcn.pt", trusted=True), ds, boxes=True)

    def test_torchvision_s_detectors_give_the_same_table(self):
        class Detector(nn.Module):
            classes = ("nothing", "cat")

            def forward(self, x):
                box = torch.tensor([[4.0, 8, 20, 24], [5, 8, 20, 24], [0, 0, 3, 3]])
                return [{"boxes": box, "scores": torch.tensor([0.9, 0.8, 0.1]),
                         "labels": torch.tensor([1, 1, 1])} for _ in x]  # fmt: skip

        ds, _ = scenes(2)
        found = models.predict(Detector(), ds, boxes=True, size=32, progress=False)
        assert found["label"].tolist() == ["cat", "cat"]
        assert found[CORNERS].values.tolist() == [[8, 16, 40, 48]] * 2

    def test_from_a_store_and_a_stream(self, tmp_path):
        ds, boxes = scenes(4)
        path = store.write(ds, tmp_path / "store", boxes, progress=False)
        recipe = Recipe(
            epochs=2, batch_size=4, peak_rate=2e-3, optimizer="adamw", bfloat16=False, shift=2
        )
        for data in (path, store.stream(path, 4, perturb=store.Perturb(hflip=True))):
            model, log = models.train("fcn", data, recipe, progress=False)
            assert model.classes == ["square", "bar"]
            assert log["loss"].iloc[1] < log["loss"].iloc[0]

    @pytest.mark.parametrize("named", [True, False])
    def test_from_masks(self, named):
        """Connected parts of a class are objects; of a shrunken image, at full size."""
        ds, boxes = scenes(4)
        mask = np.full((4, 48, 64), -1, np.int16)
        for at, *corners, label in boxes[["sample", *CORNERS, "label"]].itertuples(index=False):
            x0, y0, x1, y1 = map(int, corners)
            mask[int(at[1:]), y0:y1, x0:x1] = ["square", "bar"].index(label)
        ds = ds.drop_vars([] if named else ["class"])
        ds["mask"] = ("sample", "y", "x"), mask
        names = np.array(["square", "bar"] if named else ["0", "1"])
        found = objects_of(ds.assign(height=("sample", [96] * 4), width=("sample", [128] * 4)))
        assert set(found["label"]) == set(names)
        np.testing.assert_array_equal(found[CORNERS].to_numpy(), 2 * boxes[CORNERS].to_numpy())
        recipe = replace(models.recipe_of("fcn"), epochs=2, shift=2)
        model, log = models.train("fcn", ds, recipe, validate=0.25, size=64, progress=False)
        assert model.classes == list(names)
        assert log["loss"].iloc[1] < log["loss"].iloc[0]
        assert log["average_precision"].between(0, 1).all()

    def test_a_stream_names_its_classes_whatever_the_first_batch_holds(self, tmp_path):
        ds, boxes = scenes(4)
        last = boxes[boxes["sample"] == "s3"].assign(label="rare")
        table = pd.concat([boxes[boxes["label"] == "bar"], last]).drop_duplicates(
            "sample", keep="last"
        )
        path = store.write(ds.drop_vars("class"), tmp_path / "store", table, progress=False)
        data = store.stream(path, 2, shuffle=False)
        recipe = replace(models.recipe_of("fcn"), epochs=1, shift=2)
        model, log = models.train("fcn", data, recipe, validate=data, size=64, progress=False)
        assert model.classes == ["bar", "rare"]
        assert "average_precision" in log


class TestAveragePrecision:
    def test_a_worked_example(self):
        at = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
        truth = pd.DataFrame(at, columns=CORNERS).assign(sample=0, label="a")
        wrong = [[60, 0, 70, 10]]
        found = pd.DataFrame([at[0], wrong[0], at[1], at[1]], columns=CORNERS)
        found = found.assign(sample=0, label="a", score=[0.9, 0.8, 0.7, 0.6])
        # recall 1/3 at precision 1, 2/3 at precision 2/3; the second on the same box is wrong
        assert average_precision(truth, found)["mean"] == pytest.approx(1 / 3 + 2 / 9)
        assert average_precision(truth, found.iloc[:0])["mean"] == 0
        with pytest.raises(ValueError, match="no box to find"):
            average_precision(truth.iloc[:0], found)
