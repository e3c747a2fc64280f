"""What the agent finds out for itself, because it runs without `site` and imports as little as it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from farkernel.backends.archive import PACKAGE, build_archive
from farkernel.launcher.agent import specs


def test_an_environments_prefix_is_its_own_also_without_site(tmp_path: Path) -> None:
    """Or kernelspecs that are installed in it would not be found."""
    program = tmp_path / "agent.zip"
    program.write_bytes(build_archive().content)
    place = tmp_path / "environment"
    venv.create(place, symlinks=True)
    code = f"import sys; sys.path.insert(0, {str(program)!r}); from {PACKAGE} import specs; print(specs.own_prefix())"
    base = os.path.realpath(sys.executable)
    for python, prefix in ((str(place / "bin" / "python"), str(place)), (base, sys.base_prefix)):
        command = [python, "-I", "-S", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == prefix


@pytest.mark.parametrize(
    "path", ["{0}/one:{0}/two", "{0}/two:{0}/one", "{0}/missing:{0}/two", "", "{0}", ":{0}/one"]
)
@pytest.mark.parametrize("name", ["program", "plain", "directory", "missing"])
def test_programs_are_found_as_shutil_finds_them(tmp_path: Path, name: str, path: str) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "directory").mkdir(parents=True)
        for file, mode in (("program", 0o755), ("plain", 0o644)):
            (tmp_path / place / file).touch(mode)
    path = path.format(tmp_path)
    assert specs.which(name, path) == shutil.which(name, path=path)
