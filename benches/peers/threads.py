"""Whether a second worker thread brings as much as the first.

On two cores the load generator would take what the second thread needs. So each worker thread is
given a fifth of a core by the scheduler, one thread in one run and two in the other, and the
generator has the rest. If the threads got into each other's way, two of them would do less than
twice the work with twice the time.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from load import wrk
from proxies import Proxy, start
from rig import Absent

CONTROLLER = Path("/sys/fs/cgroup/cpu")
PERIOD_MICROSECONDS = 10_000
QUOTA_MICROSECONDS = 2_000
CONNS = 64


def measure(bench, _) -> list[dict]:
    with ExitStack() as stack:
        proxies = [limited(bench, threads, stack) for threads in (1, 2)]

        def load(proxy: Proxy, secs: int) -> dict:
            found = wrk(proxy.url("/"), CONNS, secs, bench.rig.load_core)
            return {"per_second": found.per_second, "failed": found.failed}

        return bench.alternate(proxies, load)


def limited(bench, threads: int, stack: ExitStack) -> Proxy:
    """bearerd with so many worker threads, on both cores, each with its quota."""
    name = f"bearerd-peers-{os.getpid()}-{threads}"
    groups = [CONTROLLER / f"{name}-{number}" for number in range(threads)]
    stack.callback(remove, groups)
    proxy = start(bench.rig, "bearerd", {"threads": threads})
    stack.enter_context(proxy.process)
    proxy.await_answer()
    proxy.name = "1 thread" if threads == 1 else f"{threads} threads"
    cores = {bench.rig.load_core, bench.rig.proxy_core}
    for group, thread in zip(groups, workers(proxy.process.child.pid), strict=True):
        os.sched_setaffinity(thread, cores)
        restrict(group, thread)
    return proxy


def workers(pid: int) -> list[int]:
    """The data plane's threads; those of control and of pingora are named otherwise."""
    tasks = Path(f"/proc/{pid}/task")
    named = {task: (task / "comm").read_text().strip() for task in tasks.iterdir()}
    found = [int(task.name) for task, name in named.items() if name.startswith("proxy-")]
    if not found:
        raise Absent(f"no worker threads among {sorted(named.values())}")
    return found


def restrict(group: Path, thread: int) -> None:
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
        (group / "cpu.cfs_quota_us").write_text(str(QUOTA_MICROSECONDS))
        (group / "tasks").write_text(str(thread))
    except OSError as error:
        raise Absent(f"no quota for a thread's time ({error}); needs root and cgroup v1") from error


def remove(groups: list[Path]) -> None:
    """They are empty once the process has ended."""
    for group in groups:
        if group.exists():
            group.rmdir()
