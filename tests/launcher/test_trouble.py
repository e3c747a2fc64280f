"""What the operating system refuses, in sentences."""

from __future__ import annotations

import errno
import os

import pytest

from farkernel.launcher.trouble import SystemTrouble


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "No space left on device. Make room on that disk (`df -h` shows how full they are), then try again.",
        ),
        (
            PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x/y"),
            "/x/y: Permission denied. Make it accessible for you, then try again.",
        ),
        (
            FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/x/\xff"),
            "/x/\udcff: No such file or directory. Look whether it is there and can be used, then try again.",
        ),
        (
            OSError("AF_UNIX path too long"),
            "AF_UNIX path too long. Look whether it is there and can be used, then try again.",
        ),
    ],
)
def test_sentences(error: OSError, said: str) -> None:
    assert str(SystemTrouble(error)) == said
