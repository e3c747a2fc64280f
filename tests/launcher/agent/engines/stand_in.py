"""Stands in for a kernel's Python with Dask in it: says the lines that the real one says, and does what it is told to.

The file `what` beside it says: "fails", "deaf", "dies", or nothing.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

what = (Path(__file__).parent / "what").read_text()
if sys.argv[1] == "-c":
    print("9.9")
elif "distributed.cli.dask_scheduler" in sys.argv:
    if what == "fails":
        print("ModuleNotFoundError: No module named 'distributed'")
        sys.exit(1)
    print("Scheduler at:   tls://127.0.0.1:7777\ndashboard at:  http://127.0.0.1:8888/status", flush=True)
    if what == "deaf":  # a child that goes its own way, and does not hear SIGTERM
        deaf = "import signal, time; signal.signal(15, 1); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    time.sleep(600)
elif "distributed.cli.dask_worker" in sys.argv:
    if what == "dies":
        print("OSError: no space left", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    print("Registered to:    tls://127.0.0.1:7777", flush=True)
    time.sleep(600)
