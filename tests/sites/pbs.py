"""Stand-ins for the commands of OpenPBS and Torque: they answer in the words of the real ones (fixtures of
tests/backends/batch), and run the jobs as processes of this machine.

``STANDIN_SLOTS`` jobs run at a time; the others are queued.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

PROGRAMS = ("qsub", "qstat", "qdel", "qselect", "pbsnodes")

_STARTER = """\
#!/bin/sh
exec {python} -S {program} {directory} {flavour} $(basename "$0") "$@"
"""


class PbsSite:
    """Puts the commands into a directory for PATH."""

    def __init__(self, directory: Path, flavour: str, slots: int = 2) -> None:
        self.directory = directory
        self.flavour = flavour
        self._over = "-11" if flavour == "torque" else "-29"
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True)
        (directory / "slots").write_text(str(slots))
        for program in PROGRAMS:
            path = self.bin / program
            path.write_text(
                _STARTER.format(
                    python=sys.executable,
                    program=Path(__file__).resolve(),
                    directory=directory,
                    flavour=flavour,
                )
            )
            path.chmod(0o755)

    def jobs(self, *states: str) -> list[str]:
        server = Server(self.directory, "pbs")
        server.turn()
        return [job.number for job in server.jobs() if job["job_state"] in (states or ("Q", "R"))]

    def limit_reached(self, number: str) -> None:
        """End it as the server does when the walltime is over."""
        Server(self.directory, "pbs").end(
            Entry(self.directory / "jobs" / number), self._over, "and exceeded resource walltime"
        )

    def calls(self, program: str) -> int:
        path = self.directory / "calls"
        return path.read_text().split().count(program) if path.exists() else 0

    def stop(self) -> None:
        for number in self.jobs():
            Server(self.directory, "pbs").end(Entry(self.directory / "jobs" / number), "271", "")


class Entry:
    """One job: a directory with a file for each attribute."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = path.name

    def __getitem__(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).read_text()
        return ""

    def __setitem__(self, name: str, value: str) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(value)
        temporary.rename(self.path / name)


class Server:
    """What the commands do."""

    def __init__(self, directory: Path, flavour: str) -> None:
        self.directory = directory
        self.torque = flavour == "torque"

    def jobs(self) -> list[Entry]:
        place = self.directory / "jobs"
        return [Entry(path) for path in sorted(place.glob("*.ctl"), key=lambda path: int(path.stem))]

    def turn(self) -> None:
        """Start what there is room for, and notice what has ended."""
        for job in self.jobs():
            if job["job_state"] == "R" and job["exit_status"]:
                job["job_state"] = "F"
        room = int((self.directory / "slots").read_text())
        room -= sum(job["job_state"] == "R" for job in self.jobs())
        for job in self.jobs():
            if job["job_state"] == "Q" and room > 0:
                room -= 1
                self._start(job)
            elif job["job_state"] == "Q":
                job["comment"] = "Not Running: Insufficient amount of resource: ncpus (R: 1 A: 0 T: 2)"

    def _start(self, job: Entry) -> None:
        names = [f"PBS_STANDIN={self.directory}", f"PBS_JOBID={job.number}", f"PBS_JOBNAME={job['Job_Name']}"]
        # The shell between us and the job writes its exit status down.
        lines = 'cd /; sh "$1/script"; echo $? >"$1/.status"; mv "$1/.status" "$1/exit_status"'
        words = ["env", *names, *job["environment"].splitlines(), "sh", "-c", lines, "sh", str(job.path)]
        # Nobody's child as far as this process is concerned, which may be the test's own.
        nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
        pid = os.posix_spawnp(words[0], words, os.environ, file_actions=nothing, setsid=True)
        job["pid"] = str(pid)
        job["start"] = str(time.time())
        job["comment"] = f"Job run on ({os.uname().nodename}:ncpus=1)"
        job["job_state"] = "R"

    def end(self, job: Entry, status: str, comment: str) -> None:
        job["exit_status"] = status if job["job_state"] == "R" else ""
        job["comment"] = f"{job['comment']} {comment}"
        job["job_state"] = "F"
        signum = signal.SIGTERM
        while pids := self._processes(job):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signum)
            time.sleep(0.3)
            signum = signal.SIGKILL

    def _processes(self, job: Entry) -> list[int]:
        """All that carry the job's id, whatever group they are in: pbs_mom knows them by their session or cgroup."""
        marks = {f"PBS_JOBID={job.number}".encode(), f"PBS_STANDIN={self.directory}".encode()}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if marks <= set(path.read_bytes().split(b"\0")):
                    found.append(int(path.parent.name))
        return found

    def qsub(self, arguments: list[str]) -> int:
        options = dict(zip(arguments[::2], arguments[1::2], strict=False))
        if options.get("-q", "workq") != "workq":
            sys.stderr.write("qsub: Unknown queue\n")
            return 170
        place = self.directory / "jobs"
        place.mkdir(exist_ok=True)
        script = Path(arguments[-1]).read_text() if len(arguments) % 2 else sys.stdin.read()
        number = ""
        while not number:
            with contextlib.suppress(FileExistsError):  # two may come at once
                following = f"{len(list(place.iterdir()))}.ctl"
                (place / following).mkdir()
                number = following
        job = Entry(place / number)
        job["script"] = script
        job["Job_Name"] = options["-N"]
        names = [name for name in options.get("-v", "").split(",") if name]
        job["environment"] = "".join(f"{name}={os.environ[name]}\n" for name in names)
        job["job_state"] = "Q"
        print(number)
        return 0

    def qstat(self, arguments: list[str]) -> int:
        self.turn()
        if "-Qf" in arguments:
            return self._queues()
        status = 0
        history = self.torque or "-x" in arguments
        for number in arguments[arguments.index("-f") + 1 :]:
            job = Entry(self.directory / "jobs" / self._named(number))
            if not job.path.exists():
                error = "Unknown Job Id Error" if self.torque else "Unknown Job Id"
                sys.stderr.write(f"qstat: {error} {self._named(number)}\n")
                status = 153
                continue
            if job["job_state"] == "F" and not history:
                sys.stderr.write(
                    f"qstat: {number} Job has finished, use -x or -H to obtain historical job information\n"
                )
                status = 35
                continue
            state = job["job_state"].replace("F", "C" if self.torque else "F")
            used = time.strftime("%H:%M:%S", time.gmtime(time.time() - float(job["start"] or time.time())))
            facts = {
                "Job_Name": job["Job_Name"],
                "resources_used.walltime": used,
                "job_state": state,
                "queue": "workq",
                "exec_host": f"{os.uname().nodename}/0" if job["pid"] else "",
                "Resource_List.walltime": "01:00:00",
                "comment": job["comment"],
                "exit_status" if self.torque else "Exit_status": job["exit_status"].strip(),
            }
            print(f"Job Id: {number}")
            for name, value in facts.items():
                if value:
                    print(f"    {name} = {value[:60]}" + (f"\n\t{value[60:]}" if value[60:] else ""))
            print()
        return status

    @staticmethod
    def _named(number: str) -> str:
        """A number alone means one of this server's."""
        return number if "." in number else f"{number}.ctl"

    def qselect(self, arguments: list[str]) -> int:
        self.turn()
        found = [job for job in self.jobs() if job["job_state"] in ("Q", "R")]
        if "-N" in arguments:
            name = arguments[arguments.index("-N") + 1]
            found = [job for job in self.jobs() if job["Job_Name"] == name]
        print("".join(f"{job.number}\n" for job in found), end="")
        return 0

    def _queues(self) -> int:
        counts = [sum(job["job_state"] == state for job in self.jobs()) for state in "QR"]
        print("Queue: workq\n    queue_type = Execution")
        print("    state_count = Transit:0 Queued:{} Held:0 Waiting:0 Running:{} Exiting:0".format(*counts))
        print("    resources_max.walltime = 12:00:00\n    enabled = True\n    started = True\n")
        return 0

    def pbsnodes(self, arguments: list[str]) -> int:
        """One node with a processor for each slot."""
        self.turn()
        slots = int((self.directory / "slots").read_text())
        running = [job.number for job in self.jobs() if job["job_state"] == "R"]
        node = os.uname().nodename
        print(f"{node}\n     state = free")
        if self.torque:
            jobs = ", ".join(f"{slot}/{number}" for slot, number in enumerate(running))
            print(f"     np = {slots}\n     ntype = cluster" + (f"\n     jobs = {jobs}" if jobs else ""))
        else:
            print(f"     Mom = {node}\n     resources_available.ncpus = {slots}")
            print(
                f"     resources_available.mem = 24684096kb\n     resources_assigned.ncpus = {len(running)}"
            )
        print()
        return 0

    def qdel(self, arguments: list[str]) -> int:
        name = self._named(arguments[0])
        job = Entry(self.directory / "jobs" / name)
        if not job.path.exists():
            unknown = f"nonexistent job id: {arguments[0]}" if self.torque else f"Unknown Job Id {name}"
            sys.stderr.write(f"qdel: {unknown}\n")
            return 153
        if job["job_state"] == "F" and self.torque:
            why = "Request invalid for state of job MSG=invalid state for job - COMPLETE"
            sys.stderr.write(f"qdel: {why} {name}\n")
            return 170
        if job["job_state"] == "F":
            sys.stderr.write(f"qdel: Job has finished {name}\n")
            return 35
        self.end(job, "271", "and terminated by root@login")
        return 0


def main() -> int:
    directory, flavour, program, *arguments = sys.argv[1:]
    with open(Path(directory) / "calls", "a", encoding="ascii") as calls:
        calls.write(f"{program}\n")
    return int(getattr(Server(Path(directory), flavour), program)(arguments))


if __name__ == "__main__":
    sys.exit(main())
