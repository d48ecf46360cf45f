"""A network comes out of any kind of file as it went in, and no file runs code when it is read."""

import contextlib
import os
import shutil
import warnings
import zipfile

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file

from workbench import models


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return models.SmallResNet(classes=5, widths=(4, 4, 8, 8, 8)).eval()


@pytest.fixture(scope="module")
def images():
    values = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), dtype=np.uint8)
    return xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    """The network in every format, under names that say nothing."""
    folder = tmp_path_factory.mktemp("networks")
    x = torch.rand(4, 3, 32, 32)
    any_batch = ({0: torch.export.Dim("batch")},)
    torch.save(network.state_dict(), folder / "state_dict")
    torch.save({"epoch": 3, "state_dict": network.state_dict()}, folder / "checkpoint")
    torch.save(network.state_dict(), folder / "old", _use_new_zipfile_serialization=False)
    spread = {f"module.{key}": value for key, value in network.state_dict().items()}
    save_file(spread, folder / "safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(folder / "torchscript")
        for name, shapes in (("exported", any_batch), ("exported_for_four", None)):
            torch.export.save(
                torch.export.export(network, (x,), dynamic_shapes=shapes), folder / f"{name}.pt2"
            )
            (folder / f"{name}.pt2").rename(folder / name)
        options = {"dynamo": False, "input_names": ["image"]}
        torch.onnx.export(network, (x,), folder / "onnx_for_four", **options)
        axes = {"dynamic_axes": {"image": {0: "batch"}}}
        torch.onnx.export(network, (x,), folder / "onnx", **options, **axes)
    return folder


KINDS = {
    "state_dict": "SmallResNet", "checkpoint": "SmallResNet", "old": "SmallResNet",
    "safetensors": "SmallResNet", "torchscript": "Program",
    "exported": "Program", "exported_for_four": "Program",
    "onnx": "Onnx", "onnx_for_four": "Onnx",
}  # fmt: skip


class TestEveryBackend:
    @pytest.mark.parametrize("name", KINDS)
    def test_gives_the_same_probabilities(self, name, network, images, written):
        loaded = models.load(written / name, trusted=True)
        assert type(loaded).__name__ == KINDS[name]
        expected = models.predict(network, images, progress=False)
        # 11 images in batches of at most 5: the last batch of four is filled up
        found = models.predict(loaded, images, batch_size=5, progress=False)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        lazy = models.predict(loaded, images.chunk(sample=3), batch_size=5, progress=False)
        np.testing.assert_allclose(lazy, expected, atol=1e-5)
        one = models.predict(loaded, images.isel(sample=[7]), progress=False)
        np.testing.assert_allclose(one, expected[[7]], atol=1e-5)

    def test_an_onnx_file_with_the_shipped_weights_agrees_on_photographs(self, tmp_path):
        from workbench import datasets

        shipped = models.load("cifar10")
        photos = datasets.load("photos", n=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(shipped, (torch.rand(1, 3, 32, 32),), tmp_path / "it", dynamo=False)
        found = models.predict(models.load(tmp_path / "it", trusted=True), photos, progress=False)
        expected = models.predict(shipped, photos, progress=False)
        np.testing.assert_allclose(found, expected.values, atol=1e-5)

    def test_normalisation_and_size_can_be_said(self, network, images, written):
        large = images.isel(x=np.repeat(np.arange(32), 2), y=np.repeat(np.arange(32), 2))
        found = models.load(
            written / "onnx", trusted=True, size=(32, 32), mean=[0.1] * 3, std=[0.5] * 3
        )
        x = torch.from_numpy(large["image"].values).permute(0, 3, 1, 2).float() / 255
        x = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
        with torch.no_grad():
            expected = network((x - 0.1) / 0.5).softmax(1)
        got = models.predict(found, large, progress=False)
        np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


class TestWhatASealedFileCannotDo:
    @pytest.mark.parametrize("name", ["torchscript", "exported", "onnx"])
    def test_its_layers_are_hidden_and_it_says_so(self, name, images, written):
        with pytest.raises(ValueError, match="files hide their layers; load a state dict"):
            models.activations(models.load(written / name, trusted=True), images, "layer2")

    def test_onnx_has_no_gradients(self, written):
        x = torch.rand(2, 3, 32, 32, requires_grad=True)
        with pytest.raises(ValueError, match="no gradients"):
            models.load(written / "onnx", trusted=True)(x)

    @pytest.mark.parametrize("name", ["exported_for_four", "onnx_for_four"])
    def test_wrong_sizes_and_channels_are_explained(self, name, images, written):
        opaque = models.load(written / name, trusted=True)
        with pytest.raises(ValueError, match="32 pixels high, not 16; load it with size="):
            models.predict(opaque, images.isel(y=slice(16)), progress=False)
        with pytest.raises(ValueError, match="the images have 2 channels, the network takes 3"):
            models.predict(opaque, images.isel(channel=[0, 1]), progress=False)

    def test_an_architecture_is_refused(self, written):
        with pytest.raises(ValueError, match="TorchScript file, a whole network"):
            models.load(written / "torchscript", architecture="resnet18")


class Bomb:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestSafety:
    def test_a_pickled_module_is_refused_with_a_way_out(self, network, tmp_path):
        torch.save(network, tmp_path / "whole.pt")
        with pytest.raises(ValueError, match=r"more than tensors.*model\.state_dict\(\)"):
            models.load(tmp_path / "whole.pt")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_no_pickle_runs(self, zipped, tmp_path):
        content = {"stem": Bomb(tmp_path / "run")}
        torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match="can run any code"):
            models.load(tmp_path / "evil.pt")
        assert not (tmp_path / "run").exists()

    def rewritten(self, source, target, change):
        """A copy of an archive with some of its members changed or added."""
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
            members = {name: old.read(name) for name in old.namelist()}
            change(members)
            for name, content in members.items():
                new.writestr(name, content)
        return target

    def test_a_pickled_weight_in_an_exported_program_does_not_run(self, written, tmp_path):
        torch.save(Bomb(tmp_path / "run"), tmp_path / "bomb")

        def plant(members):
            config = next(name for name in members if name.endswith("model_weights_config.json"))
            members[config] = members[config].replace(b'"use_pickle": false', b'"use_pickle": true')
            for name in members:
                if "weights/weight_" in name:
                    members[name] = (tmp_path / "bomb").read_bytes()

        evil = self.rewritten(written / "exported", tmp_path / "evil.pt2", plant)
        with pytest.raises(ValueError, match=r"cannot be read as torch\.export"):
            models.load(evil, trusted=True)
        assert not (tmp_path / "run").exists()
        # the same file does run code where nobody stops it: the plant is a real one
        with contextlib.suppress(Exception):
            torch.export.load(evil)
        assert (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "member", ["data/aotinductor/model/x.so", "data/constants/opaque_obj_0"]
    )
    def test_compiled_code_and_opaque_objects_are_refused(self, member, written, tmp_path):
        def plant(members):
            top = next(iter(members)).partition("/")[0]
            members[f"{top}/{member}"] = b"code"

        evil = self.rewritten(written / "exported", tmp_path / "evil.pt2", plant)
        with pytest.raises(ValueError, match=f"holds {member}, which could run code"):
            models.load(evil, trusted=True)


class TestBadFiles:
    def test_what_is_no_network_is_refused(self, tmp_path):
        for name, content in (
            ("text.pt", b"hello, I am a text of some length"),
            ("empty.onnx", b""),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match="holds no network that can be read"):
                models.load(tmp_path / name)
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
            archive.writestr("a/b", "c")
        with pytest.raises(ValueError, match="holds no network"):
            models.load(tmp_path / "other.zip")
        with pytest.raises(FileNotFoundError, match=r"no file .*missing\.pt"):
            models.load(str(tmp_path / "missing.pt"))

    @pytest.mark.parametrize("name", KINDS)
    def test_a_file_cut_short_is_an_error_of_ours(self, name, written, tmp_path):
        shutil.copy(written / name, tmp_path / "cut")
        size = (tmp_path / "cut").stat().st_size
        os.truncate(tmp_path / "cut", size * 2 // 3)
        with pytest.raises(ValueError, match="cut"):
            models.load(tmp_path / "cut", trusted=True)

    def test_weights_of_another_network_are_named(self, tmp_path):
        torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"first 'conv.weight'\); say which"):
            models.load(tmp_path / "other.pt")
        torch.save([1, 2], tmp_path / "list.pt")
        with pytest.raises(ValueError, match="holds a list, not a state dict"):
            models.load(tmp_path / "list.pt")

    def test_a_module_can_be_filled_and_must_fit(self, network, written):
        empty = models.SmallResNet(classes=5, widths=(4, 4, 8, 8, 8))
        filled = models.load(written / "state_dict", architecture=empty)
        assert filled is empty
        assert (filled.fc.weight == network.fc.weight).all()
        with pytest.raises(ValueError, match=r"does not fit SmallResNet: .*size mismatch for"):
            models.load(written / "state_dict", architecture=models.SmallResNet())


class TestOnnxOfOtherKinds:
    """Programs as converters and quantisers leave them."""

    def build(self, path, dtype, last, outputs):
        from onnx import TensorProto, checker, helper, save

        kind = {"uint8": TensorProto.UINT8, "double": TensorProto.DOUBLE}[dtype]
        shape = ["n", 6, 5, 3] if last else ["n", 3, 6, 5]
        axes = [1, 2] if last else [2, 3]
        make = helper.make_node
        nodes = [
            make("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            make("ReduceMean", ["float"], ["mean"], axes=axes, keepdims=0),
            make("ArgMax", ["mean"], ["label"], axis=1, keepdims=0),
        ]
        infos = {
            "label": helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            "mean": helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", 3]),
        }
        graph = helper.make_graph(
            nodes, "it", [helper.make_tensor_value_info("image", kind, shape)],
            [infos[name] for name in outputs],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        checker.check_model(model)
        save(model, path)

    @pytest.mark.parametrize("dtype", ["uint8", "double"])
    @pytest.mark.parametrize("last", [True, False])
    @pytest.mark.parametrize("outputs", [["mean"], ["label", "mean"]])
    def test_bytes_doubles_channels_last_and_labels_first(self, dtype, last, outputs, tmp_path):
        self.build(tmp_path / "it.onnx", dtype, last, outputs)
        values = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
        ds = xr.Dataset({"image": (("sample", "y", "x", "channel"), values)})
        model = models.load(tmp_path / "it.onnx", trusted=True)
        scores = models.predict(model, ds, activation="none", progress=False)
        expected = values.mean((1, 2)) / (1 if dtype == "uint8" else 255)
        np.testing.assert_allclose(scores, expected, rtol=1e-4)

    def test_a_black_box_can_be_explained_and_its_maps_tested(self, tmp_path):
        from workbench import gradcam

        self.build(tmp_path / "it.onnx", "double", False, ["mean"])
        model = models.load(tmp_path / "it.onnx", trusted=True)
        x = torch.rand(2, 3, 6, 5)
        with gradcam.Probe(model) as probe:
            maps = {"occlusion": probe.run(x, 1).map("occlusion", window=1)}
        table = gradcam.faithfulness(model, x, maps, target=1, progress=False).table
        assert "plain gradient" not in table.index
        assert table.loc["occlusion", "score"] > table.loc["random map", "score"]


def test_a_program_exported_in_training_is_switched_to_evaluation(tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    ).train()  # fmt: skip
    x = torch.rand(4, 3, 8, 8)
    torch.export.save(torch.export.export(network, (x,)), tmp_path / "it.pt2")
    with pytest.warns(UserWarning, match="exported in training mode; 2 dropouts and batch norms"):
        model = models.load(tmp_path / "it.pt2", trusted=True)
    with torch.no_grad():
        torch.testing.assert_close(model(x), network.eval()(x))


def test_filling_a_module_twice_normalises_once(network, written):
    empty = models.SmallResNet(classes=5, widths=(4, 4, 8, 8, 8))
    x = torch.rand(1, 3, 32, 32)
    options = {"mean": [0.1] * 3, "std": [0.5] * 3}
    for _ in range(2):
        filled = models.load(written / "state_dict", architecture=empty, **options)
    with torch.no_grad():
        torch.testing.assert_close(filled(x), network((x - 0.1) / 0.5))
        plain = models.load(written / "state_dict", architecture=empty)
        torch.testing.assert_close(plain(x), network(x))
