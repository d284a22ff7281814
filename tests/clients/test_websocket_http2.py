"""WebSocket over HTTP/2 (RFC 8441): the caller's extended CONNECT reaches a server that speaks
HTTP/1.1 as its handshake."""

import asyncio

import pytest
from websockets.asyncio.server import serve as serve_websocket
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

import http2
from bearerd import DEADLINE
from conftest import eventually
from test_websocket import Server

CONNECT = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
           (":authority", "localhost"), (":path", "/chat?room=1"), ("sec-websocket-version", "13")]


class Socket:
    """WebSocket's frames on an HTTP/2 stream."""

    def __init__(self, stream, extensions=()):
        self.stream = stream
        self.protocol = Protocol(CLIENT, max_size=None)
        self.protocol.extensions = list(extensions)

    async def send(self, frame):
        self.protocol.send_frame(frame)
        for data in self.protocol.data_to_send():
            await self.stream.send(data)

    async def recv(self):
        while not (frames := self.protocol.events_received()):
            data = await asyncio.wait_for(self.stream.data(), DEADLINE)
            if not data:
                return None
            self.protocol.receive_data(data)
            for answer in self.protocol.data_to_send():
                await self.stream.send(answer)
        (frame,) = frames
        return frame

    async def echo(self, text):
        await self.send(Frame(Opcode.TEXT, text.encode()))
        frame = await self.recv()
        assert bytes(frame.data).decode() == text


@pytest.fixture
async def server():
    server = Server()
    async with serve_websocket(server.handle, "127.0.0.1", 0, max_size=None) as listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


async def opened(daemon, *more):
    connection = await http2.connect(daemon.port)
    stream = await connection.request(*CONNECT, *more, end=False)
    return stream, await asyncio.wait_for(stream.head(), DEADLINE)


async def test_messages_pass_and_the_handshake_is_that_of_http_1_1(server, start, idp):
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    stream, head = await opened(daemon, ("origin", "http://localhost"))
    assert stream.connection.state.remote_settings.enable_connect_protocol == 1
    assert head[":status"] == "200"
    assert not {"connection", "upgrade", "sec-websocket-accept"} & head.keys()
    socket = Socket(stream)
    for text in ["first", "ünïcode 本", "x" * 1_000_000]:
        await socket.echo(text)
    handshake = server.handshakes[0]
    assert handshake.get_all("authorization") == [f"Bearer {idp.token}"]
    assert handshake["host"] == f"127.0.0.1:{server.port}"
    # Several at once on the connection, beside a plain request.
    others = [await stream.connection.request(*CONNECT, end=False) for _ in range(20)]
    for other in others:
        assert (await other.head())[":status"] == "200"
    await asyncio.gather(*(Socket(other).echo(str(n)) for n, other in enumerate(others)))
    await socket.echo("after them")
    assert len({handshake["sec-websocket-key"] for handshake in server.handshakes}) == 21
    await socket.send(Frame(Opcode.CLOSE, b"\x03\xe8bye"))
    assert (await socket.recv()).opcode is Opcode.CLOSE
    assert await stream.data() == b""
    await stream.send(b"", end=True)
    await eventually("ended", lambda: server.ended == [(1000, "bye")])
    for other in others:
        await other.cancel()
    await eventually("told upstream", lambda: len(server.ended) == 21)
    await eventually("over", lambda: daemon.metric("bearerd_requests_in_flight") == 0)


async def test_compression_is_agreed_on_by_the_two_ends(server, start):
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    factory = ClientPerMessageDeflateFactory()
    offer = "permessage-deflate; client_max_window_bits=15"
    stream, head = await opened(daemon, ("sec-websocket-extensions", offer))
    agreed = head["sec-websocket-extensions"]
    assert agreed.startswith("permessage-deflate")
    parameters = [tuple(part.strip().split("=")) for part in agreed.split(";")[1:]]
    extension = factory.process_response_params(parameters, [])
    await Socket(stream, [extension]).echo("compressible " * 10_000)


async def test_a_refused_handshake_is_an_answer_and_is_not_replayed(start, serve):
    from aiohttp import web

    asked = []

    async def refuse(request):
        asked.append(request)
        return web.Response(status=401, text="who?", headers={"www-authenticate": "Bearer"})

    application = web.Application()
    application.router.add_get("/chat", refuse)
    daemon = await start(f'upstream = "http://127.0.0.1:{await serve(application)}"')
    stream, head = await opened(daemon)
    assert (head[":status"], await stream.body()) == ("401", b"who?")
    assert len(asked) == 1
    assert daemon.metric("bearerd_replays_total", "not_replayable") == 1


@pytest.mark.parametrize("answer", [
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
])
async def test_what_does_not_agree_is_a_502(start, answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    daemon = await start(f'upstream = "http://127.0.0.1:{server.sockets[0].getsockname()[1]}"')
    stream, head = await opened(daemon)
    assert (head[":status"], head["bearerd-reason"]) == ("502", "upstream_protocol")


async def test_other_connects_are_refused_and_the_connection_goes_on(server, start):
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    stream, head = await opened(daemon)
    others = [
        [(":method", "CONNECT"), (":authority", "localhost:1")],
        [*CONNECT[:1], (":protocol", "connect-udp"), *CONNECT[2:]],
    ]
    for other in others:
        refused = await stream.connection.request(*other, end=False)
        head = await asyncio.wait_for(refused.head(), DEADLINE)
        assert (head[":status"], head["bearerd-reason"]) == ("405", "method_not_allowed")
    await Socket(stream).echo("still there")
    stream = await stream.connection.request(*CONNECT, ("origin", "https://evil.example"), end=False)
    assert (await stream.head())["bearerd-reason"] == "origin_not_allowed"
    assert len(server.handshakes) == 1


async def test_either_end_that_breaks_off_ends_the_other(server, start):
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    stream, _ = await opened(daemon)
    await Socket(stream).send(Frame(Opcode.TEXT, b"abort"))
    assert not await asyncio.wait_for(stream.data(), DEADLINE)
    stream, _ = await opened(daemon)
    await Socket(stream).echo("there")
    stream.connection.writer.transport.abort()
    await eventually("told upstream", lambda: server.ended[1:] == [(1006, "")])
    await eventually("over", lambda: daemon.metric("bearerd_requests_in_flight") == 0)


async def test_it_outlives_its_token(server, start, idp):
    idp.lifetime = 1
    daemon = await start(f'upstream = "http://127.0.0.1:{server.port}"')
    stream, _ = await opened(daemon)
    await eventually("more tokens", lambda: idp.tokens >= 4)
    await Socket(stream).echo("after four tokens")


async def test_it_is_closed_when_it_idles(server, start):
    daemon = await start(
        f'upstream = "http://127.0.0.1:{server.port}"\ntimeouts = {{ idle_ms = 300 }}')
    stream, head = await opened(daemon)
    assert head[":status"] == "200"
    assert not await asyncio.wait_for(stream.data(), DEADLINE)
    await eventually("told upstream", lambda: server.ended == [(1006, "")])
