"""What the notebook is told while a job waits."""

from __future__ import annotations

import time

from ...launcher.text import one_line
from .contract import Job, JobState


def waiting_text(scheduler: str, job: Job, reason: str) -> str:
    """State and reason; below them place in the queue and expected start, as far as they are known."""
    where = f"{scheduler} job {job.id}"
    if job.state is JobState.HELD:
        return f"{where} is held: {reason}"
    if job.state is JobState.STARTING:
        return f"{where} starts{f' on {job.node}' if job.node else ''}"
    if job.state is JobState.UNKNOWN:
        return f"{where} is in a state that is not known here ({one_line(job.word)[:60]})"
    state = f"{where} is queued{f' in {job.queue}' if job.queue else ''}: {reason}"
    parts = []
    if job.ahead:
        parts.append("1 job is before it" if job.ahead == 1 else f"{job.ahead} jobs are before it")
    elif job.ahead == 0 and "it is next" not in reason:
        parts.append("it is the next in the queue")
    if job.starts is not None and job.starts > time.time():
        parts.append(f"expected to start {_when(job.starts)}, in {left_text(job.starts - time.time())}")
    return "\n".join(filter(None, (state, "; ".join(parts))))


def left_text(seconds: float) -> str:
    """How long, in the unit that people would use."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"{minutes} minute{'s' * (minutes != 1)}"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _when(moment: float) -> str:
    same_day = time.localtime(moment)[:3] == time.localtime()[:3]
    return time.strftime("at %H:%M" if same_day else "on %d %b at %H:%M", time.localtime(moment))
