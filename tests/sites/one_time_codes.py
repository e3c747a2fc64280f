"""One-time codes as an app on a telephone shows them (TOTP), and the PAM module that asks for them."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

SECRET = secrets.token_hex(10)


def code(moments: int = 0) -> str:
    """The one-time password of now, or of some half minutes later: each is good for one login."""
    when = subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout
    command = ["oathtool", "--totp", f"--now=@{int(when) + 30 * moments}", SECRET]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def pam_lines(users: Path, user: str) -> str:
    """Lines of a PAM stack that ask that user for a code; ``users`` is a file for the module."""
    users.write_text(f"HOTP/T30/6 {user} - {SECRET}\n")
    users.chmod(0o600)
    return f"auth required pam_oath.so usersfile={users} window=20 digits=6\n"
