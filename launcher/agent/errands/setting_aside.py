"""Set a directory of the home aside (`farkernel fleet reset`): it is DIRECTORY.before until the next time.

A program of its own: ``python -c … SIZE DIRECTORY``.  It leaves an empty directory of that name, and touches nothing
that does not lie below the home.
"""

import os
import shutil
import sys


def set_aside(home: str, path: str) -> None:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        raise ValueError("%r is no directory below the home" % path)
    above = os.path.realpath(os.path.join(home, *parts[:-1]))
    if above != os.path.realpath(home) and not above.startswith(os.path.realpath(home) + os.sep):
        raise ValueError("%s leads out of the home" % above)
    os.makedirs(above, exist_ok=True)
    place = os.path.join(above, parts[-1])
    before = place + ".before"
    if os.path.lexists(place):
        if os.path.islink(before) or not os.path.isdir(before):
            if os.path.lexists(before):
                os.unlink(before)
        else:
            shutil.rmtree(before)
        os.rename(place, before)
    os.mkdir(place)


if __name__ == "__main__":
    try:
        set_aside(os.path.expanduser("~"), sys.argv[2])
    except (OSError, ValueError) as error:
        sys.stderr.write("%s\n" % error)
        sys.exit(1)
