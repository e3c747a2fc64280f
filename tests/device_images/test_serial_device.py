"""What may be given to esptool as a port."""

from __future__ import annotations

from pathlib import Path

from farkernel.device_images.serial_device import checked


def test_a_device_by_its_link(tmp_path: Path) -> None:
    (tmp_path / "board").symlink_to("/dev/null")
    assert checked(str(tmp_path / "board")) == str(tmp_path / "board")
    assert checked("rfc2217://pi7.local:4000") == "rfc2217://pi7.local:4000"
    assert checked("rfc2217://[::1]:4000") == "rfc2217://[::1]:4000"
