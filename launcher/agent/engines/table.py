"""The engines that there are, by what `cluster` of a target says."""

from typing import Dict

from .contract import Engine
from .dask import Dask
from .ipyparallel import IPyParallel
from .mpi import MPI
from .ray import Ray
from .spark import Spark

ENGINES: Dict[str, Engine] = {each.name: each for each in (Dask(), IPyParallel(), Spark(), Ray(), MPI())}


def find(name: str) -> Engine:
    return ENGINES[name]
