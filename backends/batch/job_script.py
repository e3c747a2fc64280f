"""The script of every job: the agent's program, and the lines that start it.

It is the same for all requests and all schedulers: what differs (the job's name, Pythons to try) reaches it through
the environment, so nothing from a configuration is ever part of a script (DESIGN §3, promise 5).  Only the keys of the
job's own door (doorway.py) are in it: schedulers show a job's environment to others, and its script to nobody.
"""

from __future__ import annotations

import base64
import functools
import textwrap
import zlib

from ..archive import PACKAGE, cache_directory, errand_text, stored_archive
from ..boot import PYTHONS
from .ends import BAD_NAME, NO_PYTHON

# What the job's script understands.
IDLE = "FARKERNEL_JOB_IDLE"  # seconds that the agent waits for a keeper when it has no kernel
TRIED_FIRST = "FARKERNEL_JOB_PYTHONS"  # paths, with colons between them

# Where a job's script writes down on which node it runs, in the home.
RENDEZVOUS = ".cache/farkernel/jobs"

# The allocation's name at the far end is the job's; the loader starts no agent of its own for such a name.
PREFIX = "job:"

# Python 2 reads this too.  The program is a file only as long as it is being imported.
_START = f"""\
import sys
sys.path.pop(0)
if sys.version_info < (3, 6):
    sys.exit(99)
try:
    import base64, ctypes, mmap, os, tempfile, zlib
except ImportError:
    sys.exit(99)
parts = sys.stdin.read().split("\\n\\n")
program = tempfile.NamedTemporaryFile(suffix=".zip")
program.write(base64.b64decode(parts[0]))
program.flush()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.path.insert(0, program.name)
from {PACKAGE}.__main__ import main
sys.path.pop(0)
program.close()
if len(parts) > 1 and os.fork() == 0:
    door, own, other = [base64.b64decode(part) for part in parts[1:]]
    names = {{"__name__": "doorway"}}
    exec(zlib.decompress(door), names)
    names["main"](own.decode("ascii"), other.decode("ascii"), sys.argv[2])
main(["serve", "--allocation", "{PREFIX}" + sys.argv[1]])
"""

# Each scheduler gives a job its name under another name (sbatch(1), qsub(1) of PBS and of Grid Engine, bsub(1),
# oarsub(1)).  The trap: a scheduler that warns all processes of a job must not end it by ending this shell.
# HTCondor gives a job no home, and no path but the shell's own.
_SCRIPT = """\
#!/bin/sh
trap : TERM USR1 USR2 XCPU
name=${{SLURM_JOB_NAME:-${{PBS_JOBNAME:-${{LSB_JOBNAME:-${{OAR_JOB_NAME:-${{FARKERNEL_JOB_NAME:-$JOB_NAME}}}}}}}}}}
case $name in
  fk-*[!A-Za-z0-9-]* | fk-) exit {bad_name} ;;
  fk-*) ;;
  *) exit {bad_name} ;;
esac
if [ -z "$HOME" ]; then
  HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
  [ -d "$HOME" ] || HOME=$(pwd)
  USER=$(id -un) LOGNAME=$(id -un)
  export HOME USER LOGNAME PATH
fi
note=$HOME/{rendezvous}
if mkdir -p "$note" 2>/dev/null; then
  find "$note" -type f -mtime +30 -exec rm -f {{}} + 2>/dev/null
  note=$note/$name
  uname -n >"$note"
fi
FARKERNEL_AGENT_IDLE=${{{idle}:-3600}}
FARKERNEL_UMASK=$(umask)
FARKERNEL_JOB=$name
export FARKERNEL_AGENT_IDLE FARKERNEL_UMASK FARKERNEL_JOB
umask 077
tried=${tried}
status=99
unset {idle} {tried} FARKERNEL_JOB_NAME
IFS=:
for python in $tried {pythons}; do
  command -v "$python" >/dev/null 2>&1 || continue
  "$python" -E -s -c '{start}' "$name" "$note" <<'FARKERNEL'
{archive}
FARKERNEL
  status=$?
  [ $status -eq 99 ] || break
done
rm -f "$note"
[ $status -eq 99 ] || exit $status
exit {no_python}
"""


@functools.lru_cache(maxsize=1)
def job_script() -> str:
    """Pure ASCII, about 100 KiB: schedulers take some MiB (slurm.conf(5): max_script_size)."""
    return _script(_agent())


def job_script_with_door(own: str, other: str) -> str:
    """With a door that has this key and certificate (PEM), and opens to who has the other certificate's key."""
    return _script(
        "\n\n".join([_agent(), _door(), _lines(own.encode("ascii")), _lines(other.encode("ascii"))])
    )


# Once, and never in two threads at a time, in which Python 3.11 cannot parse (ast: "recursion depth mismatch").
@functools.lru_cache(maxsize=1)
def _agent() -> str:
    return _lines(stored_archive(cache_directory()).content)


@functools.lru_cache(maxsize=1)
def _door() -> str:
    return _lines(zlib.compress(errand_text("doorway").encode(), 9))


def _lines(content: bytes) -> str:
    return "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 76))


def _script(archive: str) -> str:
    return _SCRIPT.format(
        idle=IDLE,
        tried=TRIED_FIRST,
        pythons=" ".join(PYTHONS),
        start=_START,
        archive=archive,
        no_python=NO_PYTHON,
        bad_name=BAD_NAME,
        rendezvous=RENDEZVOUS,
    )
