"""The statements that the service sends, taken down from PostgreSQL's log and run again by pgbench."""

import json
import os
import re
import subprocess
from pathlib import Path

from measuring import Service, psql

STATEMENTS_MAX = 400
TENANT = "00000000-0000-7000-8000-000000000001"
# What the service sets in each session.
SESSION = ["role=context_app", f"context.tenant_id={TENANT}", "plan_cache_mode=force_generic_plan", "jit=off", "enable_seqscan=off",
           "hnsw.iterative_scan=relaxed_order", "hnsw.max_scan_tuples=40000"]
VECTOR = re.compile(r"'(\[[-0-9.e,]+\])'")


def take_down(database: str, folder: Path, scenario: str, arguments: list, beginning: str) -> list:
    """What begins so of the statements that the service sends in a scenario of `loadtest`, with their parameters in their places. With one
    client, because that is slow: each session of the service writes all its statements to the log."""
    server_log = Path(os.environ["TEST_PG_LOG"])
    before = server_log.stat().st_size
    with Service(database + "?options=-c%20log_min_duration_statement%3D0", folder / "log") as service:
        asked = ["--clients", "1", "--queries", str(STATEMENTS_MAX), "--seconds", "4", "--warm-up-seconds", "2", "--no-cache", "--at-most", "/errors=0"]
        service.load(scenario, *arguments, *asked)
    with server_log.open("rb") as log:
        log.seek(before)
        taken = statements(log.read().decode(), beginning)
    if not taken:
        raise SystemExit(f"{scenario}: no statement of the log begins with `{beginning}`")
    return taken


def statements(log: str, beginning: str) -> list:
    """Those of a log that begin so, with their parameters in their places."""
    found = []
    pattern = r"execute sqlx_s_\d+: (" + re.escape(beginning) + r".*?)\n\S+ \S+ \S+ \[\d+\] DETAIL:  [Pp]arameters: (.*?)\n(?=\d{4}-)"
    for statement, parameters in re.findall(pattern, log, re.DOTALL):
        values = dict(re.findall(r"\$(\d+) = ('(?:[^']|'')*'|NULL)", parameters))
        found.append(re.sub(r"\$(\d+)", lambda number: values[number[1]], statement.replace("\n\t", "\n")))
    return found[-STATEMENTS_MAX:]


def by_table(statements: list, place: int, database: str) -> tuple:
    """The transactions of pgbench, but one, that take the place of statements which differ by their vectors; and the vectors."""
    vectors = [VECTOR.search(statement)[1] for statement in statements]
    table = f"vectors_{place}"
    psql(database, f"create table {table} (n integer primary key, vector halfvec not null)")
    for start in range(0, len(vectors), 10):
        rows = ", ".join(f"({start + n}, '{vector}')" for n, vector in enumerate(vectors[start:start + 10]))
        psql(database, f"insert into {table} values {rows}")
    psql(database, f"grant select on {table} to context_app; analyze {table}")
    one = VECTOR.sub(f"(select vector from {table} where n = :n)", statements[0])
    return [f"\\set n random(0, {len(vectors) - 1})\n{one};\n"], [json.loads(vector) for vector in vectors]


def pgbench(files: list, folder: Path, database: str, clients: str, seconds: int) -> dict:
    """Rate and milliseconds; the first two seconds warm up."""
    for old in folder.glob("transactions*"):
        old.unlink()
    command = [f"{os.environ['TEST_PG_BIN']}/pgbench", database, "-n", "-M", "prepared", "-c", clients, "-j", "2", "-T", str(seconds + 2)]
    command += ["-l", "--log-prefix", str(folder / "transactions")]
    for file in files:
        command += ["-f", str(file)]
    options = os.environ | {"PGOPTIONS": " ".join(f"-c {setting}" for setting in SESSION)}
    done = subprocess.run(command, env=options, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pgbench: {done.stderr[-500:]}")
    # Each line: client, number, microseconds, file, second, microsecond.
    lines = [line.split() for log in folder.glob("transactions*") for line in log.read_text().splitlines()]
    begin = min(int(line[4]) for line in lines) + 2
    times = sorted(int(line[2]) / 1000 for line in lines if int(line[4]) >= begin)
    span = max(int(line[4]) + int(line[5]) / 1e6 for line in lines) - begin
    return {"rate": len(times) / span, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}
