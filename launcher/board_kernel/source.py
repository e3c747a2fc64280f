"""Code on its way to the board: the last expression shown, and the small programs that we run there ourselves."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings

# Appended after a cell whose last line is an expression.  Line numbers stay right, because it comes last.
_SHOW = "\nif _ is not None:print('\\x1efk:= %r'%repr(_))\n"
_SHOW_RICH = "\nif _ is not None:_fk_show(_)\n"


def parse(code: str) -> ast.Module | None:
    """As this machine's Python reads it; None when it is not Python, or not this Python's."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def with_result(code: str, rich: bool) -> str:
    """The code, changed so that the value of its last expression is shown, as a notebook does.

    A semicolon at the end keeps it from being shown.  What is no Python is left to the board to complain of.  ``rich``:
    `board_source.install_code` has been run on the board.
    """
    tree = parse(code)
    if tree is None or not tree.body or not isinstance(tree.body[-1], ast.Expr) or _ends_quietly(code):
        return code
    last = tree.body[-1]
    if isinstance(last.value, (ast.Await, ast.Yield, ast.YieldFrom)):
        return code
    lines = code.splitlines(keepends=True)
    head = "".join(lines[: last.lineno - 1])
    tail = "".join(lines[last.lineno - 1 :])
    # ast counts columns in UTF-8 bytes.
    column = len(tail.encode()[: last.col_offset].decode())
    start, expression = tail[:column], tail[column:]
    shown = _SHOW_RICH if rich else _SHOW
    # In brackets of its own, on lines of its own, so that a comment at its end does no harm.
    return f"{head}{start}_=({expression.rstrip()}\n){shown}"


def without_import(code: str, name: str = "farkernel", stand_in: str = "_fk_module") -> str:
    """For boards that cannot be given a module: imports of `name` become assignments, at the same place."""
    tree = parse(code)
    if tree is None:
        return code
    lines = code.splitlines(keepends=True)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Import, ast.ImportFrom)) or node.lineno != node.end_lineno:
            continue
        if isinstance(node, ast.ImportFrom):
            if node.module != name or node.level or any(each.name == "*" for each in node.names):
                continue
            parts = [f"{each.asname or each.name}={stand_in}.{each.name}" for each in node.names]
        elif [each.name for each in node.names] == [name]:
            parts = [f"{node.names[0].asname or name}={stand_in}"]
        else:
            continue
        line = lines[node.lineno - 1].encode()
        changed = line[: node.col_offset] + ";".join(parts).encode() + line[node.end_col_offset :]
        lines[node.lineno - 1] = changed.decode()
    return "".join(lines)


def _ends_quietly(code: str) -> bool:
    """Whether the last token is a semicolon."""
    last = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.OP or token.type not in _INVISIBLE:
                last = token.string
    except (tokenize.TokenError, SyntaxError):
        return False
    return last == ";"


_INVISIBLE = {tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.DEDENT, tokenize.ENDMARKER}


def is_open(code: str) -> bool:
    """Whether the code ends inside a bracket or a string of several lines, so that what follows belongs to it."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(code).readline):
            pass
    except tokenize.TokenError as error:
        return "EOF in multi-line" in str(error) or "unterminated triple" in str(error)
    except SyntaxError:
        return False
    return code.rstrip("\n").endswith("\\")


# The board's input() edits a line and echoes it.  Ours says first that it waits (so that the notebook can ask), and
# takes an answer of printable ASCII only, because the line editor does things of its own with tabs and the like:
# "=" and the text, "#" and hex digits of its UTF-8, or "!" and why there is no answer.  `_fk_` keeps them out of sight.
INPUT = """\
def _fk_install(i):
 def _fk_ask(p='',verb='input'):
  print('\\x1efk:%s %r'%(verb,str(p)))
  s=i('')
  if s[:1]=='!':raise EOFError(s[1:])
  if s[:1]=='#':return str(bytes([int(s[n:n+2],16)for n in range(1,len(s),2)]),'utf-8')
  return s[1:]
 try:
  import builtins
  if not hasattr(builtins,'_fk_ask'):
   builtins._fk_ask=_fk_ask
   builtins.input=_fk_ask
 except (ImportError,AttributeError):
  if '_fk_ask' not in globals():
   globals()['_fk_ask']=globals()['input']=_fk_ask
_fk_install(input)
"""


NAMES = """\
def _fk_names(p,*l):
 for o in l:
  for n in o:
   if n[:len(p)]==p:print(n)
"""


def answer_line(text: str) -> bytes:
    """What the board's `_fk_answer` reads, without the end of the line."""
    if (text.isascii() and text.isprintable()) or not text:
        return b"=" + text.encode("ascii")
    return b"#" + text.encode("utf-8", "surrogatepass").hex().encode()


def refusal_line(why: str) -> bytes:
    return b"!" + "".join(letter if " " <= letter <= "~" else "?" for letter in why).encode("ascii")
