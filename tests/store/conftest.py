"""One store for all tests that only read it."""

import pytest
from store_scenes import scenes

from workbench import store


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A dataset, its boxes and the store of both."""
    ds, boxes = scenes()
    path = tmp_path_factory.mktemp("store") / "scenes"
    return ds, boxes, store.write(ds, path, boxes, shard_images=16, progress=False)
