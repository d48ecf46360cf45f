"""A recording holds the logits of every epoch, in memory or on disk, whoever trains."""

import numpy as np
import pytest
import torch
import xarray as xr
from toys import toys

from workbench import dynamics
from workbench.dynamics import recording
from workbench.models import SmallResNet, predict
from workbench.models.augmentation import Recipe

RECIPE = Recipe(epochs=2, batch_size=8, shift=1, cutout=0, bfloat16=False)


def small():
    return SmallResNet(1, 3, (4, 4, 4, 4, 8))


class TestRecord:
    @pytest.mark.parametrize("on_disk", [False, True])
    def test_every_seed_and_epoch(self, on_disk, tmp_path):
        path = tmp_path / "run.zarr" if on_disk else None
        kept = []

        def network():
            kept.append(small())
            return kept[-1]

        ds = toys(20, side=12)
        logits = dynamics.record(network, ds, RECIPE, seeds=[3, 4], path=path, progress=False)
        assert logits.dims == ("seed", "epoch", "sample", "class")
        assert logits.dtype == np.float16
        assert logits.shape == (2, 2, 20, 3)
        assert logits["seed"].values.tolist() == [3, 4]
        assert logits["epoch"].values.tolist() == [1, 2]
        assert logits["class"].values.tolist() == ["ant", "bee", "cow"]
        # the last epoch is what the trained network says
        for network, of_seed in zip(kept, logits, strict=True):
            said = predict(network, ds, activation="none", progress=False).values
            assert np.allclose(of_seed[-1], said, atol=2e-3 * np.abs(said).max())
        assert not np.array_equal(logits[0], logits[1])
        if on_disk:
            xr.testing.assert_equal(xr.open_zarr(path)["logits"], logits)

    def test_a_seed_gives_the_same_again(self):
        ds = toys(20, side=12)
        first, again = (dynamics.record(small, ds, RECIPE, [1], progress=False) for _ in range(2))
        assert np.allclose(first, again, atol=1e-2)

    def test_what_was_recorded_outlives_an_interruption(self, tmp_path, monkeypatch):
        calls = []
        real = recording.predict

        def predict_once(*args, **kwargs):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(recording, "predict", predict_once)
        with pytest.raises(KeyboardInterrupt):
            dynamics.record(small, toys(20, side=12), RECIPE, path=tmp_path / "r", progress=False)
        kept = xr.open_zarr(tmp_path / "r")["logits"]
        assert np.isfinite(kept[0, 0]).all()
        assert np.isnan(kept[0, 1]).all()

    def test_nothing_is_overwritten(self, tmp_path):
        with pytest.raises(FileExistsError, match="delete it, or record elsewhere"):
            dynamics.record(small, toys(4, side=12), RECIPE, path=tmp_path)

    def test_a_network_is_no_way_to_make_one(self):
        with pytest.raises(TypeError, match="must make a new network for each seed"):
            dynamics.record(small(), toys(4), RECIPE)


class TestRecorder:
    def test_in_a_plain_loop(self, tmp_path):
        recorder = dynamics.Recorder(range(5), 3, epochs=2, path=tmp_path / "loop")
        rng = torch.Generator().manual_seed(0)
        seen = torch.zeros(2, 5, 3)
        for epoch in range(2):
            for positions in torch.randperm(5, generator=rng).split(2):
                logits = torch.randn(len(positions), 3, generator=rng, requires_grad=True)
                recorder.batch(positions, logits)
                seen[epoch, positions] = logits.detach()
            recorder.epoch()
        assert np.allclose(recorder.logits[0], seen, atol=5e-3)

    def test_samples_that_were_left_out(self):
        recorder = dynamics.Recorder(range(3), 2, epochs=1)
        recorder.batch([0, 2], torch.zeros(2, 2))
        with pytest.raises(ValueError, match=r"1 of 3 samples had no logits in this epoch.* 1;"):
            recorder.epoch()

    def test_more_epochs_than_were_announced(self):
        recorder = dynamics.Recorder(range(1), 2, epochs=1)
        recorder.batch([0], torch.zeros(1, 2))
        recorder.epoch()
        recorder.batch([0], torch.zeros(1, 2))
        with pytest.raises(ValueError, match="all 1 epochs of 1 seeds are recorded"):
            recorder.epoch()

    @pytest.mark.parametrize("value", [1e5, float("nan")])
    def test_what_does_not_fit_into_half_precision(self, value):
        recorder = dynamics.Recorder(range(1), 1, epochs=1)
        with pytest.raises(ValueError, match="do not fit into float16, or are NaN"):
            recorder.batch([0], torch.tensor([[value]]))
