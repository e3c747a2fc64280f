"""Finds the agent's modules in the one file of bytecode that `bytecode.keep` made, and that begins by running this."""

import marshal
import os
import sys
import zipimport
from typing import Any, Dict


class Bundle(object):
    """A finder and loader of modules (importlib.abc).  ``program``: the zip file that they were compiled from."""

    def __init__(self, modules: Dict[str, bytes], program: str) -> None:
        self._modules = modules
        self._program = program

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        package = name + ".__init__" in self._modules
        if not package and name not in self._modules:
            return None
        kind: Any = type(sys.__spec__)
        return kind(name, self, origin=self._program, is_package=package)

    def create_module(self, spec: object) -> None:
        """A usual one."""

    def exec_module(self, module: Any) -> None:
        name = module.__name__
        content = self._modules.get(name + ".__init__") or self._modules[name]
        exec(marshal.loads(content), module.__dict__)  # noqa: S102, S302 - as any import

    def get_source(self, name: str) -> str:
        """For tracebacks; raises OSError or ImportError when the zip file is gone."""
        path = os.path.join(self._program, *name.split(".")) + ".py"
        return zipimport.zipimporter(self._program).get_data(path).decode("utf-8")


def run(modules: Dict[str, bytes], program: str) -> None:
    """Be the agent."""
    sys.meta_path.insert(0, Bundle(modules, program))
    __import__("farkernel_agent.__main__", fromlist=["main"]).main()
