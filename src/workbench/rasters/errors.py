"""What can go wrong between a raster and its regions, by name."""


class RasterError(ValueError):
    """The raster cannot be read, or cannot be used in the way that was asked for."""


class RegionError(ValueError):
    """The table of regions is not what it should be."""


class NoOverlapError(RegionError):
    """No region touches the raster."""


class BlockError(OSError):
    """A block cannot be decoded. ``block`` is its (row, column) in the raster's grid of blocks."""

    def __init__(self, block: tuple[int, int], reason: str) -> None:
        super().__init__(f"block (row {block[0]}, column {block[1]}) cannot be read: {reason}")
        self.block = block
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[tuple[int, int], str]]:
        # the default would call __init__ with the joined message, in another process
        return type(self), (self.block, self.reason)


class OutputError(FileExistsError):
    """The place to write to holds something that must not be overwritten."""


class FailedRegionsWarning(UserWarning):
    """Some regions could not be read; the others were."""


class RasterWarning(UserWarning):
    """Something about a raster or its regions that is hardly meant."""
