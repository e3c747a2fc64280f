"""jupyter_kernel_test for the boards' kernel, through Farkernel's menu entry, on a MicroPython 1.25 in QEMU."""

from __future__ import annotations

import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import jupyter_kernel_test  # type: ignore[import-untyped]
import pytest

from ..sites.boards import mps2
from ..sites.engine import Engine

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]

# What the package asks a kernel's author for.  Every test has its sample, so that none of them is skipped.
BOARD: dict[str, Any] = {
    "language_name": "micropython",
    "file_extension": ".py",
    "code_hello_world": "print('hello, world')",
    "code_stderr": "%%local\nimport sys\nprint('oh', file=sys.stderr)",
    "code_page_something": "print?",
    "code_generate_error": "raise ValueError('on purpose')",
    "code_execute_result": [
        {"code": "6 * 7", "result": "42"},
        {"code": "'a' + 'b'", "result": "'ab'"},
        {"code": "x = 3; x", "result": "3"},
    ],
    "code_display_data": [
        {"code": "from farkernel import display\ndisplay('<b>b</b>', 'text/html')", "mime": "text/html"},
        {"code": "class Table:\n def _repr_html_(self): return '<table/>'\nTable()", "mime": "text/html"},
        {"code": "%%plot\nfor i in range(5): print(i, i * i)", "mime": "image/svg+xml"},
        {
            "code": "%%local\nclass P:\n def _repr_png_(self): return b'\\x89PNG'\nP()",
            "mime": "image/png",
        },
    ],
    "code_history_pattern": "6*7",
    "supported_history_operations": ("tail", "range", "search"),
    "code_inspect_sample": "print",
    "code_clear_output": "import farkernel\nfarkernel.clear()",
    "completion_samples": [
        {"text": "pri", "matches": {"print"}},
        {"text": "import machi", "matches": {"machine"}},
        {"text": "%lsma", "matches": {"%lsmagic"}},
        {"text": "from machine import soft_r", "matches": {"soft_reset"}},
    ],
    "complete_code_samples": ["1", "print('hello')", "def f(x):\n  return x\n\n\n", "%ls", "%%time\n1\n"],
    "incomplete_code_samples": ["print('''hello", "def f(x):\n  x * 2", "%%time", "for i in range(3):"],
    "invalid_code_samples": ["import = 7q"],
}
WELCOME = {"support_iopub_welcome": True}


def test_every_test_of_the_package_passes(engine: Engine, home: Path) -> None:
    with mps2(home) as board:
        for arguments in (["add", "board", f"serial://{board.device}"], ["install", "board"]):
            subprocess.run(
                [sys.executable, "-m", "farkernel", *arguments],
                check=True,
                timeout=60,
                stdout=subprocess.PIPE,
            )
        suites = [
            type("Kernel", (jupyter_kernel_test.KernelTests,), {"kernel_name": "board", **BOARD}),
            type("Welcome", (jupyter_kernel_test.IopubWelcomeTests,), {"kernel_name": "board", **WELCOME}),
        ]
        load = unittest.defaultTestLoader.loadTestsFromTestCase
        outcome = unittest.TestResult()
        unittest.TestSuite(test for suite in suites for test in load(suite)).run(outcome)
        failed = [*outcome.failures, *outcome.errors, *outcome.skipped]
        assert not failed, "\n\n".join(f"{test}: {why}" for test, why in failed)
        assert outcome.testsRun >= 13
