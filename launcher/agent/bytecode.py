"""The agent's program as one file of bytecode.

Python keeps none of what it imports from a zip file, and compiling takes four fifths of an agent's start; opening the
zip file again for each module takes a fifth of the rest.

A loader does this while it waits for the end of its connection; the next loader's agent starts from the result.
"""

import hashlib
import importlib.util
import marshal
import os
import struct
import sys
import tempfile
import zipfile
from types import CodeType
from typing import Dict

#: PEP 552: bytecode that is never compared with its source.
_UNCHECKED = struct.pack("<LQ", 1, 0)


def keep(program: str, begin: str) -> None:
    """Make ``BEGIN<hash of the content>.pyc`` of the zip file ``program``, whole or not at all.  Raises OSError."""
    if sys.version_info < (3, 7):
        return  # it knows no unchecked bytecode
    content = importlib.util.MAGIC_NUMBER + _UNCHECKED + marshal.dumps(_compiled(program))
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(program))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, begin + hashlib.sha256(content).hexdigest() + ".pyc")
    except BaseException:
        os.unlink(temporary)
        raise


def _compiled(program: str) -> CodeType:
    modules: Dict[str, bytes] = {}
    with zipfile.ZipFile(program) as archive:
        for name in archive.namelist():
            place = os.path.join(program, name)
            code = compile(archive.read(name), place, "exec", dont_inherit=True)
            modules[name[: -len(".py")].replace("/", ".")] = marshal.dumps(code)
        (bundle,) = [name for name in archive.namelist() if name.endswith("/bundle.py")]
        begin = archive.read(bundle).decode("ascii")
    main = "%s\nrun(%r, %r)\n" % (begin, modules, program)
    return compile(main, os.path.join(program, "bundle"), "exec", dont_inherit=True)
