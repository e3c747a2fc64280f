"""Ends of jobs that schedulers report in the same way, in words."""

from __future__ import annotations

import signal as signals

from .contract import End, EndKind

# Exit statuses of the job's script (job_script.py).
NO_PYTHON = 97
BAD_NAME = 96  # the scheduler gave the job another name than we asked for


def failed_end(status: int, signal: int, node: str) -> End:
    """A job whose script ended with this exit status, or by this signal."""
    where = f" on {node}" if node else ""
    if status == NO_PYTHON:
        return End(
            EndKind.FAILED,
            f"no Python 3.6 or newer was found{where}",
            'Say where one is: agent_python = ["/path/to/python3"] in the target\'s configuration',
        )
    if signal:
        return End(
            EndKind.FAILED, f"its agent was ended{where} by {_signal_name(signal)}", "Start the kernel again"
        )
    if status:
        return End(
            EndKind.FAILED,
            f"its script ended{where} with status {status}",
            "Run a job by hand there to see what is wrong; --output=FILE among the target's options keeps its words",
        )
    return End(EndKind.COMPLETED, "its agent had nothing more to do", "Start the kernel again")


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
