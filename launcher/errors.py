"""Errors that a user can meet.

Each says what happened, where, and what to do next.  They travel as plain dicts between agent, keeper and
front ends (``kind``, ``what``, ``advice``), so that the sentence a person reads is made once, where the error is known.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FarkernelError(Exception):
    """Base of all our errors; ``str()`` gives the sentence and what to do."""

    kind: ClassVar[str] = "error"

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what.rstrip('.')}. {self.advice}" if self.advice else self.what

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.kind, "what": self.what, "advice": self.advice}


class RemoteError(FarkernelError):
    """An error that came over a socket or a link, kept in the words of the side that met it."""

    def __init__(self, kind: str, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.remote_kind = kind

    def as_dict(self) -> dict[str, str]:
        return {"kind": self.remote_kind, "what": self.what, "advice": self.advice}

    @classmethod
    def from_dict(cls, error: Any) -> RemoteError:
        """From whatever the other side sent, which need not be well-formed."""
        # Not above: every launch imports this module in its 60 ms (DESIGN §6), and few of them meet an error.
        from .text import clean

        if not isinstance(error, dict):
            return cls("error", f"unreadable error: {str(error)[:200]!r}", "")
        return cls(
            clean(error.get("kind", "error"))[:64],
            clean(error.get("what", "unknown error"), keep="\n\t")[:2000],
            clean(error.get("advice", ""), keep="\n\t")[:2000],
        )
