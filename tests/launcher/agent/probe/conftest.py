"""The probe as it travels, and the stand-in for NVIDIA's library, made once for all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from farkernel.backends.archive import build_nvml, build_probe
from tests.sites.nvidia import fake_nvml

Probe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for LD_LIBRARY_PATH."""
    return fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("archives")
    (place / "probe.zip").write_bytes(build_probe().content)
    (place / "nvml.zip").write_bytes(build_nvml().content)
    return place


@pytest.fixture
def probe(archives: Path) -> Probe:
    """Run it with a request; more arguments are its environment."""

    def run(
        request: dict[str, Any], python: str = sys.executable, nvml: bool = False, **environment: str
    ) -> dict[str, Any]:
        if nvml:
            request = {**request, "nvml": str(archives / "nvml.zip")}
        ended = subprocess.run(
            [python, "-I", str(archives / "probe.zip"), json.dumps(request)],
            capture_output=True,
            check=False,
            env={**os.environ, **environment},
            timeout=50,
        )
        assert ended.returncode == 0, ended.stderr.decode()
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    return run
