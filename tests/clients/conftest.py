"""What the tests share: an identity provider, the program, certificates."""

import asyncio

import pytest
import trustme
from aiohttp import web

from bearerd import DEADLINE, Bearerd


class IdentityProvider:
    """Gives out `token-1`, `token-2`, … and counts them."""

    def __init__(self, lifetime):
        self.lifetime = lifetime
        self.tokens = 0

    @property
    def token(self):
        return f"token-{self.tokens}"

    async def answer(self, _request):
        self.tokens += 1
        return web.json_response({"access_token": self.token, "token_type": "Bearer",
                                  "expires_in": self.lifetime})


async def eventually(what, holds):
    """Waits until `holds()`."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not in time: {what}", pytrace=False)


@pytest.fixture
async def serve():
    """Starts an aiohttp application on loopback; its port."""
    runners = []

    async def serve(application, ssl=None):
        runner = web.AppRunner(application, shutdown_timeout=1, handler_cancellation=True)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl)
        await site.start()
        return runner.addresses[0][1]

    yield serve
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def idp(serve):
    idp = IdentityProvider(lifetime=300)
    application = web.Application()
    application.router.add_post("/token", idp.answer)
    idp.url = f"http://127.0.0.1:{await serve(application)}/token"
    return idp


@pytest.fixture
async def start(idp, tmp_path_factory):
    """Starts bearerd with the lines of a route."""
    running = []

    async def start(route, **more):
        home = tmp_path_factory.mktemp("bearerd")
        daemon = await asyncio.to_thread(Bearerd, home, idp.url, route, **more)
        running.append(daemon)
        return daemon

    yield start
    for daemon in running:
        await asyncio.to_thread(daemon.stop)


@pytest.fixture(scope="session")
def authority():
    """An authority for certificates."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def identity(authority, tmp_path_factory):
    """Chain and key of 127.0.0.1, as files."""
    home = tmp_path_factory.mktemp("identity")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    chain, key = home / "chain.pem", home / "key.pem"
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(chain, append=number > 0)
    issued.private_key_pem.write_to_path(key)
    return chain, key
