"""A second authorization server (glewlwyd, from Debian) on loopback, for the end-to-end tests.

    python3 server.py [--life SECONDS]

It makes a database of its own from the package's schema, starts glewlwyd on a free port, and sets it
up through its administration API: refresh tokens are good once, token types are spelled `bearer`,
refusals come as 403 and 400 with empty bodies.

Prints one line of JSON on stdout once tokens are to be had: addresses, client, user and a first
refresh token. Everything else goes to stderr. It ends when its stdin closes, so that a test that dies
leaves nothing behind.
"""

import argparse
import base64
import http.client
import json
import pathlib
import secrets
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse

SCHEMA = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3"
MODULES = "/usr/lib/glewlwyd"
CLIENT = ("orders", "orders/se+cret=")
USER = ("alice", "pass word&1")
SCOPE = "orders"

CONFIG = """
port={port}
bind_address="127.0.0.1"
external_url="http://127.0.0.1:{port}/"
api_prefix="api"
log_mode="file"
log_level="WARNING"
log_file="{home}/log"
cookie_secure=0
session_key="SESSION"
admin_session_authentication="cookie"
profile_session_authentication="cookie"
login_api_enabled=true
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="{modules}/user"
client_module_path="{modules}/client"
user_auth_scheme_module_path="{modules}/scheme"
plugin_module_path="{modules}/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3" path = "{home}/db" }};
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(home, port):
    """Starts the server on `port`; None if somebody else took the port meanwhile."""
    database = sqlite3.connect(home / "db")
    database.executescript(pathlib.Path(SCHEMA).read_text())
    database.close()
    (home / "conf").write_text(CONFIG.format(port=port, home=home, modules=MODULES))
    server = subprocess.Popen(
        ["glewlwyd", f"--config-file={home}/conf"], stdout=sys.stderr, stdin=subprocess.DEVNULL
    )
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server
        except OSError:
            time.sleep(0.05)
    return None


class Api:
    """The administration API, signed in."""

    def __init__(self, port):
        self.port = port
        self.cookie = ""
        _, headers, _ = self.call("POST", "/api/auth", {"username": "admin", "password": "password"})
        self.cookie = headers["Set-Cookie"].split(";")[0]

    def call(self, method, path, body=None, form=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Cookie": self.cookie, **dict(headers)}
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body), "application/json"
        if form is not None:
            data = urllib.parse.urlencode(form)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {text!r}")
        return answer.status, answer.headers, text

    def set_up(self, life):
        self.call("POST", "/api/scope/", {
            "name": SCOPE, "display_name": SCOPE, "password_required": True,
            "password_max_age": 0, "scheme": {},
        })
        name, password = USER
        self.call("POST", "/api/user/", {
            "username": name, "password": password, "enabled": True, "scope": [SCOPE],
        })
        name, secret = CLIENT
        self.call("POST", "/api/client/", {
            "client_id": name, "password": secret, "client_secret": secret, "confidential": True,
            "enabled": True, "scope": [SCOPE], "redirect_uri": ["http://127.0.0.1/callback"],
            "authorization_type": ["password", "client_credentials", "refresh_token", "code"],
            "token_endpoint_auth_method": ["client_secret_basic"],
        })
        self.call("POST", "/api/mod/plugin/", {
            "module": "oidc", "name": "oidc", "display_name": "oidc", "enabled": True,
            "parameters": {
                "iss": f"http://127.0.0.1:{self.port}/api/oidc",
                "jwt-type": "sha", "jwt-key-size": "256", "key": secrets.token_hex(32),
                "access-token-duration": life, "refresh-token-duration": 86400,
                "code-duration": 60, "refresh-token-rolling": False,
                "refresh-token-one-use": "always",
                "allow-non-oidc": True,
                "auth-type-code-enabled": True, "auth-type-token-enabled": False,
                "auth-type-password-enabled": True, "auth-type-client-enabled": True,
                "auth-type-refresh-enabled": True, "auth-type-implicit-enabled": False,
                "introspection-revocation-allowed": True,
                "introspection-revocation-allow-target-client": True,
                "pkce-allowed": False,
            },
        })

    def basic(self):
        pair = ":".join(CLIENT).encode()
        return {"Authorization": "Basic " + base64.b64encode(pair).decode()}.items()

    def first_refresh_token(self):
        name, password = USER
        form = {"grant_type": "password", "username": name, "password": password, "scope": SCOPE}
        _, _, text = self.call("POST", "/api/oidc/token", form=form, headers=self.basic())
        return json.loads(text)["refresh_token"]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--life", type=int, default=5)
    life = arguments.parse_args().life
    with tempfile.TemporaryDirectory() as directory:
        home, server = pathlib.Path(directory), None
        while server is None:
            (home / "db").unlink(missing_ok=True)
            port = free_port()
            server = start(home, port)
        try:
            api = Api(port)
            api.set_up(life)
            issuer = f"http://127.0.0.1:{port}/api/oidc"
            print(json.dumps({
                "token_url": f"{issuer}/token",
                "introspection_url": f"{issuer}/introspect",
                "revocation_url": f"{issuer}/revoke",
                "issuer": issuer,
                "client_id": CLIENT[0], "client_secret": CLIENT[1],
                "username": USER[0], "password": USER[1], "scope": SCOPE,
                "refresh_token": api.first_refresh_token(),
            }), flush=True)
            sys.stdin.read()
        finally:
            server.terminate()
            server.wait()


main()
