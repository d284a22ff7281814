"""An identity provider, an API and a name server for one pod, on the pod's own loopback.

Reads commands as JSON lines from stdin and answers each with one JSON line:

    {"secrets": ["s1", "s2"]}    client secrets that are accepted from now on
    {"admit": {"token": 60}}     a token that the API takes for so many seconds
    {}                           nothing: the answer says what has happened so far
"""

import asyncio
import base64
import json
import os
import secrets
import socket
import struct
import sys
import time
from urllib.parse import parse_qs

IDP, API, DNS = 9000, 9001, 53
LIFETIME = 3  # of an access token, in seconds


class World:
    def __init__(self):
        self.secrets = ["first"]
        self.refresh_token = "bootstrap"
        self.spent = set()
        self.tokens = {}
        self.count = {"tokens": 0, "ok": 0, "unauthorized": 0, "refused": 0, "reused": 0,
                      "names": 0, "by_secret": {}, "last_token": None}

    def token(self, headers, body):
        """RFC 6749: client_credentials, and refresh_token with rotation and reuse detection."""
        form = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        _, _, secret = base64.b64decode(credentials).decode().partition(":")
        if scheme.lower() != "basic" or secret not in self.secrets:
            self.count["refused"] += 1
            return 401, {"error": "invalid_client"}
        by_secret = self.count["by_secret"]
        by_secret[secret] = by_secret.get(secret, 0) + 1
        answer = {"token_type": "Bearer", "expires_in": LIFETIME}
        if form["grant_type"] == "refresh_token":
            given = form["refresh_token"]
            if given != self.refresh_token:
                self.count["reused"] += given in self.spent
                self.count["refused"] += 1
                return 400, {"error": "invalid_grant"}
            self.spent.add(given)
            self.refresh_token = answer["refresh_token"] = secrets.token_urlsafe(24)
        answer["access_token"] = secrets.token_urlsafe(600)
        self.tokens[answer["access_token"]] = time.monotonic() + LIFETIME
        self.count["tokens"] += 1
        return 200, answer

    def api(self, headers, _body):
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0.0) < time.monotonic():
            self.count["unauthorized"] += 1
            return 401, {"error": "no token, or an expired one"}
        self.count["ok"] += 1
        self.count["last_token"] = token
        return 200, {"orders": []}

    def command(self, command):
        self.secrets = command.get("secrets", self.secrets)
        for token, seconds in command.get("admit", {}).items():
            self.tokens[token] = time.monotonic() + seconds
        return self.count


async def serve(answer, reader, writer):
    """HTTP/1.1 with keep-alive, as much of it as bearerd speaks to a server."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            lines = head.decode("latin-1").split("\r\n")[1:]
            pairs = (line.partition(":") for line in lines if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            status, content = answer(headers, body)
            content = json.dumps(content).encode()
            challenge = "WWW-Authenticate: Bearer\r\n" if status == 401 else ""
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{challenge}"
                f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class Names(asyncio.DatagramProtocol):
    """RFC 1035: every name is 127.0.0.1, and has no IPv6 address."""

    def __init__(self, world):
        self.world = world

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, peer):
        end = data.index(0, 12) + 5
        wanted, = struct.unpack(">H", data[end - 4:end - 2])
        self.world.count["names"] += 1
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, int(wanted == 1), 0, 0)
        record = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
        answer = head + data[12:end] + (record if wanted == 1 else b"")
        self.transport.sendto(answer, peer)


async def main():
    world, loop = World(), asyncio.get_running_loop()
    for port, answer in [(IDP, world.token), (API, world.api)]:
        await asyncio.start_server(
            lambda reader, writer, answer=answer: serve(answer, reader, writer),
            "127.0.0.1", port, backlog=1024)
    await loop.create_datagram_endpoint(lambda: Names(world), local_addr=("127.0.0.1", DNS))
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(world.command(json.loads(line))), flush=True)
    # Connections are not awaited: they end with the process.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
