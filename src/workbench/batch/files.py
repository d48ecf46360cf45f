"""Files and folders by what is in them: their size and SHA-256."""

import hashlib
from pathlib import Path


def measure(path: Path) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of a file, or of all that a folder holds.

    A folder's hash is that of the lines ``<hash>  <path>`` of its files, sorted by path, as
    ``sha256sum`` writes them. Links are followed.

    Raises
    ------
    OSError
        Something cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_bytes(b"abc")
    ...     measure(Path(folder, "a"))[1][:8], measure(Path(folder))[0]
    ('ba7816bf', 3)
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    total, lines = 0, []
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        size, digest = measure(file_path)
        total += size
        lines.append(f"{digest}  {file_path.relative_to(path).as_posix()}\n")
    return total, hashlib.sha256("".join(lines).encode()).hexdigest()
