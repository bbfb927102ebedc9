"""The stack under test: its own settings, secrets and ports, driven through compose/stack as an operator would."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

COMPOSE = Path(__file__).resolve().parent.parent
COMMAND_SECONDS_MAX = 600
REQUEST_SECONDS_MAX = 40


class Failed(Exception):
    """Something that was promised is not so."""


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, seconds: float, what: str, every: float = 0.2):
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(every)
    raise Failed(f"{what}: not within {seconds:.0f} s")


class Answer:
    def __init__(self, status: int, headers: dict, body: bytes):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Client:
    """One connection to the proxy, over TLS; not for several threads at once."""

    def __init__(self, stack: "Stack"):
        self.stack, self.connection = stack, None

    def ask(self, method: str, path: str, body=None, headers=None) -> Answer:
        if self.connection is None:
            self.connection = HTTPSConnection("localhost", self.stack.https_port, context=self.stack.tls, timeout=REQUEST_SECONDS_MAX)
        sent = {"Authorization": f"Bearer {self.stack.key}", "Content-Type": "application/json"} | (headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        try:
            self.connection.request(method, path, body, sent)
            response = self.connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except (OSError, HTTPException):
            self.close()
            raise

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Stack:
    def __init__(self, environment: str = "prod", project: str = "context-api-test", overlays: str = ""):
        self.name, self.project = environment, project
        self.folder = Path(tempfile.mkdtemp(prefix="context-api-stack."))
        self.settings = self.folder / "settings"
        self.http_port, self.https_port, self.prometheus_port = free_port(), free_port(), free_port()
        self.key, self.tls = "", None
        # Of the machine, because whoever tries it may have settings of their own in their environment.
        self.environment = os.environ | {
            "COMPOSE_PROJECT_NAME": project,
            "OVERLAYS": overlays,
            "STACK_SETTINGS": str(self.settings),
            "SECRETS_FOLDER": str(self.folder / "secrets"),
            "UP_SECONDS_MAX": "300",
            "ROLLOUT_SECONDS_MAX": "40",
        }
        self.settings.write_text(
            f"PUBLISH_ADDRESS=127.0.0.1\nHTTP_PORT={self.http_port}\nHTTPS_PORT={self.https_port}\nVERSION=test-1\n"
            # So that it fits beside what else the machine does.
            f"API_REPLICAS=2\nDB_MEMORY=1G\nDB_SHARED_BUFFERS=256MB\nDB_CACHE_SIZE=512MB\nPROMETHEUS_PORT={self.prometheus_port}\n"
            # A look at what is stored every ten seconds, so that a trial need not wait for the night.
            "BACKUP_VERIFY_SCHEDULE=*/10 * * * * *\n"
        )

    # --- the wrapper and docker ------------------------------------------------------------------------------------

    def command(self, *arguments: str, check: bool = True, seconds: float = COMMAND_SECONDS_MAX) -> subprocess.CompletedProcess:
        """compose/stack, as an operator uses it."""
        return self.run([str(COMPOSE / "stack"), self.name, *arguments], check, seconds)

    def docker(self, *arguments: str, check: bool = True, seconds: float = COMMAND_SECONDS_MAX) -> str:
        return self.run(["docker", *arguments], check, seconds).stdout.strip()

    def run(self, command: list, check: bool, seconds: float) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
        )
        if check and done.returncode:
            words = (done.stdout + done.stderr)[-2000:]
            raise Failed(f"{' '.join(command[:6])} ended with {done.returncode}: {words}")
        return done

    def containers(self, service: str, running: bool = True) -> list:
        """Their ids."""
        more = [] if running else ["--all"]
        return self.docker(
            "ps", *more, "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}", "--filter", "label=com.docker.compose.oneoff=False",
        ).split()

    def inspect(self, container: str) -> dict:
        return json.loads(self.docker("inspect", container))[0]

    def healthy(self, service: str) -> bool:
        states = [self.inspect(container)["State"] for container in self.containers(service)]
        return bool(states) and all(state.get("Health", {"Status": "healthy"})["Status"] == "healthy" for state in states)

    def content(self, container: str) -> bool:
        """Whether its own health check is, asked now instead of when the engine gets round to it."""
        kind, *check = self.inspect(container)["Config"]["Healthcheck"]["Test"]
        command = ["sh", "-c", *check] if kind == "CMD-SHELL" else check
        return self.run(["docker", "exec", container, *command], False, 30).returncode == 0

    def kill(self, container: str) -> None:
        """As a crash would: the engine has not been asked for it, and does what the restart policy says."""
        os.kill(self.inspect(container)["State"]["Pid"], signal.SIGKILL)

    def sql(self, statement: str, database: str = "context") -> str:
        (container,) = self.containers("db")
        return self.docker("exec", container, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", statement)

    # --- the way in ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Trusts the proxy's own authority from now on."""
        self.key = (self.folder / "secrets" / "bootstrap_api_key").read_text().strip()
        (proxy,) = self.containers("proxy")
        authority = self.docker("exec", proxy, "cat", "/data/caddy/pki/authorities/local/root.crt")
        self.tls = ssl.create_default_context(cadata=authority)

    def ask(self, method: str, path: str, body=None, headers=None, expected: int | None = None) -> Answer:
        client = Client(self)
        try:
            answer = client.ask(method, path, body, headers)
        finally:
            client.close()
        if expected is not None and answer.status != expected:
            raise Failed(f"{method} {path} answered {answer.status} instead of {expected}: {answer.body[:300]!r}")
        return answer

    def last_words(self) -> str:
        """Of everything, for whoever has to find out why something has failed."""
        return self.command("compose", "ps", "--all", check=False).stdout + self.command("logs", "--no-color", "--tail", "12", check=False).stdout

    # --- the end ---------------------------------------------------------------------------------------------------

    def remove(self) -> None:
        # With all that any trial has added.
        self.environment = self.environment | {"OVERLAYS": " ".join({*self.environment.get("OVERLAYS", "").split(), "observability"})}
        self.command("down", "--volumes", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
