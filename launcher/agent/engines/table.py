"""The engines that there are, by what `cluster` of a target says."""

from typing import Dict

from .contract import Engine
from .dask import Dask
from .ipyparallel import IPyParallel

ENGINES: Dict[str, Engine] = {each.name: each for each in (Dask(), IPyParallel())}


def find(name: str) -> Engine:
    return ENGINES[name]
