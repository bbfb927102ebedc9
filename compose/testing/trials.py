"""What is promised of the stack, one trial each. Each raises `Failed`, or returns what it has seen."""

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection

from load import USER, Load
from stack import COMPOSE, Stack, expect, wait_until

EXAMPLES = COMPOSE.parent / "examples" / "packages.ndjson"
SERVICES = ("proxy", "context-api", "worker", "db", "redis", "embeddings", "backup", "pitr")
RATE = 40
MIB = 1024 * 1024


# --- start --------------------------------------------------------------------------------------------------------------


def start(stack: Stack) -> str:
    """From nothing to healthy, by one command"""
    refused = stack.command("up", check=False)
    expect(refused.returncode != 0 and "secrets are missing" in refused.stderr, f"without secrets: {refused.stderr}")
    expect(not stack.containers("db", running=False), "something was started without secrets")
    stack.command("secrets")
    began = time.monotonic()
    stack.command("up")
    seconds = time.monotonic() - began
    stack.connect()
    health = stack.ask("GET", "/health", expected=200).json
    expect(health["status"] == "ok", f"/health says {health}")
    expect(all(stack.healthy(name) for name in SERVICES), "something is not healthy")
    return f"{seconds:.0f} s without images to build; no start without secrets"


def isolation(stack: Stack) -> str:
    """Nothing but the proxy can be reached, and nothing internal through it"""
    published = {}
    for service in SERVICES:
        for container in stack.containers(service):
            ports = stack.inspect(container)["NetworkSettings"]["Ports"] or {}
            published[service] = [to["HostPort"] for bound in ports.values() for to in bound or []]
    expect(sorted(published.pop("proxy")) == sorted(map(str, (stack.http_port, stack.https_port))), "the proxy's ports are others")
    expect(not any(published.values()), f"ports are published: {published}")
    # From the host by address, and from the front by name and by address.
    for service, port in (("db", 5432), ("redis", 6379)):
        (container,) = stack.containers(service)
        (address,) = [network["IPAddress"] for network in stack.inspect(container)["NetworkSettings"]["Networks"].values()]
        expect(not reaches(stack, [], address, port), f"the host reaches {service}")
        front = ["--network", f"{stack.project}_frontend"]
        expect(not reaches(stack, front, service, port), f"the front network knows {service}")
        expect(not reaches(stack, front, address, port), f"the front network reaches {service}")
        # That the question can be answered with yes.
        expect(reaches(stack, ["--network", f"{stack.project}_backend"], service, port), f"nobody reaches {service}, not even inside")
    for path in ("/metrics", "/metrics/x"):
        stack.ask("GET", path, expected=404)
    for service in SERVICES:
        confined(stack.inspect(stack.containers(service)[0]), service)
    return "db and redis: not from the host, not from the front; /metrics: 404; read-only, no capabilities, limits everywhere"


# What a client says first, as bash's printf has it (may I use TLS; are you there), and how the server's answer begins.
FIRST_WORDS = {5432: (r"\0\0\0\x08\x04\xd2\x16\x2f", "[NS]$"), 6379: (r"PING\r\n", "-NOAUTH")}


def reaches(stack: Stack, network: list, host: str, port: int) -> bool:
    """Whether the server itself answers: a gateway may open a connection for any address, and say something, too."""
    image = stack.inspect(stack.containers("db")[0])["Image"]
    words, answer = FIRST_WORDS[port]
    script = f"exec 3<>/dev/tcp/{host}/{port} && printf '{words}' >&3 && timeout 1 dd bs=7 count=1 <&3 2>/dev/null | grep -qa '^{answer}'"
    command = ["docker", "run", "--rm", *(network or ["--network", "host"]), "--entrypoint", "timeout", image, "3", "bash", "-c", script]
    return stack.run(command, check=False, seconds=30).returncode == 0


def confined(container: dict, service: str) -> None:
    host = container["HostConfig"]
    expect(host["ReadonlyRootfs"], f"{service} can write to its root")
    expect(host["CapDrop"] == ["ALL"], f"{service} has capabilities")
    expect("no-new-privileges:true" in host["SecurityOpt"], f"{service} may gain privileges")
    expect(host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0, f"{service} has no limits")
    expect(host["LogConfig"]["Config"].get("max-size") == "10m", f"{service} may fill the disk with its log")
    expect(host["RestartPolicy"]["Name"] == "unless-stopped", f"{service} stays down after a crash")


# --- use ----------------------------------------------------------------------------------------------------------------


def tour(stack: Stack) -> str:
    """The README's tour, through the proxy over TLS"""
    redirect = stack.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", f"http://localhost:{stack.http_port}/health"], True, 20)
    expect(redirect.stdout == f"308 https://localhost:{stack.https_port}/health", f"HTTP is answered {redirect.stdout}")
    lines = EXAMPLES.read_bytes()
    began = time.monotonic()
    report = stack.ask("POST", "/v1/contexts/import", lines, {"Content-Type": "application/x-ndjson"}, 200).json
    expect(report["created"] == 2000 and report["failed"] == 0, f"the import says {report}")
    stored = time.monotonic() - began
    wait_until(lambda: stack.ask("GET", "/v1/usage", expected=200).json["embedding"]["pending"] == 0, 180, "the embeddings", 1)
    embedded = time.monotonic() - began
    expect(keys(stack, {"query": "play chess against the computer", "mode": "semantic", "limit": 4})[0] == "gnome-chess", "chess is not found")
    expect("stellarium" in keys(stack, {"query": "I want to look at the stars at night", "mode": "semantic", "limit": 2}), "no stars")
    expect(keys(stack, {"query": "libmathicgb-dev", "limit": 3})[0] == "libmathicgb-dev", "a rare name is not found")
    pack = stack.ask("POST", "/v1/contexts/pack", {"query": "play chess against the computer", "budget": {"max_tokens": 300}}, expected=200).json
    expect(0 < pack["tokens"] <= 300, f"the pack has {pack['tokens']} tokens")
    note = {"user_id": USER, "context_type": "note", "content": {"text": "The chess club meets on Tuesday evening."}}
    id = stack.ask("POST", "/v1/contexts", note, expected=201).json["id"]
    stack.ask("PATCH", f"/v1/contexts/{id}", {"metadata": {"favourite": True}}, expected=200)
    expect(len(stack.ask("GET", f"/v1/contexts/{id}/versions", expected=200).json["data"]) == 1, "the history is wrong")
    expect(stack.ask("POST", "/v1/contexts/count", {"filter": {"metadata.favourite": True}}, expected=200).json == {"count": 1}, "the count is wrong")
    stack.ask("DELETE", f"/v1/contexts/{id}", expected=204)
    problem = stack.ask("GET", f"/v1/contexts/{id}", expected=404)
    expect(problem.json["code"] == "context_not_found", f"the error is {problem.json}")
    headers = {name.lower() for name in problem.headers}
    expect({"strict-transport-security", "x-content-type-options"} <= headers, "security headers are missing")
    expect(status_of_long_body(stack) == 413, "a body of 5 MiB is not refused")
    expect(stack.ask("GET", "/health", headers={"X-Long": "x" * 40_000}).status == 431, "a header of 40 kB is not refused")
    return f"2,000 contexts stored in {stored:.0f} s, embedded in {embedded:.0f} s"


def status_of_long_body(stack: Stack) -> int:
    """Of one of 5 MiB of which just more is sent than is read: what nobody reads could break the connection before the answer."""
    connection = HTTPSConnection("localhost", stack.https_port, context=stack.tls, timeout=20)
    connection.putrequest("POST", "/v1/contexts")
    for name, value in (("Authorization", f"Bearer {stack.key}"), ("Content-Type", "application/json"), ("Content-Length", str(5 * MIB))):
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(b"x" * 4_050_000)
    status = connection.getresponse().status
    connection.close()
    return status


def keys(stack: Stack, search: dict) -> list:
    return [hit["context"]["key"] for hit in stack.ask("POST", "/v1/contexts/search", search, expected=200).json["data"]]


def migrations(stack: Stack) -> str:
    """8 migrate containers at once on an empty database"""
    (db,) = stack.containers("db")
    stack.docker("exec", db, "createdb", "-U", "postgres", "trial")
    stack.docker("exec", db, "bash", "-c", "for file in /init-db/*.sql; do psql -Xq -v ON_ERROR_STOP=1 -U postgres -d trial -f $file; done")
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: stack.command("compose", "run", "--rm", "--no-deps", "-e", "DB_NAME=trial", "migrate", check=False), range(8)))
    expect(all(run.returncode == 0 for run in runs), f"they ended with {[run.returncode for run in runs]}: {runs[0].stderr[-500:]}")
    applied = [run.stdout for run in runs if "Applied" in run.stdout]
    expect(len(applied) == 1, f"{len(applied)} of them have applied something: {applied}")
    check = stack.command("compose", "run", "--rm", "--no-deps", "-e", "DB_NAME=trial", "migrate", "migrate", "--check")
    expect("up to date" in check.stdout, f"the schema is not this version's: {check.stdout}")
    # Work that was done twice would have failed, or be written down twice.
    done = stack.sql("select count(*), count(distinct version), bool_and(success) from _sqlx_migrations", "trial").split("|")
    expect(done[0] == done[1] and done[2] == "t", f"what was done is written down as {done}")
    stack.docker("exec", db, "dropdb", "-U", "postgres", "trial")
    return f"one did all {done[0]} migrations, and all 8 ended with 0"


# --- change -------------------------------------------------------------------------------------------------------------


def stop(stack: Stack) -> str:
    """A stop of the API lets a request under way finish, and ends with 0"""
    stack.command("scale", "1")
    (container,) = stack.containers("context-api")
    try:
        return stop_while_asked(stack, container)
    finally:
        # The trials after this one need it.
        stack.docker("start", container)
        stack.command("scale", "2")


def stop_while_asked(stack: Stack, container: str) -> str:
    connection = HTTPSConnection("localhost", stack.https_port, context=stack.tls, timeout=60)
    connection.putrequest("POST", "/v1/contexts/import")
    for name, value in (("Authorization", f"Bearer {stack.key}"), ("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked")):
        connection.putheader(name, value)
    connection.endheaders()
    stopping = threading.Thread(target=stack.docker, args=("stop", container))
    for number in range(16):
        line = json.dumps({"user_id": USER, "context_type": "slow", "key": f"{number}", "content": "A line of a slow import."}).encode() + b"\n"
        connection.send(b"%x\r\n%s\r\n" % (len(line), line))
        if number == 4:
            began = time.monotonic()
            stopping.start()
        time.sleep(0.5)
    connection.send(b"0\r\n\r\n")
    response = connection.getresponse()
    report = json.loads(response.read())
    stopping.join(90)
    seconds = time.monotonic() - began
    state = stack.inspect(container)["State"]
    expect(response.status == 200 and report["created"] == 16, f"the import was answered {response.status} {report}")
    expect(state["ExitCode"] == 0, f"it ended with {state['ExitCode']}")
    expect(5 < seconds < 40, f"it took {seconds:.0f} s, and the import 6 s")
    return f"an import that went on for 6 s more got its answer, exit code 0 after {seconds:.0f} s"


def rollout(stack: Stack) -> str:
    """A rollout under load loses no request"""
    before = set(stack.containers("context-api"))
    with Load(stack, RATE) as load:
        time.sleep(3)
        began = time.monotonic()
        stack.command("rollout", "test-2")
        seconds = time.monotonic() - began
        time.sleep(3)
    after = stack.containers("context-api")
    expect(len(after) == 2 and not before & set(after), "the replicas are the old ones")
    images = {stack.inspect(container)["Config"]["Image"] for container in (*after, *stack.containers("worker"))}
    expect(images == {"context-api:test-2"}, f"they run {images}")
    expect(not load.failures(), f"requests were lost: {load.summary()}")
    expect(not load.missing(), "acknowledged writes are missing")
    return f"{seconds:.0f} s; {load.summary()}"


def bad_rollout(stack: Stack) -> str:
    """A rollout of a broken image loses no request, and the old version stays"""
    before, words = set(stack.containers("context-api")), []
    for version in ("test-missing", "test-broken"):
        with Load(stack, RATE) as load:
            time.sleep(2)
            began = time.monotonic()
            done = stack.command("rollout", version, check=False)
            seconds = time.monotonic() - began
            time.sleep(2)
        expect(done.returncode != 0, f"the rollout of {version} ended well")
        expect(set(stack.containers("context-api", running=False)) == before, f"after {version} the replicas are others")
        expect(not load.failures(), f"{version}: requests were lost: {load.summary()}")
        words.append(f"{version}: {seconds:.0f} s; {load.summary()}")
    expect("removed again" in done.stderr, f"the last one was not started beside: {done.stderr[-300:]}")
    version = stack.settings.read_text()
    expect("VERSION=test-2" in version, "the version in .env was changed")
    return "\n".join(words)


# --- bad luck -----------------------------------------------------------------------------------------------------------

# What may fail while a container is killed: nothing where there is another one or it can be done without.
ALLOWED = {
    "context-api": lambda outcome: False,
    "worker": lambda outcome: False,
    "redis": lambda outcome: False,
    "embeddings": lambda outcome: False,
    "backup": lambda outcome: False,
    "pitr": lambda outcome: False,
    "db": lambda outcome: outcome == 503,
    # Until it is back there is nobody to answer.
    "proxy": lambda outcome: isinstance(outcome, str),
}


def kills(stack: Stack) -> str:
    """kill -9 of each container in turn under load: back without hands, nothing acknowledged is lost"""
    words = []
    for service, allowed in ALLOWED.items():
        victim = stack.containers(service)[0]
        started = stack.inspect(victim)["State"]["StartedAt"]
        with Load(stack, RATE) as load:
            time.sleep(1)
            killed = time.monotonic()
            stack.kill(victim)
            wait_until(lambda: stack.inspect(victim)["State"]["StartedAt"] != started, 30, f"{service} is started again")
            wait_until(lambda: stack.content(victim), 60, f"{service} is healthy again")
            back = time.monotonic()
            time.sleep(2.5)
        forbidden = [failure for failure in load.failures() if not allowed(failure[3])]
        expect(not forbidden, f"{service}: {load.summary()}")
        expect(not load.failures(since=back + 1), f"{service}: still failing when it was back: {load.summary()}")
        expect(not load.missing(), f"{service}: acknowledged writes are missing")
        last = max((failure[0] + failure[1] for failure in load.failures()), default=killed)
        words.append(f"{service}: healthy after {back - killed:.0f} s, last failure after {last - killed:.1f} s; {load.summary()}")
    return "\n".join(words)


def without_redis(stack: Stack) -> str:
    """Redis stopped: no error"""
    (container,) = stack.containers("redis")
    with Load(stack, RATE) as load:
        time.sleep(1)
        stack.docker("stop", container)
        time.sleep(6)
        stack.docker("start", container)
        time.sleep(4)
    expect(not load.failures(), load.summary())
    wait_until(lambda: stack.ask("GET", "/health").json["status"] == "ok", 30, "the service sees Redis again")
    return load.summary()


def without_embeddings(stack: Stack) -> str:
    """Embeddings stopped: writes are taken, searches say what they lack, and it is made up for"""
    (container,) = stack.containers("embeddings")
    stack.docker("stop", container)
    with Load(stack, RATE) as load:
        time.sleep(6)
        search = {"query": f"something nobody has asked before, {uuid.uuid4().hex}"}
        answer = stack.ask("POST", "/v1/contexts/search", search, expected=200).json
        expect("embedder_unavailable" in answer["degraded"], f"a search without embeddings says degraded: {answer['degraded']}")
    expect(not load.failures(), load.summary())
    pending = stack.ask("GET", "/v1/usage", expected=200).json["embedding"]["pending"]
    expect(pending > 0, "nothing waits for its embedding")
    stack.docker("start", container)
    began = time.monotonic()
    wait_until(lambda: stack.ask("GET", "/v1/usage", expected=200).json["embedding"]["pending"] == 0, 90, "the backlog", 0.5)
    return f"{load.summary()}; {pending} contexts waited, and were embedded {time.monotonic() - began:.0f} s after it was back"


# --- other environments -------------------------------------------------------------------------------------------------


def lite(_: Stack) -> str:
    """Staging with the built-in model, beside the other stack"""
    stack = Stack("staging", "context-api-test-lite", "lite")
    try:
        stack.command("secrets")
        began = time.monotonic()
        stack.command("up")
        seconds = time.monotonic() - began
        stack.connect()
        note = {"user_id": USER, "context_type": "note", "content": "The chess club meets on Tuesday evening."}
        id = stack.ask("POST", "/v1/contexts?wait=ready", note, expected=201).json["id"]
        found = stack.ask("POST", "/v1/contexts/search", {"query": "a game with a king", "mode": "semantic"}, expected=200).json
        expect([hit["context"]["id"] for hit in found["data"]] == [id] and not found["degraded"], f"a search finds {found}")
        expect("  checked" in stack.command("backup").stdout, "the backup is not checked")
        return f"healthy in {seconds:.0f} s"
    finally:
        stack.remove()
