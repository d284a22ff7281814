"""Child processes: started on one core, measured through /proc, and always ended."""

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 5

# Fields of /proc/PID/stat, counted from the state, which follows the command's name.
PROCESS_GROUP, USER_TICKS, SYSTEM_TICKS = 2, 11, 12


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different; whoever asks binds them next, before any load runs."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def on_core(core: int, command: list) -> list[str]:
    """The command pinned to a core, and told to end should this program be killed."""
    pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", core, *command]
    return [str(part) for part in pinned]


def go_first(pid: int) -> None:
    """Before all others on its cores, whose turns would otherwise count in what it takes; what it starts
    from now on does not."""
    first = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), first, os.sched_param(1))
    except PermissionError as error:
        raise PermissionError("only root may let a process go first on its core") from error


class Process:
    """A server and all its workers: one process group, since it starts as the leader of one."""

    def __init__(self, command: list, core: int, log: Path):
        self.log = log
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                on_core(core, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def alive(self) -> bool:
        return self.child.poll() is None

    def go_first(self) -> None:
        for pid, _ in self._group():
            go_first(pid)

    def cpu_seconds(self) -> float:
        """User and system time of the whole group, so far."""
        ticks = sum(int(stat[USER_TICKS]) + int(stat[SYSTEM_TICKS]) for _, stat in self._group())
        return ticks / TICKS_PER_SECOND

    def memory_kib(self) -> int:
        """Resident memory of the whole group; `status` stays readable where a daemon hides more."""
        return sum(resident_kib(pid) for pid, _ in self._group())

    def _group(self):
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            if int(stat[PROCESS_GROUP]) == self.child.pid:
                yield int(entry.name), stat


def resident_kib(pid: int) -> int:
    """VmRSS of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
