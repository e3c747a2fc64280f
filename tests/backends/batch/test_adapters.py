"""What holds for every adapter: values stay values."""

from __future__ import annotations

import shlex
import string
import subprocess

import hypothesis.strategies as st
import pytest
from hypothesis import given

from farkernel.backends.batch import backend, htcondor, oar
from farkernel.backends.batch.contract import (
    Adapter,
    CannotTell,
    Job,
    JobState,
    Request,
    Said,
    Wanted,
)
from farkernel.backends.batch.job_script import job_script
from farkernel.backends.batch.runner import read, script
from farkernel.launcher.errors import FarkernelError

ADAPTERS = list(backend.ADAPTERS.values())
adapters = pytest.mark.parametrize("adapter", ADAPTERS, ids=list(backend.ADAPTERS))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@adapters
@given(options=st.lists(texts, max_size=4), value=texts)
def test_each_value_is_one_argument(adapter: Adapter, options: list[str], value: str) -> None:
    """Whatever the options hold, they come out as they are, and the script does not change."""
    request = Request("fk-x", options=tuple(options), environment={"FARKERNEL_JOB_PYTHONS": value})
    command = adapter.submit(request, "the script")
    wanted = list(options)
    for word in command.argv:
        if wanted and word == wanted[0]:
            wanted.pop(0)
    assert not wanted
    assert command.stdin == "the script"
    if isinstance(adapter, oar.Oar):  # a job gets nothing of oarsub's own environment, but a command line
        assert shlex.split(command.argv[5]) == ["env", f"FARKERNEL_JOB_PYTHONS={value}"]
    elif not isinstance(adapter, htcondor.HtCondor):  # it takes its environment in the description
        assert command.environment["FARKERNEL_JOB_PYTHONS"] == value
        assert len(command.argv) == len(
            adapter.submit(Request("fk-x", environment={"FARKERNEL_JOB_PYTHONS": "x"}), "").argv
        ) + len(options)


@given(words=st.lists(texts, min_size=1, max_size=5), value=texts, stdin=st.none() | texts)
def test_a_shell_gives_every_word_to_the_command(words: list[str], value: str, stdin: str | None) -> None:
    """Through a real shell: argv, environment and stdin arrive byte by byte."""
    from farkernel.backends.batch.contract import Command

    show = 'printf "%s\\0" "$VALUE" "$@"; echo; echo complaint >&2; cat'
    command = Command(("sh", "-c", show, "sh", *words), stdin, {"VALUE": value})
    text = script([command, Command(("false",))], "mark")
    done = subprocess.run(["/bin/sh", "-s"], input=text.encode(), capture_output=True, check=True, timeout=20)
    answer = read(done.stdout.decode(), "mark", 2, cut=False)
    assert answer is not None
    first, second = answer
    expected = (
        "".join(f"{each}\0" for each in [value, *words])
        + "\n"
        + ("" if stdin is None else stdin.rstrip("\n") + "\n")
    )
    assert first.out.rstrip("\n") == expected.rstrip("\n")
    assert (first.status, first.err.strip()) == (0, "complaint")
    assert (second.status, second.out) == (1, "")


@pytest.mark.parametrize("mark", ["mark", "a", "0"])
def test_lines_that_begin_as_the_end_of_a_document_does(mark: str) -> None:
    """dash takes the first byte of what is not ASCII away behind such a beginning."""
    from farkernel.backends.batch.contract import Command

    letters = [*string.ascii_letters[:9], *string.digits]
    begun = ["", mark, *(letter + more for letter in letters for more in ("", mark[:1], mark))]
    stdin = "".join(f"{each}é\n{each}\u4e2d\n" for each in begun) + f"{string.ascii_letters[9]}{mark[:1]}é\n"
    text = script([Command(("cat",), stdin)], mark)
    done = subprocess.run(["/bin/sh", "-s"], input=text.encode(), capture_output=True, check=True, timeout=20)
    answer = read(done.stdout.decode(), mark, 1, cut=False)
    assert answer is not None
    assert answer[0].out == stdin


def test_what_a_broken_connection_leaves_is_no_answer() -> None:
    text = "noise\nmark out\nhello\nmark err 0\n\n"
    assert read(text, "mark", 1, cut=False) is None
    assert read(text + "\nmark end", "mark", 1, cut=False) == [Said(0, "hello", "\n")]
    assert read(text + "\nmark end", "mark", 2, cut=False) is None


@adapters
@given(out=st.text(max_size=300), err=st.text(max_size=100), status=st.integers(0, 255))
def test_any_output_is_either_read_or_said_to_be_unreadable(
    adapter: Adapter, out: str, err: str, status: int
) -> None:
    said = Said(status, out, err)
    for read_it in (
        lambda: adapter.submitted(said),
        lambda: adapter.jobs([said]),
        lambda: adapter.ended(Job("1", "fk-x", JobState.UNKNOWN), [said, said][: len(adapter.details("1"))]),
        lambda: adapter.cancelled(said),
        lambda: adapter.order(said),
    ):
        try:
            read_it()
        except FarkernelError as error:
            assert error.what.isprintable()


@adapters
def test_no_answer_at_all_says_nothing_about_jobs(adapter: Adapter) -> None:
    """DESIGN §3, promise 4, and STYLE: absence is never read as success."""
    timeout = Said(1, "", "error: connection to the server timed out")
    with pytest.raises(CannotTell):
        adapter.submitted(timeout)
    with pytest.raises(CannotTell):
        adapter.jobs([timeout])
    with pytest.raises(CannotTell):
        adapter.cancelled(timeout)


@adapters
def test_names_fit(adapter: Adapter) -> None:
    name = backend.job_name("7058f8b3-1972-4c70-aaac-3a7072bdb8e0", adapter.longest_name)
    assert len(name) <= adapter.longest_name
    assert name.startswith("fk-")
    assert name != backend.job_name("7058f8b3-1972-4c70-aaac-3a7072bdb8e0", adapter.longest_name)
    assert adapter.query([Wanted(name, "")])


def test_the_script_is_plain() -> None:
    """Schedulers look into scripts for lines of their own, and some mind long lines."""
    lines = job_script().splitlines()
    assert job_script().isascii()
    assert lines[0] == "#!/bin/sh"
    assert not [line for line in lines if line.startswith(("#SBATCH", "#PBS", "#$", "#BSUB", "#OAR"))]
    assert max(map(len, lines)) < 250
    assert (
        subprocess.run(["/bin/sh", "-n"], input=job_script().encode(), timeout=20, check=False).returncode
        == 0
    )


@pytest.mark.parametrize("adapter", [oar.ADAPTER, htcondor.ADAPTER], ids=["oar", "htcondor"])
def test_a_script_in_a_private_file(
    adapter: Adapter, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pathlib import Path

    home = Path(str(tmp_path))
    (home / "bin").mkdir()
    program = home / "bin" / adapter.program
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >"$HOME/argv"\ncat >"$HOME/description"\n')
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=":")
    command = adapter.submit(Request("fk-x", options=("--account=a b",)), "#!/bin/sh\necho hi\n")
    text = script([command], "mark")
    done = subprocess.run(["/bin/sh", "-s"], input=text.encode(), capture_output=True, check=True, timeout=20)
    answer = read(done.stdout.decode(), "mark", 1, cut=False)
    assert answer is not None
    assert answer[0].status == 0, answer
    path = home / ".cache/farkernel/jobs/fk-x.sh"
    assert path.read_text() == "#!/bin/sh\necho hi\n"
    assert path.stat().st_mode & 0o777 == 0o700
    assert "--account=a b" in (home / "argv").read_text().splitlines()
    assert str(path) in (home / "argv").read_text() + (home / "description").read_text()
