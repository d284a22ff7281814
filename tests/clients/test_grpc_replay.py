"""gRPC to a gateway that refuses a token in HTTP's way, by 401: replayed where that is possible, and
never where it is not."""

import asyncio
import struct

import grpc
import pytest

import http2
from bearerd import DEADLINE

OK = [(":status", "200"), ("content-type", "application/grpc")]
REFUSED = [(":status", "401"), ("www-authenticate", "Bearer"), ("content-type", "text/plain")]


def framed(message):
    return b"\0" + struct.pack(">I", len(message)) + message


class Gateway:
    """Echoes what is sent to it, and refuses as often as it is told to: once the body is whole,
    before it, or in its middle."""

    def __init__(self):
        self.refusals, self.refuses_at = 1, "end"
        self.seen = []

    async def handle(self, stream):
        head = await stream.head()
        refuses = self.refusals > 0
        self.refusals -= refuses
        if refuses and self.refuses_at == "head":
            body = None
        elif refuses and self.refuses_at == "middle":
            body = await stream.data()
        elif head[":path"].endswith("each"):
            return await self.echo_each(stream, head)
        else:
            body = await stream.body()
        self.seen.append((head["authorization"], body))
        if refuses:
            return await stream.send_head(*REFUSED, end=True)
        await stream.send_head(*OK)
        await stream.send(body)
        await stream.send_head(("grpc-status", "0"), ("sum-bin", "AAECAw"), end=True)

    async def echo_each(self, stream, head):
        self.seen.append((head["authorization"], None))
        await stream.send_head(*OK)
        while part := await stream.data():
            await stream.send(part)
        await stream.send_head(("grpc-status", "0"), end=True)


@pytest.fixture
async def gateway():
    gateway = Gateway()
    gateway.port = await http2.listen(gateway.handle)
    return gateway


@pytest.fixture
async def channel(gateway, start):
    daemon = await start(f'upstream = "http://127.0.0.1:{gateway.port}"\nhttp2 = true')
    options = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(daemon.address, options) as channel:
        channel.daemon = daemon
        yield channel


@pytest.mark.parametrize("refuses_at", ["end", "head"])
async def test_a_unary_call_is_replayed_with_its_message(channel, gateway, idp, refuses_at):
    gateway.refuses_at = refuses_at
    call = channel.unary_unary("/test/echo")(b"message")
    assert await call == b"message"
    assert dict(await call.trailing_metadata())["sum-bin"] == bytes(range(4))
    assert [token for token, _ in gateway.seen] == ["Bearer token-1", "Bearer token-2"]
    assert gateway.seen[-1][1] == framed(b"message")
    assert idp.tokens == 2
    assert channel.daemon.metric("bearerd_replays_total", "succeeded") == 1


async def test_a_stream_that_is_refused_at_its_beginning_is_replayed_and_goes_on(channel, gateway):
    gateway.refuses_at = "middle"
    call = channel.stream_stream("/test/each")()
    await call.write(b"first")
    assert await call.read() == b"first"
    for number in range(20):
        await call.write(b"%d" % number)
        assert await call.read() == b"%d" % number
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    assert [token for token, _ in gateway.seen] == ["Bearer token-1", "Bearer token-2"]


async def test_a_message_too_large_to_keep_is_not_sent_again(channel, gateway, idp):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/echo")(b"x" * 100_000)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(gateway.seen) == 1
    assert channel.daemon.metric("bearerd_replays_total", "body_too_large") == 1
    # The token is replaced all the same: the next call needs no replay.
    async with asyncio.timeout(DEADLINE):
        while idp.tokens < 2:
            await asyncio.sleep(0.01)
    assert await channel.unary_unary("/test/echo")(b"next") == b"next"


async def test_a_call_that_is_refused_twice_fails(channel, gateway):
    gateway.refusals = 2
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary("/test/echo")(b"message")
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(gateway.seen) == 2


async def test_100_calls_that_are_refused_at_once_cause_one_refresh(channel, gateway, idp):
    gateway.refusals = 100
    call = channel.unary_unary("/test/echo")
    messages = [b"%d" % number for number in range(100)]
    assert await asyncio.gather(*map(call, messages)) == messages
    assert idp.tokens == 2
    assert len(gateway.seen) == 200


async def test_a_status_of_grpc_is_an_answer_and_no_reason_to_replay(channel, start, idp):
    async def unauthenticated(stream):
        await stream.head()
        await stream.send_head(*OK, ("grpc-status", "16"), end=True)

    port = await http2.listen(unauthenticated)
    daemon = await start(f'upstream = "http://127.0.0.1:{port}"\nhttp2 = true')
    tokens = idp.tokens
    options = [("grpc.default_authority", "localhost")]
    async with grpc.aio.insecure_channel(daemon.address, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/test/echo")(b"")
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert idp.tokens == tokens
    assert daemon.metric("bearerd_replays_total") == 0
