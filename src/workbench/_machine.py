"""What the machine offers this process."""

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from workbench._extras import need

P = ParamSpec("P")
Result = TypeVar("Result")


def on_one_thread(compute: Callable[P, Result]) -> Callable[P, Result]:
    """Compute with one thread of BLAS, whose sums depend on how many there are."""

    @wraps(compute)
    def alone(*args: P.args, **kwargs: P.kwargs) -> Result:
        with need("threadpoolctl", extra="images").threadpool_limits(1, user_api="blas"):
            return compute(*args, **kwargs)

    return alone


def processors() -> int:
    """Processors that this process may use.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
