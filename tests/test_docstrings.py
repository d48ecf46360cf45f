"""The examples in docstrings are run; those marked SKIP need more than a line of set-up."""

import doctest
import pkgutil
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import workbench

MODULES = [
    module.name
    for module in pkgutil.walk_packages(workbench.__path__, "workbench.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = import_module(name)
    names = {"np": np, "pd": pd, "torch": torch, "xr": xr, **vars(module)}
    result = doctest.testmod(module, globs=names, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
