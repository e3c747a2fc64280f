"""jupyter_kernel_test: the same kernel must pass and fail the same tests, reached by us or used directly."""

from __future__ import annotations

import unittest
from typing import Any

import jupyter_kernel_test
import pytest

from ..sites.engine import Engine

pytestmark = [pytest.mark.servers, pytest.mark.timeout(150)]

# What the package asks a kernel's author for.  Every test has its sample, so that none of them is skipped.
IPYKERNEL: dict[str, Any] = {
    "language_name": "python",
    "file_extension": ".py",
    "code_hello_world": "print('hello, world')",
    "code_stderr": "import sys; print('oh', file=sys.stderr)",
    "code_page_something": "zip?",
    "code_generate_error": "raise ValueError('on purpose')",
    "code_execute_result": [
        {"code": "6 * 7", "result": "42"},
        {"code": "'a' + 'b'", "result": "'ab'"},
        {"code": "from IPython.display import HTML; HTML('<i>x</i>')", "mime": "text/html", "result": "<i>x</i>"},
    ],
    "code_display_data": [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>b</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('x'))", "mime": "text/latex"},
    ],
    "code_history_pattern": "6*7",
    "supported_history_operations": ("tail", "range", "search"),
    "code_inspect_sample": "zip",
    "code_clear_output": "from IPython.display import clear_output; clear_output()",
    "completion_samples": [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import antig", "matches": {"antigravity"}},
    ],
    "complete_code_samples": ["1", "print('hello')", "def f(x):\n  return x\n\n\n"],
    "incomplete_code_samples": ["print('''hello", "def f(x):\n  x * 2"],
    "invalid_code_samples": ["import = 7q"],
}
WELCOME = {"support_iopub_welcome": True}
# ipykernel calls the session that asks 0, the package wants its number.
OWN_SHORTCOMINGS = {"Kernel.test_history (hist_access_type='range')"}


def results(kernel: str) -> dict[str, str]:
    """Each test of the package and how it ended with this kernel."""
    suites = [
        type("Kernel", (jupyter_kernel_test.KernelTests,), {"kernel_name": kernel, **IPYKERNEL}),
        type("Welcome", (jupyter_kernel_test.IopubWelcomeTests,), {"kernel_name": kernel, **WELCOME}),
    ]
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    outcome = Recorder()
    unittest.TestSuite(load(suite) for suite in suites).run(outcome)
    return outcome.ends


class Recorder(unittest.TestResult):
    """Keeps by name how each test ended; a failed subtest is a failure of its own.  Why is printed."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._note(test, "passed", "")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "failed", err[1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._note(test, "error", repr(err[1]))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._note(test, "skipped", reason)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._note(subtest, "failed", err[1])

    def _note(self, test: unittest.TestCase, end: str, why: object) -> None:
        name = test.id().rpartition(f"{__name__}.")[2]
        self.ends[name] = end
        print(f"{name}: {end} {why}")


def test_the_menu_entry_passes_what_the_local_kernel_passes(engine: Engine) -> None:
    engine.target("here", kernel="python3")
    engine.entry("here", "here")
    local = results("python3")
    far = results("here")
    assert far == local
    assert {name for name, end in far.items() if end != "passed"} <= OWN_SHORTCOMINGS
    assert len(far) >= 13
