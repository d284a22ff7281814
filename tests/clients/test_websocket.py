"""WebSocket by `websockets`, client and server, through the tunnel that an upgrade becomes; and by
HTTP/2 (RFC 8441) from callers that speak that."""

import asyncio
import hashlib
import os
import random
import socket

import pytest
import websockets
from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from bearerd import DEADLINE
from conftest import eventually

MIB = 1 << 20


class Server:
    """Echoes; its first message may tell it to do something else."""

    def __init__(self):
        self.handshakes = []
        self.ended = []

    async def handle(self, peer):
        self.handshakes.append(peer.request.headers)
        try:
            async for message in peer:
                match message.split(" ") if isinstance(message, str) else [message]:
                    case ["close", code, reason]:
                        return await peer.close(int(code), reason)
                    case ["abort"]:
                        return peer.transport.abort()
                    case ["fragments", count]:
                        await peer.send(f"{number} " for number in range(int(count)))
                    case _:
                        await peer.send(message)
        finally:
            self.ended.append((peer.close_code, peer.close_reason))


@pytest.fixture
async def server():
    server = Server()
    def second(_peer, offered):
        return offered[1] if len(offered) > 1 else None

    async with serve_websocket(server.handle, "127.0.0.1", 0, max_size=None,
                               select_subprotocol=second) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


@pytest.fixture
async def daemon(server, start):
    return await start(f'upstream = "http://127.0.0.1:{server.port}"')


def url(daemon):
    return f"ws://{daemon.address}/chat?room=1"


async def test_messages_pass_and_the_token_is_in_the_handshake_only(daemon, server, idp):
    async with connect(url(daemon)) as peer:
        for message in ["text", "", "ünïcode 本 🎉", b"", bytes(range(256))]:
            await peer.send(message)
            assert await peer.recv() == message
    assert server.handshakes[0].get_all("authorization") == [f"Bearer {idp.token}"]
    await eventually("ended", lambda: server.ended == [(1000, "")])
    await eventually("counted", lambda: daemon.metric("bearerd_requests_total", 'code="101"') == 1)


async def test_a_message_in_fragments_stays_in_fragments(daemon):
    async with connect(url(daemon)) as peer:
        await peer.send("fragments 10")
        got = [part async for part in peer.recv_streaming()]
        assert got == [*(f"{number} " for number in range(10)), ""]
        await peer.send(["a", "b", "c"])
        assert await peer.recv() == "abc"


async def test_pings_and_pongs_pass_both_ways(daemon):
    async with connect(url(daemon), ping_interval=0.05) as peer:
        for payload in [b"", b"payload", bytes(125)]:
            await asyncio.wait_for(await peer.ping(payload), DEADLINE)
        await peer.pong(b"unasked")
        await peer.send("after")
        assert await peer.recv() == "after"


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999])
async def test_close_codes_and_reasons_pass_both_ways(daemon, server, code):
    expected = ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError
    async with connect(url(daemon)) as peer:
        await peer.send(f"close {code} bye")
        with pytest.raises(expected) as closed:
            await peer.recv()
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "bye")
    async with connect(url(daemon)) as peer:
        await peer.close(code, "ciao 本")
    await eventually("ended", lambda: server.ended[1:] == [(code, "ciao 本")])


async def test_an_end_without_a_close_frame_is_told_to_the_other_side(daemon, server):
    async with connect(url(daemon)) as peer:
        await peer.send("abort")
        with pytest.raises(ConnectionClosedError) as closed:
            await asyncio.wait_for(peer.recv(), DEADLINE)
        assert closed.value.rcvd is None
    async with connect(url(daemon)) as peer:
        peer.transport.abort()
        await eventually("ended", lambda: server.ended[1:] == [(1006, "")])
    await eventually("over", lambda: daemon.metric("bearerd_requests_in_flight") == 0)


async def test_large_messages(daemon):
    async with connect(url(daemon), max_size=None, compression=None) as peer:
        for size in [125, 126, 65535, 65536, 16 * MIB]:
            message = os.urandom(size)
            sending = asyncio.create_task(peer.send(message))
            got = await peer.recv()
            await sending
            assert hashlib.sha256(got).digest() == hashlib.sha256(message).digest()


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_compression_is_agreed_on_by_the_two_ends(daemon, compression):
    async with connect(url(daemon), compression=compression, max_size=None) as peer:
        agreed = "permessage-deflate" in peer.response.headers.get("Sec-WebSocket-Extensions", "")
        assert agreed == (compression is not None)
        for message in ["x" * MIB, os.urandom(MIB), "short"]:
            await peer.send(message)
            assert await peer.recv() == message


async def test_subprotocols_are_agreed_on_by_the_two_ends(daemon):
    async with connect(url(daemon), subprotocols=["chat.v1", "chat.v2"]) as peer:
        assert peer.subprotocol == "chat.v2"


async def test_a_refused_handshake_is_an_answer(daemon, start, serve):
    from aiohttp import web

    async def refuse(_request):
        return web.Response(status=403, text="not here")

    application = web.Application()
    application.router.add_get("/chat", refuse)
    refusing = await start(f'upstream = "http://127.0.0.1:{await serve(application)}"')
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(refusing)):
            pass
    assert (refused.value.response.status_code, refused.value.response.body) == (403, b"not here")


async def test_a_page_of_another_origin_gets_no_socket(daemon, server):
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(daemon), origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["bearerd-reason"] == "origin_not_allowed"
    assert not server.handshakes


async def test_many_sockets_at_once(daemon, server):
    async def talk(number):
        async with connect(url(daemon), open_timeout=DEADLINE) as peer:
            for turn in range(10):
                message = f"{number} {turn}" * random.randint(1, 1000)
                await peer.send(message)
                assert await peer.recv() == message

    await asyncio.gather(*map(talk, range(100)))
    assert len(server.handshakes) == 100


async def test_unix_sockets_and_tls_on_both_sides(server, start, identity, ca_file, tmp_path):
    import ssl

    def context(purpose):
        context = ssl.create_default_context(purpose, cafile=ca_file)
        if purpose is ssl.Purpose.CLIENT_AUTH:
            context.load_cert_chain(*identity)
        return context

    path = f"{tmp_path}/upstream.sock"
    async with websockets.asyncio.server.unix_serve(server.handle, path):
        daemon = await start(f'upstream = "unix:{path}"', listen=f"unix:{tmp_path}/bearerd.sock")
        async with unix_connect(f"{tmp_path}/bearerd.sock", "ws://localhost/") as peer:
            await peer.send("by unix sockets")
            assert await peer.recv() == "by unix sockets"
    async with serve_websocket(server.handle, "127.0.0.1", 0,
                               ssl=context(ssl.Purpose.CLIENT_AUTH)) as listening:
        port = listening.sockets[0].getsockname()[1]
        daemon = await start(
            f'upstream = "https://127.0.0.1:{port}"\ntls = {{ ca_file = "{ca_file}" }}',
            listen="tls:127.0.0.1:0",
            server=f'tls = {{ cert = "{identity[0]}", key = "{identity[1]}" }}')
        async with connect(f"wss://{daemon.address}/",
                           ssl=context(ssl.Purpose.SERVER_AUTH)) as peer:
            await peer.send("by TLS")
            assert await peer.recv() == "by TLS"


async def test_a_socket_outlives_its_token(server, start, idp):
    idp.lifetime = 1
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    async with connect(url(daemon)) as peer:
        for count in [3, 5]:
            await eventually("another token", lambda count=count: idp.tokens >= count)
            await peer.send(f"after {count} tokens")
            assert await peer.recv() == f"after {count} tokens"


async def test_a_socket_that_idles_is_closed(server, start):
    daemon = await start(
        f'upstream = "http://127.0.0.1:{server.port}"\ntimeouts = {{ idle_ms = 300 }}')
    async with connect(url(daemon), ping_interval=None) as peer:
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(peer.recv(), DEADLINE)
    await eventually("told upstream", lambda: server.ended == [(1006, "")])


def accepts(daemon):
    try:
        socket.create_connection(("127.0.0.1", daemon.port), timeout=DEADLINE).close()
    except OSError:
        return False
    return True


async def test_sockets_end_at_the_deadline_of_a_shutdown(server, start):
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"',
                         server="shutdown_grace_seconds = 2")
    async with connect(url(daemon), ping_interval=None) as peer:
        daemon.terminate()
        await eventually("stopping", lambda: not accepts(daemon))
        await peer.send("within the grace")
        assert await peer.recv() == "within the grace"
        with pytest.raises(ConnectionClosedError):
            await asyncio.wait_for(peer.recv(), DEADLINE)
    assert await asyncio.to_thread(daemon.wait) == 0
    await eventually("told upstream", lambda: server.ended == [(1006, "")])
