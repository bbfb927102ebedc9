"""Trials of the way back: to a moment, from a backup, and past one that is damaged."""

import time

from load import USER
from stack import Stack, expect, wait_until
from trials import keys


def recover(stack: Stack) -> str:
    """Point-in-time recovery to a moment between two writes"""
    wait_until(lambda: stack.healthy("pitr"), 120, "the first base backup", 1)
    note = {"user_id": USER, "context_type": "moment", "content": "Written before."}
    before = stack.ask("POST", "/v1/contexts", note, expected=201).json["id"]
    moment = stack.sql("select clock_timestamp()")
    # Clocks of two containers are one; what is written at that very moment could be on either side.
    time.sleep(1)
    after = stack.ask("POST", "/v1/contexts", note | {"content": "Written after."}, expected=201).json["id"]
    stored = int(stack.sql("select count(*) from contexts"))
    began = time.monotonic()
    stack.command("recover", moment)
    seconds = time.monotonic() - began
    stack.ask("GET", f"/v1/contexts/{before}", expected=200)
    stack.ask("GET", f"/v1/contexts/{after}", expected=404)
    there = int(stack.sql("select count(*) from contexts"))
    expect(there == stored - 1, f"{there} contexts are there, and one less than {stored} should be")
    stack.ask("POST", "/v1/contexts", note, expected=201)
    return f"{seconds:.0f} s; what was written a second later is gone, the {there} contexts before are there"


QUESTIONS = (
    {"query": "play chess against the computer", "mode": "keyword", "limit": 10},
    {"query": "I want to look at the stars at night", "mode": "semantic", "effort": "exact", "limit": 10},
    {"query": "libmathicgb-dev", "effort": "exact", "limit": 10},
)


def backup(stack: Stack) -> str:
    """Backup, loss of the database's volume, restore: every row and the same answers"""
    wait_until(lambda: stack.ask("GET", "/v1/usage", expected=200).json["embedding"]["pending"] == 0, 90, "the embeddings")
    rows, answers = everything(stack), [keys(stack, question) for question in QUESTIONS]
    made = stack.command("backup").stdout
    expect("  checked" in made, f"the backup is not checked: {made}")
    stack.command("compose", "rm", "--force", "--stop", "context-api", "worker", "backup", "pitr", "db")
    stack.docker("volume", "rm", f"{stack.project}_db-data")
    began = time.monotonic()
    restored = stack.command("restore").stdout
    seconds = time.monotonic() - began
    expect("Every table has the rows" in restored, f"nothing was compared: {restored}")
    stack.command("up")
    # Into a database that is not empty, by the flag alone; and nobody is stopped for it.
    since = starts(stack)
    refused = stack.command("restore", check=False)
    expect(refused.returncode != 0 and "--replace" in refused.stderr, f"a restore over what is there: {refused.stderr[-500:]}")
    told = stack.command("restore", "latest", "--replace", "--dry-run").stdout
    expect("Would restore" in told, f"asked whether it would be done: {told}")
    expect("--even-if-bad" in stack.command("restore", "--help").stdout, "it does not say how it is used")
    expect(starts(stack) == since, "what runs was stopped for it")
    left = everything(stack)
    expect(left == rows, f"what was there is {left} instead of {rows}")
    expect([keys(stack, question) for question in QUESTIONS] == answers, "searches are answered differently")
    note = {"user_id": USER, "context_type": "moment", "content": "Written after the restore."}
    after = stack.ask("POST", "/v1/contexts", note, expected=201).json["id"]
    stack.command("restore", "latest", "--replace")
    expect(not starts(stack).items() & since.items(), "somebody could write while it was done")
    stack.ask("GET", f"/v1/contexts/{after}", expected=404)
    expect(everything(stack) == rows, "what is there after --replace is something else")
    expect([keys(stack, question) for question in QUESTIONS] == answers, "searches are answered differently after --replace")
    return f"restored in {seconds:.0f} s, {rows['contexts']} contexts"


def starts(stack: Stack) -> dict:
    """When each container of those that a restore stops was started."""
    ids = [id for service in ("context-api", "worker", "redis", "backup") for id in stack.containers(service)]
    return {id: stack.inspect(id)["State"]["StartedAt"] for id in ids}


def everything(stack: Stack) -> dict:
    """How many rows of what is written by callers, and a sum over the contexts."""
    tables = ("tenants", "api_keys", "contexts", "context_versions", "chunks", "chunk_embeddings")
    counts = {table: stack.sql(f"select count(*) from {table}") for table in tables}
    return counts | {"sum": stack.sql("select md5(string_agg(c::text, ',' order by tenant_id, id)) from contexts c")}


def damaged(stack: Stack) -> str:
    """A stored dump is spoilt: the backup service finds out by itself"""
    (container,) = stack.containers("backup")
    dump = stack.docker("exec", container, "bash", "-c", "ls -t /backups/*.dump | head -n 1")
    expect(stack.healthy("backup"), "the backups are not well to begin with")
    began = time.monotonic()
    stack.docker("exec", container, "dd", "if=/dev/zero", f"of={dump}", "bs=1", "seek=3000", "count=16", "conv=notrunc")
    wait_until(lambda: not stack.content(container), 60, "the backup service notices")
    seconds = time.monotonic() - began
    said = stack.command("logs", "--no-color", "--tail", "20", "backup").stdout
    expect("a stored backup is damaged" in said and "checksum" in said, f"the log does not say it: {said[-500:]}")
    refused = stack.command("restore", dump.removeprefix("/backups/").removesuffix(".dump"), "--replace", check=False)
    expect(refused.returncode != 0 and "Nothing was changed" in refused.stderr, f"it was restored: {refused.stderr[-500:]}")
    stack.docker("exec", *stack.containers("backup"), "bash", "-c", f"rm {dump} {dump.removesuffix('.dump')}.json")
    wait_until(lambda: all(map(stack.content, stack.containers("backup"))), 60, "the backups are well again")
    # There was no other one.
    stack.command("backup")
    return f"noticed after {seconds:.0f} s, by its look every ten seconds; a restore of it changes nothing"
