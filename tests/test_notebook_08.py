"""The notebooks on which samples matter and on few examples run in batch, and are right."""

import pytest
from notebook_running import run, smoke, write_digits


class TestWhichSamplesMatter:
    @pytest.mark.slow
    def test_on_real_mnist(self, real_data, tmp_path):
        results = run("08_which_samples_matter", tmp_path)
        assert results["stand_in_for"] is None
        assert set(results["claims"].values()) == {"holds"}
        assert results["average_precision"]["by chance"] < 0.15
        assert results["answer"].startswith("200 more labels: expected gain")

    def test_on_the_stand_in(self, tmp_path, monkeypatch):
        monkeypatch.delenv("WORKBENCH_DATA", raising=False)
        name = "08_which_samples_matter"
        results = run(name, tmp_path, **smoke(name))
        assert results["stand_in_for"] == "mnist"
        assert len(results["pruned_noisy"]["ccs"]) == 3
        assert results["average_precision"]["AUM"] > 2 * results["average_precision"]["by chance"]

    @pytest.mark.slow
    def test_on_a_folder_of_ones_own(self, tmp_path, monkeypatch):
        write_digits(tmp_path / "mine", 240)
        monkeypatch.chdir(tmp_path)
        small = {"n_samples": None, "epochs": 2, "repeats": 2, "seeds": 1, "rate": 0.0}
        results = run("08_which_samples_matter", tmp_path / "runs", data="./mine", **small)
        assert results["stand_in_for"] is None


class TestFewExamples:
    @pytest.mark.slow
    def test_on_real_mnist(self, real_data, tmp_path):
        results = run(
            "09_few_examples", tmp_path, n_samples=3000, per_class="1 10", steps=250, repeats=3
        )
        assert set(results["claims"].values()) == {"holds"}
        # all learnt, one image a class: .89 when this was written
        assert results["accuracy"]["data"][0][3] > 0.85

    def test_on_a_folder_of_ones_own(self, tmp_path, monkeypatch):
        write_digits(tmp_path / "mine", 240)
        monkeypatch.chdir(tmp_path)
        small = smoke("09_few_examples") | {"n_samples": None}
        results = run("09_few_examples", tmp_path / "runs", data="./mine", **small)
        assert results["claims"]["five examples tell thirteen classes apart"] == "holds"
