"""The agent's program once more, its modules compiled: Python keeps no bytecode of what it imports from a zip file, and
compiling takes four fifths of an agent's start.

A loader does this while it waits for the end of its connection; the next loader's agent starts from the result.
"""

import binascii
import glob
import hashlib
import importlib.util
import os
import struct
import sys
import tempfile

_UNCHECKED = struct.pack(
    "<LQ", 1, 0
)  # PEP 552: bytecode that is never compared with its source; since Python 3.7


def pattern(path: str) -> str:
    """The names of what was made of the program at ``path`` for this Python; each ends with the content's hash."""
    magic = binascii.hexlify(importlib.util.MAGIC_NUMBER).decode("ascii")
    return "%s.%s." % (os.path.splitext(path)[0], magic)


def find(path: str) -> str:
    """The compiled program, or the program itself."""
    begin = pattern(path)
    for name in glob.glob(glob.escape(begin) + "*.zip"):
        with open(name, "rb") as stream:
            content = stream.read()
        if name == begin + hashlib.sha256(content).hexdigest() + ".zip":
            os.utime(name, None)
            return name
    return path


def keep(path: str) -> None:
    """Make it, whole or not at all.  Raises OSError."""
    import io  # not at the top: a loader that only wants to `find` is in a hurry
    import marshal
    import zipfile

    if sys.version_info < (3, 7):
        return
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            text = source.read(name)
            target.writestr(name, text)  # for tracebacks
            code = compile(text, os.path.join(path, name), "exec", dont_inherit=True)
            target.writestr(name + "c", importlib.util.MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code))
    content = stream.getvalue()
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, pattern(path) + hashlib.sha256(content).hexdigest() + ".zip")
    except BaseException:
        os.unlink(temporary)
        raise
