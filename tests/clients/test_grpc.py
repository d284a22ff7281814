"""gRPC by grpcio, client and server, over plaintext and TLS: every kind of call, and how each ends."""

import asyncio
import os

import grpc
import pytest

from bearerd import DEADLINE
from conftest import eventually

MIB = 1 << 20
BINARY = bytes(range(256)) * 3
OPTIONS = [("grpc.max_receive_message_length", 8 * MIB), ("grpc.max_send_message_length", 8 * MIB)]


class Service(grpc.GenericRpcHandler):
    """Messages are bytes; the method's name says what becomes of them."""

    def __init__(self):
        self.authorizations = []
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.meeting = asyncio.Barrier(500)
        self.calls = 0

    def service(self, details):
        self.calls += 1
        metadata = dict(details.invocation_metadata)
        self.authorizations.append(metadata.get("authorization"))
        kind, _, name = details.method.removeprefix("/test/").partition("_")
        handler = getattr(grpc, f"{kind.replace('U', 'unary_').replace('S', 'stream_')[:-1]}"
                                "_rpc_method_handler")
        behaviour = getattr(self, name, None)
        return handler(behaviour) if behaviour else None

    async def echo(self, message, _context):
        return message

    async def metadata(self, _message, context):
        sent = dict(context.invocation_metadata())
        await context.send_initial_metadata((("early-bin", sent["one-bin"]), ("early", "1")))
        context.set_trailing_metadata((("late-bin", sent["one-bin"][::-1]), ("late", sent["plain"])))
        return b""

    async def fail(self, _message, context):
        context.set_trailing_metadata((("why-bin", BINARY),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "né pas: 100 % 本")

    async def remaining(self, _message, context):
        return str(context.time_remaining()).encode()

    async def hang(self, _message, _context):
        self.begun.set()
        try:
            await asyncio.sleep(10 * DEADLINE)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def meet(self, message, _context):
        await self.meeting.wait()
        return message

    async def count(self, message, _context):
        for number in range(int(message)):
            yield b"%d" % number

    async def count_then_fail(self, message, context):
        for number in range(int(message)):
            yield b"%d" % number
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")

    async def stream_for_ever(self, message, _context):
        try:
            while True:
                yield message
                await asyncio.sleep(0.01)
        finally:
            self.cancelled.set()

    async def total(self, messages, _context):
        return b"%d" % sum([len(message) async for message in messages])

    async def answer_each(self, messages, _context):
        async for message in messages:
            yield message.upper()


@pytest.fixture
async def service():
    return Service()


@pytest.fixture(params=["plaintext", "tls", "unix"])
async def channel(request, service, start, identity, ca_file, tmp_path):
    """A channel to bearerd, and behind it the service: by prior knowledge, by ALPN, by unix socket."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((service,))
    options = list(OPTIONS)
    if request.param == "tls":
        chain, key = (path.read_bytes() for path in identity)
        credentials = grpc.ssl_server_credentials([(key, chain)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        route = f'upstream = "https://127.0.0.1:{port}"\ntls = {{ ca_file = "{ca_file}" }}'
        tls = f'tls = {{ cert = "{identity[0]}", key = "{identity[1]}" }}'
        await server.start()
        daemon = await start(route, listen="tls:127.0.0.1:0", server=tls)
        trusted = grpc.ssl_channel_credentials(ca_file.read_bytes())
        channel = grpc.aio.secure_channel(daemon.address, trusted, options)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        listen, target = "127.0.0.1:0", None
        if request.param == "unix":
            listen = target = f"unix:{tmp_path}/bearerd.sock"
        daemon = await start(f'upstream = "http://127.0.0.1:{port}"\nhttp2 = true', listen=listen)
        options.append(("grpc.default_authority", "localhost"))
        channel = grpc.aio.insecure_channel(target or daemon.address, options)
    channel.daemon = daemon
    yield channel
    await channel.close()
    await server.stop(None)


async def test_unary_calls(channel, service, idp):
    call = channel.unary_unary("/test/UU_echo")
    assert await call(b"one") == b"one"
    assert await call(b"") == b""
    assert set(service.authorizations) == {f"Bearer {idp.token}"}


async def test_a_client_streams(channel):
    call = channel.stream_unary("/test/SU_total")

    async def messages():
        for _ in range(100):
            yield b"x" * 1000

    assert await call(messages()) == b"100000"


async def test_a_server_streams(channel):
    call = channel.unary_stream("/test/US_count")
    assert [int(message) async for message in call(b"1000")] == list(range(1000))


async def test_both_stream_and_neither_waits_for_the_other_to_end(channel):
    call = channel.stream_stream("/test/SS_answer_each")()
    for number in range(100):
        await call.write(f"message {number}".encode())
        assert await call.read() == f"MESSAGE {number}".encode()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_metadata_passes_byte_for_byte_both_ways(channel):
    call = channel.unary_unary("/test/UU_metadata")(
        b"", metadata=(("one-bin", BINARY), ("plain", "text")))
    await call
    early, late = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    assert (early["early-bin"], early["early"]) == (BINARY, "1")
    assert (late["late-bin"], late["late"]) == (BINARY[::-1], "text")


async def test_an_error_without_a_message_is_in_trailers_only(channel):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/UU_fail")(b"")
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == "né pas: 100 % 本"
    assert dict(error.value.trailing_metadata())["why-bin"] == BINARY
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/UU_unknown")(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_error_after_messages_comes_after_all_of_them(channel):
    call, got = channel.unary_stream("/test/US_count_then_fail")(b"50"), []
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for message in call:
            got.append(int(message))
    assert got == list(range(50))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_deadline_is_known_upstream_and_ends_the_call_there_too(channel, service):
    remaining = float(await channel.unary_unary("/test/UU_remaining")(b"", timeout=100))
    # gRPC rounds what is left up to a whole second.
    assert 0 < remaining <= 101
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/UU_hang")(b"", timeout=1)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.cancelled.wait(), DEADLINE)


async def test_a_cancelled_call_is_cancelled_upstream(channel, service):
    call = channel.unary_unary("/test/UU_hang")(b"")
    await asyncio.wait_for(service.begun.wait(), DEADLINE)
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), DEADLINE)


async def test_a_cancelled_stream_is_cancelled_upstream_and_others_go_on(channel, service):
    other = channel.stream_stream("/test/SS_answer_each")()
    await other.write(b"before")
    assert await other.read() == b"BEFORE"
    call = channel.unary_stream("/test/US_stream_for_ever")(b"x")
    assert [await call.read() for _ in range(3)] == [b"x"] * 3
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), DEADLINE)
    await other.write(b"after")
    assert await other.read() == b"AFTER"
    await other.done_writing()


async def test_messages_of_4_mib(channel):
    message = os.urandom(4 * MIB)
    assert await channel.unary_unary("/test/UU_echo")(message) == message
    call = channel.stream_stream("/test/SS_answer_each")()
    large = b"x" * 4 * MIB
    for _ in range(3):
        await call.write(large)
        assert await call.read() == large.upper()
    await call.done_writing()


async def test_500_calls_at_once_on_one_connection(channel, service):
    call = channel.unary_unary("/test/UU_echo")
    messages = [b"%d" % number for number in range(500)]
    assert await asyncio.gather(*map(call, messages)) == messages
    assert service.calls == 500


async def test_500_calls_that_wait_for_each_other(service, start):
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    daemon = await start(f'upstream = "http://127.0.0.1:{port}"\nhttp2 = true',
                         server="limits = { http2_streams = 500 }")
    async with grpc.aio.insecure_channel(daemon.address) as channel:
        call = channel.unary_unary("/test/UU_meet")
        messages = [b"%d" % number for number in range(500)]
        assert await asyncio.wait_for(asyncio.gather(*map(call, messages)), DEADLINE) == messages
    await server.stop(None)


async def test_calls_are_counted_and_over(channel):
    await channel.unary_unary("/test/UU_echo")(b"")
    daemon = channel.daemon
    await eventually("nothing in flight",
                     lambda: daemon.metric("bearerd_requests_in_flight") == 0)
    assert daemon.metric("bearerd_requests_total", 'code="200"') == 1
