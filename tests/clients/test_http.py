"""HTTP by the clients and servers that applications use: httpx, aiohttp, curl, h2load, undici."""

import asyncio
import hashlib
import json
import os
import re
import ssl
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp import web

from bearerd import DEADLINE
from conftest import eventually

HERE = Path(__file__).parent
MIB = 1 << 20


class Api:
    """An API by aiohttp: lets in who has a token, but for so many refusals, and tells what it was
    asked."""

    def __init__(self):
        self.refusals = 0
        self.requests = []
        self.events = asyncio.Queue()
        self.left = asyncio.Event()

    def application(self):
        application = web.Application(middlewares=[self.guard], client_max_size=64 * MIB)
        application.router.add_get("/events", self.serve_events)
        application.router.add_post("/417", self.tell, expect_handler=self.refuse)
        application.router.add_post("/413", self.tell, expect_handler=self.refuse)
        application.router.add_route("*", "/digest", self.digest)
        application.router.add_route("*", "/{path:.*}", self.tell)
        return application

    @web.middleware
    async def guard(self, request, handler):
        self.requests.append(request)
        (shown,) = request.headers.getall("authorization")
        assert shown.startswith("Bearer token-")
        if self.refusals > 0:
            self.refusals -= 1
            return web.json_response({}, status=401, headers={"www-authenticate": "Bearer"})
        return await handler(request)

    async def tell(self, request):
        return web.json_response({
            "method": request.method, "target": request.raw_path, "host": request.host,
            "version": list(request.version), "body": (await request.read()).decode()})

    async def digest(self, request):
        digest = hashlib.sha256()
        async for part in request.content.iter_any():
            digest.update(part)
        return web.Response(text=digest.hexdigest())

    async def refuse(self, request):
        """An answer in place of 100 Continue."""
        if "expect" in request.headers:
            self.requests.append(request)
            return web.Response(status=int(request.path[1:]))
        return None

    async def serve_events(self, request):
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(await self.events.get())
        finally:
            self.left.set()


@pytest.fixture
async def api(serve):
    api = Api()
    api.url = f"http://127.0.0.1:{await serve(api.application())}"
    return api


@pytest.fixture
async def daemon(api, start):
    return await start(f'upstream = "{api.url}"')


@pytest.fixture
async def tls_daemon(api, start, identity):
    return await start(f'upstream = "{api.url}"', listen="tls:127.0.0.1:0",
                       server=f'tls = {{ cert = "{identity[0]}", key = "{identity[1]}" }}')


async def run(*command, stdin=None, code=0):
    """Runs a program to its end; what it printed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(stdin), 2 * DEADLINE)
    assert process.returncode == code, f"{command}: {out.decode()}{err.decode()}"
    return out.decode()


def body(size):
    """So much in pieces, and its digest."""
    pieces = [os.urandom(min(65536, size - start)) for start in range(0, size, 65536)]
    return pieces, hashlib.sha256(b"".join(pieces)).hexdigest()


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2", "HTTP/2 by TLS"])
async def test_httpx(daemon, tls_daemon, api, idp, ca_file, version):
    trusted = ssl.create_default_context(cafile=ca_file)
    by_tls = version.endswith("TLS")
    url = f"https://{tls_daemon.address}" if by_tls else daemon.url
    two = version.startswith("HTTP/2")
    async with httpx.AsyncClient(http1=not two or by_tls, http2=two, verify=trusted,
                                 base_url=url) as client:
        answer = await client.get("/a%2Fb?x=%20&y")
        assert answer.http_version == ("HTTP/2" if two else "HTTP/1.1")
        assert answer.json()["target"] == "/a%2Fb?x=%20&y"
        assert api.url.endswith(answer.json()["host"])
        # Replayed with its body; then nobody needs to be.
        tokens, count = idp.tokens, len(api.requests)
        api.refusals = 1
        answer = await client.put("/order", content=b"order" * 1000)
        assert (answer.status_code, answer.json()["body"]) == (200, "order" * 1000)
        assert (idp.tokens, len(api.requests)) == (tokens + 1, count + 2)
        answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(200)))
        assert [a.json()["target"] for a in answers] == [f"/{n}" for n in range(200)]
        assert len(api.requests) == count + 202

        async def pieces(made):
            for piece in made:
                yield piece

        made, digest = body(8 * MIB)
        answer = await client.post("/digest", content=pieces(made))
        assert answer.text == digest


async def test_aiohttp_streams_both_ways(start, serve):
    async def echo(request):
        response = web.StreamResponse()
        await response.prepare(request)
        async for part in request.content.iter_any():
            await response.write(part.upper())
        return response

    application = web.Application()
    application.router.add_post("/", echo)
    daemon = await start(f'upstream = "http://127.0.0.1:{await serve(application)}"')
    questions = asyncio.Queue()

    async def asked():
        while (question := await questions.get()) is not None:
            yield question

    async with aiohttp.ClientSession() as session:
        questions.put_nowait(b"begin;")
        async with session.post(daemon.url, data=asked()) as answer:
            assert await answer.content.readexactly(6) == b"BEGIN;"
            for number in range(100):
                questions.put_nowait(b"ask %d;" % number)
                expected = b"ASK %d;" % number
                assert await answer.content.readexactly(len(expected)) == expected
            questions.put_nowait(None)
            assert await answer.content.read() == b""


async def test_server_sent_events_come_one_by_one(daemon, api):
    api.events.put_nowait(b"data: 0\n\n")  # aiohttp says no head before it has something to say
    async with aiohttp.ClientSession() as session, session.get(f"{daemon.url}/events") as answer:
        assert answer.content_type == "text/event-stream"
        for number in range(50):
            event = b"data: %d\n\n" % number
            if number > 0:
                api.events.put_nowait(event)
            assert await asyncio.wait_for(answer.content.readexactly(len(event)), DEADLINE) == event
    # Who leaves is told upstream.
    await asyncio.wait_for(api.left.wait(), DEADLINE)


CURL = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30"]


@pytest.mark.parametrize("version", ["1.0", "1.1", "2-prior-knowledge"])
async def test_curl(daemon, api, tmp_path, version):
    curl = [*CURL, f"--http{version}"]
    told = json.loads(await run(*curl, f"{daemon.url}/x?y=1"))
    assert (told["target"], told["version"]) == ("/x?y=1", [1, 1])
    api.refusals = 1
    told = json.loads(await run(*curl, "--data", "order", f"{daemon.url}/order"))
    assert (told["method"], told["body"]) == ("POST", "order")
    # A large upload: curl waits for 100 Continue before it.
    pieces, digest = body(4 * MIB)
    upload = tmp_path / "upload"
    upload.write_bytes(b"".join(pieces))
    got = await run(*curl, "--verbose", "--upload-file", upload, f"{daemon.url}/digest")
    assert got == digest
    head = await run(*curl, "--head", f"{daemon.url}/x")
    assert re.match(r"HTTP/\S+ 200", head)


@pytest.mark.parametrize("status, uploaded", [(413, "413 0"), (417, "200 2097152")])
async def test_curl_is_refused_before_its_body(daemon, api, tmp_path, status, uploaded):
    # curl expects 100 Continue for this much; after 417 it asks once more, and expects nothing.
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 2 * MIB)
    told = await run("curl", "--silent", "--show-error", "--max-time", "30", "--http1.1",
                     "--data-binary", f"@{upload}", "--output", "/dev/null",
                     "--write-out", "%{http_code} %{size_upload}", f"{daemon.url}/{status}")
    assert told == uploaded
    assert api.requests[0].headers["expect"].lower() == "100-continue"


async def test_curl_by_unix_socket(api, start, tmp_path):
    path = tmp_path / "bearerd.sock"
    await start(f'upstream = "{api.url}"', listen=f"unix:{path}")
    told = json.loads(await run(*CURL, "--unix-socket", path, "http://localhost/by/unix"))
    assert told["target"] == "/by/unix"


async def test_curl_by_tls_agrees_on_either_version(tls_daemon, ca_file):
    url = f"https://{tls_daemon.address}/"
    for version, agreed in [("--http2", "2"), ("--http1.1", "1.1")]:
        told = await run(*CURL, version, "--cacert", ca_file, "--output", "/dev/null",
                         "--write-out", "%{http_version}", url)
        assert told == agreed


@pytest.mark.parametrize("options", [["--h1"], [], ["-m", "100"]])
async def test_h2load(daemon, api, options):
    told = await run("h2load", "-n", "2000", "-c", "8", *options, f"{daemon.url}/load")
    assert "2000 succeeded, 0 failed, 0 errored" in told, told
    assert "status codes: 2000 2xx" in told, told
    assert len(api.requests) == 2000
    await eventually("over", lambda: daemon.metric("bearerd_requests_in_flight") == 0)


async def test_h2load_by_tls(tls_daemon, api):
    told = await run("h2load", "-n", "1000", "-c", "4", "-m", "50",
                     f"https://{tls_daemon.address}/load")
    assert "1000 succeeded, 0 failed, 0 errored" in told, told
    assert len(api.requests) == 1000


async def test_undici(daemon, tls_daemon, api, ca_file):
    arguments = [daemon.url, f"https://{tls_daemon.address}", ca_file]
    process = await asyncio.create_subprocess_exec(
        "node", HERE / "undici.mjs", *map(str, arguments), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        assert (await asyncio.wait_for(process.stdout.readline(), DEADLINE)) == b"ready\n"
        api.refusals = 1
        out, err = await asyncio.wait_for(process.communicate(b"go\n"), 2 * DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, (out + err).decode()
    assert out == b"fetch\npipelining\nupgrade refused\nhttp2\n"
