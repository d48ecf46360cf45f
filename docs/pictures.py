"""Make the README's pictures from data that the project bundles: python docs/pictures.py."""

from pathlib import Path

from workbench import datasets, embeddings, show

HERE = Path(__file__).parent


def digits_map() -> None:
    """scikit-learn's digits by t-SNE, with images laid over."""
    ds = datasets.load("digits")
    vectors = embeddings.features(ds)
    graph = embeddings.neighbors(vectors, k=90)
    xy = embeddings.project(vectors, "tsne", neighbors=graph, seed=51)
    figure = show.map(ds, xy, images=True, title="Which handwritten digits look alike?")
    figure.savefig(HERE / "digits-map.png", dpi=110)


if __name__ == "__main__":
    digits_map()
