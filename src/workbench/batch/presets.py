"""Configurations composed by Hydra: presets beside the notebooks, and the reader's own files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from workbench._extras import need
from workbench.batch.config import NEWEST, RunConfig, load_config
from workbench.batch.notebook import JobError, write_text


def compose(
    config: str | Path, overrides: Sequence[str] = (), *, folder: str | Path = "notebooks"
) -> RunConfig:
    """Return a preset or a file of one's own, composed, migrated and validated.

    Parameters
    ----------
    config
        The name of a preset, or a ``.yaml`` file, whose ``defaults`` may name presets.
    overrides
        In Hydra's grammar: ``"limits=long"``, ``"notebooks.mnist_embeddings.epochs=2"``,
        ``"+notebooks.mnist_embeddings.seed=1"`` for what the configuration does not mention.
    folder
        The notebooks' folder; the presets lie in its folder ``presets``.

    Raises
    ------
    JobError
        It cannot be read or composed, or names unknown or ill-typed fields or parameters.

    Examples
    --------
    >>> compose("smoke").parameters_of("notebooks/01_mnist_embeddings.ipynb")  # doctest: +SKIP
    {'n_samples': 300, 'epochs': 1}
    """
    presets = Path(folder) / "presets"
    own = str(config).endswith((".yaml", ".yml"))
    path = Path(config) if own else presets / f"{config}.yaml"
    version = _version(path, presets)
    if version == NEWEST:
        content = _composed(path, presets, overrides)
        content.setdefault("folder", str(folder))
    elif overrides:
        raise JobError([f"{path}: overrides need version {NEWEST}, and this is {version!r}"])
    else:
        content = _read(path)
    return load_config(content, str(path))


def save(config: RunConfig, path: Path) -> None:
    """Write a configuration so that `compose` reads the same."""
    content = config.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump({"version": NEWEST, **content}, sort_keys=False, allow_unicode=True)
    write_text(path, text)


def _composed(path: Path, presets: Path, overrides: Sequence[str]) -> dict[str, Any]:
    hydra = need("hydra", extra="batch")
    omegaconf = need("omegaconf", extra="batch")
    errors = (
        need("hydra.errors", extra="batch").HydraException,
        omegaconf.errors.OmegaConfBaseException,
    )
    search = [f"hydra.searchpath=['file://{presets.resolve()}']"] if presets.is_dir() else []
    try:
        with hydra.initialize_config_dir(str(path.resolve().parent), version_base="1.3"):
            found = hydra.compose(path.stem, overrides=[*search, *overrides])
            content = omegaconf.OmegaConf.to_container(found, resolve=True)
    except errors as error:
        # Hydra wraps the reason in advice about its own command line and the search path.
        reason = str(error).split("\n\nConfig search path:")[0].strip()
        raise JobError([f"{path}: {reason}"]) from error
    return dict(content)


def _version(path: Path, presets: Path) -> Any:
    """Return a file's version; one that only composes others has theirs, which is the newest."""
    content = _read(path, presets)
    return content.get("version", NEWEST if "defaults" in content else None)


def _read(path: Path, presets: Path | None = None) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        there = sorted(p.stem for p in presets.glob("*.yaml")) if presets else []
        hint = f" (presets are {', '.join(there)})" if there else ""
        raise JobError([f"{path}: {error.strerror}{hint}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise JobError([f"{path} is not YAML: {error}"]) from error
    if not isinstance(content, dict):
        raise JobError([f"{path}: a configuration is a mapping, got {type(content).__name__}"])
    return content
