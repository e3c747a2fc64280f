"""Rosters: what spreadsheets and people write, and what is said when it is wrong."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.errors import FarkernelError
from farkernel.launcher.fleet.roster import COLUMNS, Roster, RosterError
from farkernel.launcher.fleet.roster_file import parse_roster, read_roster
from farkernel.launcher.fleet.roster_table import read_table


def parse(text: str | bytes, file: str = "list.csv", **others: str) -> Roster:
    data = text.encode() if isinstance(text, str) else text
    return parse_roster(data, file, lambda name: others[Path(name).stem].encode())


def problems(text: str | bytes, file: str = "list.csv", **others: str) -> list[str]:
    with pytest.raises(RosterError) as caught:
        parse(text, file, **others)
    return [str(each) for each in caught.value.problems]


PLAIN = "host,student\npi01,Ada Lovelace\npi02,Grace Hopper\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16-le").join([codecs.BOM_UTF16_LE, b""]),
        codecs.BOM_UTF8 + PLAIN.replace("\n", "\r\n").encode(),
        ("sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n")).encode(),
        b'"Host"; Student;;\n"pi01";"Ada Lovelace";;\n;;;\nPI02;Grace Hopper;;\n\n',
    ],
)
def test_what_spreadsheets_write(data: bytes) -> None:
    roster = parse(data)
    assert [(host.name, host.student) for host in roster.hosts] == [
        ("pi01", "Ada Lovelace"),
        ("pi02", "Grace Hopper"),
    ]
    assert roster.name == "list"


def test_all_columns() -> None:
    (host,) = parse(
        "host,student,board,model,address,user,port,password,capacity,drain\n"
        "pi1,Zoë Müller,/dev/ttyACM0,Pi 5,192.0.2.7,zoe,2222,geheim,2,yes\n"
    ).hosts
    assert str(host.ssh) == "ssh://zoe@192.0.2.7:2222"
    assert str(host.serial) == "serial://zoe@192.0.2.7:2222/dev/ttyACM0"
    assert (host.student, host.model, host.capacity, host.drain) == ("Zoë Müller", "Pi 5", 2, True)
    assert "geheim" not in repr(host)


def test_an_address_may_be_ipv6() -> None:
    (host,) = parse("host,address\npi1,fe80::1\n").hosts
    assert str(host.ssh) == "ssh://[fe80::1]"
    assert host.ssh.host == "fe80::1"


SETTINGS = """
[fleet]
name = "Class-7b"
title = "Pis of 7b"
user = "pi"
domain = "local"
entries = ["pool", "boards"]

[target]
keep = "2h"
[pool]
sticky = "user"

[environment]
packages = ["numpy"]
wheels = "wheels"

[card]
wifi = "School"
wifi_password = "correct horse"
country = "DE"
[reset]
directory = "~/lesson"
template = "lesson-1"
"""


def test_a_roster_with_settings() -> None:
    roster = parse(
        SETTINGS
        + '[[hosts]]\nhost = "pi1"\nstudent = "Ada"\ncapacity = 2\n\n[[hosts]]\nhost = "pi2.lab.example"\n',
        "class/7b.toml",
    )
    assert (roster.name, roster.title) == ("class-7b", "Pis of 7b")
    assert [str(host.ssh) for host in roster.hosts] == ["ssh://pi@pi1.local", "ssh://pi@pi2.lab.example"]
    assert roster.target == {"keep": "2h"}
    assert roster.pool == {"sticky": "user"}
    assert roster.environment is not None
    assert roster.environment.packages == ("ipykernel", "numpy")
    assert roster.environment.wheels == Path("class/wheels")
    assert (roster.environment.name, roster.environment.directory) == ("class-7b", "/opt/farkernel/class-7b")
    assert (roster.reset.directory, roster.reset.template) == ("lesson", Path("class/lesson-1"))
    assert roster.card.wifi_password == "correct horse"
    assert "correct horse" not in repr(roster)


def test_settings_beside_a_list() -> None:
    settings = '[fleet]\nname = "lab"\nhosts = "students.csv"\nuser = "pi"\n'
    roster = parse(settings, "lab.toml", students="host;student;Email\npi1;Ada;a@b\n")
    assert [(host.name, host.user) for host in roster.hosts] == [("pi1", "pi")]
    assert roster.notes == ("Columns that were not used: Email.",)
    assert problems(settings, "lab.toml", students="host\npi 1\n") == [
        "students.csv:2: 'host' cannot be the name of a host: 'pi 1'. Take letters, digits and '-', beginning and ending "
        "with a letter or digit, 63 at most"
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    text = (
        "host,port,board,user,drain,capacity\n"
        "pi1,22,,,,\n"
        "Pi1,,,,,\n"
        ",22,,,,\n"
        "pi3,99999,,,,\n"
        "pi4,,ttyUSB0,,,\n"
        "pi5,,,-oProxyCommand=x,maybe,0\n"
        'pi6,,/dev/../etc,,,"2\n3"\n'
        "pi7,,,,,,7\n"
    )
    found = problems(text)
    assert [each.split(". ")[0] for each in found] == [
        "list.csv:3: the name 'pi1' is taken by line 2",
        "list.csv:4: names no host",
        "list.csv:5: 'port' is no number that would do: '99999'",
        "list.csv:6: 'board' is no device with a board: 'ttyUSB0'",
        "list.csv:7: 'user' cannot be the name of a user: '-oProxyCommand=x'",
        "list.csv:7: 'drain' is neither yes nor no: 'maybe'",
        "list.csv:7: 'capacity' is no number that would do: '0'",
        "list.csv:8: 'board' is no device with a board: '/dev/../etc'",
        "list.csv:8: 'capacity' is no number that would do: '2\\n3'",
        "list.csv:10: has 7 cells, and there are 6 columns",
    ]
    assert "`model`" in found[3]
    with pytest.raises(RosterError) as caught:
        parse(text)
    assert caught.value.what.startswith("the roster has 10 errors:\n  list.csv:3: ")


@pytest.mark.parametrize(
    ("text", "file", "expected"),
    [
        ("", "l.csv", "l.csv: is empty. Its first line names the columns: host, student"),
        ("host\n", "l.csv", "l.csv: names no hosts. Give each host a line"),
        ("pi1\npi2\n", "l.csv", "l.csv:1: there is no column 'host'. The first line names the columns; known are host"),
        ("host,studnet\n", "l.csv", "l.csv:1: unknown column 'studnet'. Did you mean 'student'?"),
        ("host,host\na,b\n", "l.csv", "l.csv:1: the column 'host' is there twice. Keep one of them"),
        (b"host,student\npi1,M\xfcller\n", "l.csv", "l.csv:2: is not UTF-8. Save it again as UTF-8; in Excel: CSV UTF-8"),
        ('host\n"pi1\n', "l.csv", "l.csv:2: cannot be read as CSV: unexpected end of data. Mend the quotes"),
        ("host,address\npi1,10.0.0.1\npi2,10.0.0.1\n", "l.csv", "l.csv:3: 'pi2' has the address of 'pi1', 10.0.0.1."),
        ("host,board\npi1,/dev/ttyUSB0\npi1-board,\n", "l.csv", "l.csv:3: the name 'pi1-board' is taken by line 2."),
        ("host,address\npi1,me@host\n", "l.csv", "l.csv:2: 'address' is no name or IP address of a machine: 'me@host'."),
        ("x = \n", "l.toml", "l.toml:1: is not valid TOML: Invalid value. Mend the line"),
        ("", "l.toml", 'l.toml: names no hosts. Add [[hosts]] tables, or hosts = "list.csv" below [fleet]'),
        ("hosts = 3\n", "l.toml", "l.toml:1: 'hosts' must be tables. Write [[hosts]] before each of them"),
        ('[[hosts]]\nname = "pi1"\n', "l.toml", "l.toml:1: unknown key 'name' in [[hosts]]. Did you mean 'host'?"),
        ('[fleet]\nusr = "pi"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: unknown key 'usr' in [fleet]. Did you mean 'user'?"),
        ('[flet]\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:1: unknown table 'flet'. Did you mean 'fleet'?"),
        ('[target]\nkep="2h"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: unknown key 'kep' in [target]. Did you mean 'keep'?"),
        ('[target]\naddress="ssh://a"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: the addresses come from the list. Take it out"),
        ('[reset]\ndirectory="~"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: 'directory' in [reset] is no directory below the home: '~'."),
        ('[reset]\ndirectory="a/../.."\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: 'directory' in [reset] is no directory below the home"),
        ('[reset]\ntemplate="x"\n[[hosts]]\nhost="a"\n', "l.toml", 'l.toml:2: there is no directory for it. Add directory = "lesson"'),
        ('[card]\nwifi_password="short"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: 'wifi_password' in [card] is no password of a Wi-Fi network."),
        ('[environment]\npackages=["-e ."]\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: 'packages' in [environment] has what is no package: '-e .'."),
        ('[fleet]\nhosts="x.csv"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:2: there are [[hosts]] too. Keep one of the two"),
        ('[fleet]\nname="A"\n[[hosts]]\nhost="a"\n', "l.toml", "l.toml:3: the name 'a' is taken by the fleet 'a' itself."),
        ('hosts=[{host="a"},\n{host="b", port=true}]\n', "l.toml", "l.toml:2: 'port' is no number that would do: true."),
    ],
)  # fmt: skip
def test_what_is_said_of_each_mistake(text: str | bytes, file: str, expected: str) -> None:
    found = problems(text, file)
    assert found[0].startswith(expected), found


def test_a_password_that_is_wrong_is_not_shown() -> None:
    assert "hunter" not in str(problems("host,password\npi1,hun\thunter2\n", "l.csv"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RosterError, match=r"No such file or directory. Name the roster's file"):
        read_roster(tmp_path / "none.csv")
    large = tmp_path / "large.csv"
    large.write_bytes(b"x" * (5 << 20))
    with pytest.raises(RosterError, match="is larger than 4 MiB"):
        read_roster(large)
    beside = tmp_path / "lab.toml"
    beside.write_text('[fleet]\nhosts = "list.csv"\n')
    with pytest.raises(RosterError, match=r"list.csv: cannot be read"):
        read_roster(beside)
    (tmp_path / "list.csv").write_text("host\npi1\n")
    assert [host.name for host in read_roster(beside).hosts] == ["pi1"]


# -- whatever is written there ---------------------------------------------------------------------------------

cells = st.text(max_size=20)


@given(st.lists(st.lists(cells, min_size=1, max_size=5), max_size=6), st.sampled_from(",;\t"))
def test_a_table_says_what_was_written(rows: list[list[str]], separator: str) -> None:
    """By Python's own writer: what comes back is what went in, blanks at the ends apart."""
    header = ["host", "student", "model", "note-1", "note-2"]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    kept = [[cell.replace("\0", "") for cell in row] for row in rows]
    writer.writerows([header, *kept])
    try:
        data = stream.getvalue().encode()
    except UnicodeEncodeError:  # half a surrogate pair: nothing that a file could hold
        return
    table = read_table(data, "l.csv", COLUMNS, "host")
    assert not table.problems
    expected = [
        {name: cell.strip() for name, cell in zip(header[:3], row, strict=False) if cell.strip()}
        for row in kept
        if any(cell.strip() for cell in row)
    ]
    assert [cells for _, cells in table.rows] == expected


@given(st.binary(max_size=300), st.sampled_from(["l.csv", "l.toml"]))
def test_any_bytes_are_a_roster_or_an_error(data: bytes, file: str) -> None:
    try:
        parse(data, file)
    except FarkernelError as error:
        assert isinstance(error, RosterError)
        assert file in str(error)


hostile = st.sampled_from(
    ["$(reboot)", "`id`", "'; rm -rf /; '", "../../etc", "-oProxyCommand=x", "pi\x1b[31m", "a\nb", "\u202eabc", "pi1", "é"]
) | st.text(max_size=30)  # fmt: skip


@given(hostile, hostile, hostile, hostile, hostile)
def test_what_gets_through_is_harmless(host: str, student: str, board: str, address: str, user: str) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows(
        [["host", "student", "board", "address", "user"], [host, student, board, address, user]]
    )
    try:
        roster = parse(stream.getvalue().encode("utf-8", "replace"), "l.csv")
    except RosterError:
        return
    (found,) = roster.hosts
    assert all(character.isascii() and (character.isalnum() or character in "-.") for character in found.name)
    assert found.student.isprintable()
    for place in (found.ssh, found.serial):
        if place is not None:
            assert not set(str(place)) & set(" \t\n'\"`;&|<>()\\")
            assert not (place.host or "").startswith("-")
            assert not (place.user or "").startswith("-")
