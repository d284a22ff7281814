"""WebSocket frame by frame, case by case as in the Autobahn test suite: whatever a client sends,
right or wrong, the server answers through bearerd byte for byte as it does directly.

The suite itself runs on Python 2 only."""

import asyncio
import struct
import zlib

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from bearerd import DEADLINE
from conftest import eventually

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x12\x34\x56\x78"
HANDSHAKE = (
    "GET /echo HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n")
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"


def frame(opcode, payload=b"", *, fin=True, reserved=0, masked=True):
    """RFC 6455 §5.2."""
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload)
    head = bytes([fin << 7 | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += struct.pack(">BH", bit | 126, length)
    else:
        head += struct.pack(">BQ", bit | 127, length)
    if not masked:
        return head + payload
    key = int.from_bytes((MASK * (length // 4 + 1))[:length], "big")
    return head + MASK + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big")


def deflated(text):
    """RFC 7692 §7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def close(code=1000, reason=""):
    return frame(CLOSE, struct.pack(">H", code) + reason.encode())


BYE = close()
UTF8 = "Hello-µ@ßöäüàá-UTF-8!! 本 🎉"


def cases():
    """Name and bytes; all end in a way that closes the connection."""
    sizes = [0, 1, 125, 126, 127, 128, 65535, 65536]
    for size in sizes:
        yield f"1.1 text of {size}", frame(TEXT, b"*" * size) + BYE
        yield f"1.2 binary of {size}", frame(BINARY, b"\xfe" * size) + BYE
    for size in [0, 1, 125]:
        yield f"2 ping of {size}", frame(PING, b"\xff" * size) + BYE
    yield "2.5 ping of 126", frame(PING, b"\xff" * 126)
    yield "2.7 pongs unasked", frame(PONG) + frame(PONG, "x") + frame(PING, "p") + BYE
    yield "2.10 ten pings", b"".join(frame(PING, f"ping {n}") for n in range(10)) + BYE
    for reserved in range(1, 8):
        yield f"3 reserved bits {reserved}", frame(TEXT, "ok") + frame(TEXT, "x", reserved=reserved)
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]:
        yield f"4 opcode {opcode}", frame(TEXT, "ok") + frame(opcode, "x")
    yield "5.1 ping in fragments", frame(PING, "a", fin=False) + frame(CONT, "b")
    yield "5.2 pong in fragments", frame(PONG, "a", fin=False) + frame(CONT, "b")
    yield "5.3 two fragments", frame(TEXT, "a", fin=False) + frame(CONT, "b") + BYE
    yield ("5.6 a ping between fragments",
           frame(TEXT, "a", fin=False) + frame(PING, "p") + frame(CONT, "b") + BYE)
    yield "5.9 nothing to continue", frame(CONT, "x") + frame(TEXT, "y")
    yield "5.12 nothing to continue, not final", frame(CONT, "x", fin=False) + frame(TEXT, "y")
    yield "5.18 a message within another", frame(TEXT, "a", fin=False) + frame(TEXT, "b")
    yield ("5.19 many fragments and pings",
           frame(TEXT, "0", fin=False)
           + b"".join(frame(CONT, str(n), fin=False) + frame(PING, str(n)) for n in range(50))
           + frame(CONT, "end") + BYE)
    yield "6.1 empty fragments", frame(TEXT, fin=False) + frame(CONT, fin=False) + frame(CONT) + BYE
    yield "6.2 UTF-8", frame(TEXT, UTF8) + BYE
    octets = UTF8.encode()
    yield ("6.2.4 UTF-8, one octet a frame",
           frame(TEXT, octets[:1], fin=False)
           + b"".join(frame(CONT, octets[n:n + 1], fin=False) for n in range(1, len(octets)))
           + frame(CONT) + BYE)
    invalid = [b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\xf4\x90\x80\x80",
               b"\x80", b"\xc0\xaf", b"\xed\xbf\xbf", b"\xfe", b"\xf8\x88\x80\x80\x80"]
    for number, octets in enumerate(invalid):
        yield f"6.3 invalid UTF-8 {number}", frame(TEXT, octets)
        yield (f"6.4 invalid UTF-8 {number} in fragments",
               frame(TEXT, octets[:1], fin=False) + frame(CONT, octets[1:]))
    yield "7.1 two messages, then close", frame(TEXT, "a") + frame(TEXT, "b") + BYE
    yield "7.1.5 close within a message", frame(TEXT, "a", fin=False) + BYE
    yield "7.3.1 close without a code", frame(CLOSE)
    yield "7.3.2 close with half a code", frame(CLOSE, b"\x03")
    yield "7.3.5 the longest reason", close(1000, "*" * 123)
    yield "7.3.6 too long a reason", close(1000, "*" * 124)
    yield "7.5 a reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]:
        yield f"7.7 close {code}", close(code)
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535]:
        yield f"7.9 no code {code}", close(code)
    for size in [1 << 16, 1 << 20, 4 << 20]:
        yield f"9.1 text of {size}", frame(TEXT, b"*" * size) + BYE
        pieces = [b"*" * 4096] * (size // 4096)
        yield (f"9.3 text of {size} in fragments of 4096",
               frame(TEXT, fin=False) + b"".join(frame(CONT, piece, fin=False) for piece in pieces)
               + frame(CONT) + BYE)
    yield "9.7 a thousand messages", b"".join(frame(TEXT, str(n)) for n in range(1000)) + BYE
    yield "unmasked", frame(TEXT, "x", masked=False)


def compressed_cases():
    for size in [0, 16, 1024, 65536, 1 << 20]:
        text = b"bearerd " * (size // 8)
        yield f"12.1 {size}", frame(TEXT, deflated(text), reserved=4) + BYE
        yield f"12.2 {size}, not compressed", frame(TEXT, text) + BYE
    halves = deflated(b"in fragments " * 1000)
    yield ("12.3 in fragments", frame(TEXT, halves[:10], fin=False, reserved=4)
           + frame(CONT, halves[10:]) + BYE)
    yield "12.4 no deflate", frame(TEXT, b"\xff\xff\xff", reserved=4)
    yield "12.5 compressed ping", frame(PING, deflated(b"x"), reserved=4)


@pytest.fixture
async def server():
    """Echoes with the protocol of `websockets`, frame by frame, so that the order of what it says
    does not depend on how the bytes come."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0, limit=1 << 24)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def echo(reader, writer):
    protocol = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()], max_size=None)
    try:
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        protocol.send_response(protocol.accept(protocol.events_received()[0]))
        while say(protocol, writer):
            await writer.drain()
            protocol.receive_data(await one_frame(reader))
            for event in protocol.events_received():
                if event.opcode in (TEXT, BINARY):
                    message, is_text = bytearray(), event.opcode == TEXT
                if event.opcode in (CONT, TEXT, BINARY):
                    message += event.data
                    answer(protocol, event, bytes(message) if is_text and event.fin else b"")
        await everything(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def answer(protocol, event, text):
    """Echoes the frame `event`, unless the whole message is no `text`."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return protocol.fail(1007)
    kind = {CONT: "continuation", TEXT: "text", BINARY: "binary"}[event.opcode]
    return getattr(protocol, f"send_{kind}")(bytes(event.data), event.fin)


def say(protocol, writer):
    """Says what is to be said; false if that was the last."""
    for data in protocol.data_to_send():
        if not data:
            writer.write_eof()
            return False
        writer.write(data)
    return True


async def one_frame(reader):
    """RFC 6455 §5.2."""
    head = await reader.readexactly(2)
    length = head[1] & 0x7F
    if length >= 126:
        head += await reader.readexactly(2 if length == 126 else 8)
        length = int.from_bytes(head[2:], "big")
    return head + await reader.readexactly(length + (4 if head[1] & 0x80 else 0))


async def said(port, sent, pieces, more=""):
    """Everything that comes back for `sent`, which goes out in `pieces`, but for the handshake."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE.format(host=f"127.0.0.1:{port}", more=more).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

        async def send():
            try:
                for piece in pieces(sent):
                    writer.write(piece)
                    await writer.drain()
            except ConnectionError:
                pass  # it was told that it is wrong before it had said all

        _, came = await asyncio.gather(send(), everything(reader))
        writer.close()
        return came


async def everything(reader):
    came = bytearray()
    try:
        while part := await reader.read(1 << 16):
            came += part
    except ConnectionError:
        pass
    return bytes(came)


def at_once(data):
    return [data]


def chopped(data):
    """Frames end anywhere but at a write's end."""
    size = max(1, min(977, len(data) // 3))
    return [data[start:start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("pieces", [at_once, chopped])
async def test_frames_pass_unchanged(server, start, pieces):
    daemon = await start(f'upstream = "http://127.0.0.1:{server}"')
    wrong = []
    for more, all_cases in [("", cases()), (DEFLATE, compressed_cases())]:
        for name, sent in all_cases:
            directly = await said(server, sent, pieces, more)
            through = await said(daemon.port, sent, pieces, more)
            assert directly, f"{name}: the server says nothing"
            if through != directly:
                wrong.append((name, directly[-60:], through[-60:]))
    assert not wrong
    await eventually("over", lambda: daemon.metric("bearerd_requests_in_flight") == 0)
