"""Run a notebook through a menu entry, as `jupyter execute` would, and print what its cells printed.

run_notebook.py ENTRY [NOTEBOOK]: without one, a small notebook for Python.
"""

from __future__ import annotations

import sys
import tempfile
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

CELLS = (
    "import platform, sys\nprint('Python', platform.python_version(), 'on', platform.node())",
    "import os\nprint('process', os.getpid(), 'started by', os.getppid())",
    "sum(number * number for number in range(1_000_000))",
)


def main(entry: str, path: str = "") -> int:
    if path:
        notebook = nbformat.read(path, 4)
    else:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as directory:  # what the cells write stays out of the tree
            resources = {"metadata": {"path": directory}}
            NotebookClient(notebook, kernel_name=entry, timeout=60, resources=resources).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"The notebook did not run on {entry}: {error}", file=sys.stderr)
        return 1
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        print(f"In  [{cell.execution_count}]: " + cell.source.replace("\n", "\n          "))
        for output in cell.outputs:
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            print(f"Out [{cell.execution_count}]: " + text.rstrip())
    print(f"{len(cells)} cells, {time.monotonic() - started:.1f} s with starting and stopping the kernel")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
