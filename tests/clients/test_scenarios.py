"""The scenarios of tests/vtc, run by varnishtest: client and server around bearerd, byte by byte.

A scenario's server listens at `${upstream}`, a unix socket, and its client connects to `${bearerd}`.
Tokens are `token-1`, `token-2`, …; a first line `# route: …` adds to the route."""

import asyncio
from pathlib import Path

import pytest

from bearerd import DEADLINE

SCENARIOS = sorted((Path(__file__).parent.parent / "vtc").glob("*.vtc"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
async def test_scenario(scenario, start, tmp_path):
    upstream = tmp_path / "upstream.sock"
    first = scenario.read_text().splitlines()[0]
    more = first.removeprefix("# route: ") if first.startswith("# route: ") else ""
    daemon = await start(f'upstream = "unix:{upstream}"\n{more}')
    process = await asyncio.create_subprocess_exec(
        "varnishtest", "-v", "-t", str(int(DEADLINE)), "-D", f"upstream={upstream}",
        "-D", f"bearerd={daemon.address}", scenario,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode(errors="replace") + "".join(daemon.logs)


def test_there_are_scenarios():
    assert len(SCENARIOS) > 20
