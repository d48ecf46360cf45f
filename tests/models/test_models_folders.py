"""Folders as Hugging Face's hub keeps them, of timm and of transformers."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional as F

from workbench import gradcam, models

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.3]


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    return xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})


def prepared(images, mode):
    """The images as the folders' presets want them, made by hand."""
    x = torch.from_numpy(images["image"].values).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, (32, 32), mode=mode, antialias=True).clamp(0, 1)
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "ViT": {**TRANSFORMER, "intermediate_size": 32, "image_size": 32, "patch_size": 8},
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]},
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
}


class TestTransformers:
    @pytest.fixture
    def transformers(self):
        return pytest.importorskip("transformers")

    def build(self, transformers, family, task="ForImageClassification"):
        torch.manual_seed(0)
        config = getattr(transformers, f"{family}Config")(num_labels=3, **CONFIGS[family])
        return getattr(transformers, f"{family}{task}")(config).eval()

    @pytest.mark.parametrize(
        ("family", "layer", "grid"),
        [("ViT", "vit.layers.1.layernorm_before", 4), ("ResNet", "resnet.encoder.stages.1", 4),
         ("ConvNext", "convnext.encoder.stages.1", 4)],
    )  # fmt: skip
    def test_a_saved_classifier_predicts_the_same_and_is_explained(
        self, transformers, family, layer, grid, images, tmp_path
    ):
        model = self.build(transformers, family)
        model.config.id2label = {0: "ash", 1: "birch", 2: "cedar"}
        model.save_pretrained(tmp_path)
        wants = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**wants, "resample": 3}))
        network = models.load(tmp_path)
        assert network.classes == ["ash", "birch", "cedar"]
        found = models.predict(network, images, progress=False)
        x = prepared(images, "bicubic")
        with torch.no_grad():
            np.testing.assert_allclose(found, model(x).logits.softmax(1), atol=1e-5)
        table = gradcam.receptive_field(network, (3, 32, 32))
        assert gradcam.narrowest(table) == layer
        with gradcam.Probe(network, layer) as probe:
            assert probe.run(images, 1).map(signed=True).shape == (3, grid, grid)
        assert len(models.activations(network, images, progress=False)) == 3

    def test_a_backbone_without_a_head_is_no_classifier(self, transformers, tmp_path):
        self.build(transformers, "ViT", "Model").save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"no weights for classifier\.bias, classif"):
            models.load(tmp_path)

    def test_pickled_weights_are_not_read(self, transformers, tmp_path):
        model = self.build(transformers, "ResNet")
        model.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match="cannot be read as an image classifier"):
            models.load(tmp_path)

    def test_classes_without_names_are_numbers(self, transformers, images, tmp_path):
        self.build(transformers, "ResNet").save_pretrained(tmp_path)
        found = models.predict(models.load(tmp_path), images, progress=False)
        assert found["class"].values.tolist() == [0, 1, 2]


class TestTimm:
    def save(self, folder, **about):
        import timm
        from timm.models import save_for_hf

        torch.manual_seed(0)
        model = timm.create_model("resnet10t", num_classes=3).eval()
        model.pretrained_cfg |= {"mean": MEAN, "std": STD, "input_size": (3, 32, 32)}
        save_for_hf(model, folder, model_config=about, safe_serialization=True)
        return model

    def test_a_saved_network_has_its_preset_and_its_names(self, images, tmp_path):
        model = self.save(tmp_path, label_names=["ash", "birch", "cedar"])
        network = models.load(tmp_path)
        assert network.classes == ["ash", "birch", "cedar"]
        found = models.predict(network, images, progress=False)
        mode = model.pretrained_cfg["interpolation"]
        with torch.no_grad():
            expected = model(prepared(images, mode)).softmax(1)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_a_folder_without_its_weights_is_refused(self, tmp_path):
        self.save(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(ValueError, match="cannot be read as an image classifier"):
            models.load(tmp_path)
        (tmp_path / "config.json").unlink()
        with pytest.raises(ValueError, match=r"a folder without config\.json"):
            models.load(tmp_path)
