"""Make the documentation's pictures from data that the package bundles.

``python docs/pictures.py`` makes all of them, ``python docs/pictures.py raster`` one.
"""

import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from workbench import datasets, embeddings, gradcam, labels, models, rasters, show

HERE = Path(__file__).parent
SEED = 51


def digits_map() -> Figure:
    """scikit-learn's digits by t-SNE, with images laid over."""
    ds = datasets.load("digits")
    graph = embeddings.neighbors(embeddings.features(ds), k=90)
    xy = embeddings.project(embeddings.features(ds), "tsne", neighbors=graph, seed=SEED)
    return show.map(ds, xy, images=True, title="Which handwritten digits look alike?")


def photos_apart() -> Figure:
    """Patches of photographs by their pixels and by what a network makes of them."""
    ds = datasets.load("photos", n=600)
    vectors = {
        "pixels": embeddings.features(ds, "pixels"),
        "a network's activations": embeddings.features(ds, "network", model="cifar10"),
    }
    maps = {name: embeddings.project(v, "tsne", seed=SEED) for name, v in vectors.items()}
    for xy in maps.values():
        del xy.attrs["seconds"]  # how long it took belongs to the machine, not to the picture
    title = "The same patches of photographs, described in two ways"
    return show.map_grid(ds, maps, columns=2, title=title)


def wrong_labels() -> Figure:
    """The head of the queue of digits with labels that were made wrong."""
    ds = datasets.load("digits", split="train")
    ds = ds.assign(label=labels.inject_noise(ds.label, "pair", 0.1, SEED).label)
    vectors = embeddings.features(ds)
    graph = embeddings.neighbors(vectors, k=15)
    probabilities = labels.out_of_fold(vectors, ds.label, seed=SEED, progress=False)
    first = labels.find_issues(ds.label, probabilities, graph).head(16)
    names = ds["class"].values.astype(str)
    both = zip(first.given, first.suggested, strict=True)
    titles = [f"{names[given]}, rather {names[suggested]}" for given, suggested in both]
    title = "The first sixteen labels to look at"
    return show.samples(ds.sel(sample=first.index), titles, columns=8, title=title)


def several_labels() -> Figure:
    """The head of the queue of scenes with several labels each."""
    ds = labels.compose_scenes(datasets.load("digits"), 600, zoom=3, seed=SEED)
    vectors = embeddings.features(ds, "network", model="cifar10", layer="layer2")
    probabilities = labels.multilabel_out_of_fold(vectors, ds["labels"], folds=3, seed=SEED)
    first = labels.find_multilabel_issues(ds["labels"], probabilities).head(12)
    names = [str(name) for name in ds["class"].values]
    titles = [
        ", ".join([f"not {names[k]}?" for k in row.wrong] + [f"{names[k]}?" for k in row.missing])
        for row in first.itertuples()
    ]
    title = "Named and not there (not 4?), or there and forgotten (5?)"
    return show.samples(ds.sel(sample=first.index), titles, columns=6, title=title)


def looked_at() -> Figure:
    """Grad-CAM of three photographs at the first and the last layer."""
    network, layers = models.load("cifar10"), ["layer1", "layer4"]
    photos = gradcam.photographs(32).isel(sample=slice(3))
    with gradcam.Probe(network, layers) as probe:
        seen = probe.run(photos)
        maps = {
            str(name): {layer: seen.map("gradcam", layer)[i] for layer in layers}
            for i, name in enumerate(photos["sample"].values)
        }
        said = seen.predictions(network.classes)
    about = show.caption(photos, network="the package's, of 32 × 32 pixels")
    title = "What the answer rests on"
    return show.cams(seen.x, maps, predictions=said, caption=about, title=title)


def raster() -> Figure:
    """Regions over a made-up mosaic."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/mosaic.tif"
        places = rasters.write_example(path, 1024, 300, SEED, progress=False)
        table = rasters.regions(places[["x", "y", "label"]], path, size=32, crs="raster")
        return rasters.plan(path, table, size=32).preview()


PICTURES = {
    "digits-map": digits_map,
    "photos-apart": photos_apart,
    "wrong-labels": wrong_labels,
    "several-labels": several_labels,
    "looked-at": looked_at,
    "raster": raster,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]().savefig(HERE / f"{name}.png", dpi=110)
