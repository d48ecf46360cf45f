"""Import an optional dependency, or say which extra brings it."""

from importlib import import_module
from typing import Any

from workbench import __version__

#: On the package index, ``workbench`` belongs to somebody else: pip gets ours from its repository.
DISTRIBUTION = "pixel-workbench"
REPOSITORY = "https://github.com/seed-252a586e/workbench"
TAG = f"v{__version__}"
SOURCE = f"git+{REPOSITORY}@{TAG}"


class MissingExtraError(ImportError):
    """An optional dependency is not installed."""


def need(module: str, extra: str) -> Any:
    """Return an optional module.

    Parameters
    ----------
    module
        Dotted name of the module, ``"sklearn.datasets"``.
    extra
        The extra of this package that installs it, ``"images"``.

    Raises
    ------
    MissingExtraError
        The module's distribution is not installed. A module that is there and fails while it is
        imported raises its own error.

    Examples
    --------
    >>> need("math", extra="images").sqrt(9.0)
    3.0
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtraError(
            f"{top} is not installed. It comes with: pip install "
            f"'{DISTRIBUTION}[{extra}] @ {SOURCE}' (in a checkout: pip install '.[{extra}]')"
        ) from error
