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


def cancelled_end(by: str = "") -> End:
    """Somebody did not want it; ``by``: who, or how, as the end of the sentence."""
    return End(EndKind.CANCELLED, f"it was cancelled{by}", "Start the kernel again if that was not meant")


def requeued_end() -> End:
    """The job goes on, and nothing that ran in it does."""
    return End(
        EndKind.REQUEUED,
        "it was put back into the queue (requeued), and all that ran in it has ended",
        "Started again, the kernel begins anew as soon as the job runs",
    )


def time_limit_end(limit: str, where: str) -> End:
    """``where``: what sets the bounds, a queue or a partition."""
    text = f"its time limit was reached{f' ({limit})' if limit else ''}"
    return End(
        EndKind.TIME_LIMIT, text, f'Ask for more: resources = {{ time = "…" }}, as far as the {where} allows'
    )


def out_of_memory_end(had: str, used: str) -> End:
    figures = " and used ".join([f"it had {had}"] * bool(had) + [used] * bool(used))
    text = f"it ran out of memory ({figures})" if figures else "it ran out of memory"
    return End(EndKind.OUT_OF_MEMORY, text, 'Ask for more: resources = { memory = "…" }')


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
