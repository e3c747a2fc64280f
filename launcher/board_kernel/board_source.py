"""The module ``farkernel`` for boards, as text: `board_module` without what only people and type checkers need."""

from __future__ import annotations

import ast
import functools
import importlib.resources

NAME = "farkernel"


def module_text() -> str:
    """For a file on the board, with its docstrings."""
    return importlib.resources.files(__package__).joinpath("board_module.py").read_text("utf-8")


@functools.cache
def compact() -> str:
    """The same, as little as can be: it travels at 11 KB a second and lies in a small memory."""
    tree = ast.parse(module_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return "\n".join(_narrow(line) for line in ast.unparse(tree).split("\n") if line.strip()) + "\n"


def _narrow(line: str) -> str:
    """One blank for each level of indentation."""
    text = line.lstrip(" ")
    return " " * ((len(line) - len(text)) // 4) + text


def install_small_code() -> str:
    """The least of it, for boards with a few kilobytes: texts and bytes whose kind is said."""
    return _SMALL


# A class will do for a module.  The micro:bit has no sys.modules: `source.without_import` changes the cells instead.
_SMALL = """\
class _fk_module:
 def display(value,mime='text/plain',id='-',update=False):
  print('\\x1efk:update'if update else'\\x1efk:display',mime,id,repr(value))
 def update(id,value,mime='text/plain'):
  _fk_module.display(value,mime,id,True)
 def clear(wait=False):
  print('\\x1efk:clear'+(' wait' if wait else ''))
 def html(text):
  _fk_module.display(text,'text/html')
def _fk_show(v):
 if hasattr(v,'_repr_html_'):_fk_module.html(v._repr_html_())
 else:print('\\x1efk:= %r'%repr(v))
"""


def install_code() -> str:
    """Makes ``import farkernel`` work on the board without a file there; a module that it has is left alone."""
    return (
        "def _fk_install(t):\n"
        " import sys\n"
        f" if {NAME!r} in sys.modules:return\n"
        " try:\n"
        f"  import {NAME}\n"
        "  return\n"
        " except ImportError:pass\n"
        " class Module:pass\n"
        " d={}\n"
        " exec(t,d)\n"
        " m=Module()\n"
        " for k in d:setattr(m,k,d[k])\n"
        f" sys.modules[{NAME!r}]=m\n"
        f"_fk_install({compact()!r})\n" + _SHOW
    )


# Shows the value of a cell's last expression: as a picture or a table, if its type says how.
_SHOW = """\
def _fk_show(v):
 import farkernel
 m,d=farkernel.guess(v)
 if m!='text/plain' and d is not None:farkernel.display(d,m)
 else:print('\\x1efk:= %r'%repr(v))
"""
