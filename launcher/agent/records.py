"""Small facts on disk, as JSON, replaced atomically.

Without fsync: what has to be survived is the death of our processes.  With the machine the kernels are gone
as well.
"""

import json
import os
from typing import Any, Dict, Optional


def write(path: str, facts: Dict[str, Any]) -> None:
    """Raises OSError; then the former content is still there."""
    temporary = "%s.%d" % (path, os.getpid())
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(facts, stream)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def read(path: str) -> Optional[Dict[str, Any]]:
    """None: there is no such file, or nothing sensible in it."""
    try:
        with open(path, encoding="utf-8") as stream:
            facts = json.load(stream)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None
