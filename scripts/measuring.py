"""What the measurements share: a service of their own, with a database of its own, under load by `loadtest`."""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

# Else what was started here would go on.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

KEY = "ctx_key_of_the_measurement_0123456789"


def target_folder() -> Path:
    """Where cargo has put what it built here, in the profile that MEASURE_PROFILE names."""
    return Path(os.environ.get("CARGO_TARGET_DIR", "target")) / os.environ.get("MEASURE_PROFILE", "release")


def programs() -> dict:
    """The service and the load generator: named by CONTEXT_API_BIN and LOADTEST_BIN, or those that cargo built here."""
    return {
        "service": os.environ.get("CONTEXT_API_BIN", str(target_folder() / "context-api")),
        "loadtest": os.environ.get("LOADTEST_BIN", str(target_folder() / "loadtest")),
    }


def psql(database: str, command: str) -> str:
    asked = [f"{os.environ['TEST_PG_BIN']}/psql", "-XqAt", "-v", "ON_ERROR_STOP=1", database, "-c", command]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def new_database(name: str) -> str:
    """Makes one with the service's schema; its URL."""
    psql(os.environ["TEST_DATABASE_URL"], f"create database {name}")
    database = os.environ["TEST_DATABASE_URL"].rsplit("/", 1)[0] + "/" + name
    subprocess.run([programs()["service"], "migrate"], env=os.environ | {"DATABASE_URL": database}, check=True, stderr=subprocess.DEVNULL)
    return database


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def show(name: str, measured: dict) -> None:
    """A line; milliseconds."""
    print(f"{name:44s}{measured['rate']:10.0f}/s   p50 {measured['p50']:7.2f} ms   p99 {measured['p99']:7.2f} ms", flush=True)


def median(runs: list) -> dict:
    """Of each number that the runs have."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


class Server:
    """Something that answers HTTP."""

    def __init__(self, url: str, key: str = KEY):
        self.url = url
        self.key = key

    def load(self, scenario: str, *arguments: str) -> dict:
        """The report of `loadtest run`."""
        with tempfile.NamedTemporaryFile() as report:
            command = [programs()["loadtest"], "run", scenario, "--url", self.url, "--key", self.key, "--json", report.name, *arguments]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command[1:3])}: {done.stderr[-500:]}")
            return json.load(report)


class Service(Server):
    """A process of the service, until the end of a `with`."""

    def __init__(self, database: str, log: Path, **variables: str):
        self.key = KEY
        self.log = log
        self.variables = {
            "DATABASE_URL": database, "REDIS_URL": os.environ["TEST_REDIS_URL"], "BOOTSTRAP_API_KEY": KEY, "LOG_FORMAT": "json",
            "BIND_ADDR": "127.0.0.1:0", "METRICS_ADDR": "off",
        }
        # One that is built without its default features has no model of its own.
        if "EMBEDDING_SERVICE_URL" not in os.environ:
            self.variables |= {"EMBEDDING_PROVIDER": "builtin"}
        self.variables |= variables

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([programs()["service"], "serve"], env=os.environ | self.variables, stderr=log)
        for _ in range(300):
            found = re.search(r'"address":"([^"]+)"', self.log.read_text())
            if found:
                self.url = f"http://{found[1]}"
                return self
            time.sleep(0.1)
        raise SystemExit(f"the service did not start: {self.log.read_text()[-500:]}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)

    def store(self, contexts: str, *arguments: str) -> None:
        """Imports what `loadtest data` makes, and has the database do at once what it does by itself a minute later."""
        data = subprocess.Popen([programs()["loadtest"], "data", "--contexts", contexts, *arguments], stdout=subprocess.PIPE)
        imported = [programs()["service"], "import", "-", "--url", self.url]
        subprocess.run(imported, env=os.environ | {"CONTEXT_API_KEY": KEY}, stdin=data.stdout, check=True, stderr=subprocess.DEVNULL)
        data.wait()
        self.count_words()
        psql(self.variables["DATABASE_URL"], "vacuum (analyze)")

    def count_words(self) -> None:
        """Waits until its worker has added up the words of what was written: until then each search looks through what is not."""
        if (os.environ | self.variables).get("WORKER_INLINE") == "false":
            return
        for _ in range(1200):
            if psql(self.variables["DATABASE_URL"], "select exists (select from keyword_changes)") == "f":
                return
            time.sleep(0.1)
        raise SystemExit("the words of what was written were not counted within two minutes")

    def of_tenant(self, name: str) -> Server:
        """The same for a key of another tenant."""
        made = [programs()["service"], "keys", "create", "--name", "measurement", "--tenant", name]
        return Server(self.url, subprocess.run(made, env=os.environ | self.variables, check=True, capture_output=True, text=True).stdout.strip())

    def ask(self, method: str, path: str, body: dict | None = None, freshness: str = "no-cache") -> dict:
        """`freshness`: the request's `Cache-Control`."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Cache-Control": freshness}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def memory_mb(self) -> float:
        """What the process holds in memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) / 1024
