"""Steady load through the proxy: writes, reads and searches at a given rate, every answer written down."""

import json
import threading
import time
import uuid
from http.client import HTTPException

from stack import Client, Failed, Stack

THREADS = 8
# An answer that takes longer is none: nobody has waited for it.
SECONDS_MAX = 10
USER = "0190d5a0-0000-7000-8000-00000000000a"


class Load:
    """`with Load(stack, 60) as load:` asks 60 times a second until the block ends."""

    def __init__(self, stack: Stack, rate: float):
        self.stack, self.pause = stack, THREADS / rate
        self.stopped = threading.Event()
        self.lock = threading.Lock()
        # (moment, seconds, what, status or the error's name)
        self.answers, self.acknowledged, self.degraded, self.broken = [], [], 0, []
        self.threads = [threading.Thread(target=self.go_on, args=(number,), daemon=True) for number in range(THREADS)]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(60)
            if thread.is_alive():
                raise Failed("a request got no answer for a minute")
        if self.broken:
            raise self.broken[0]

    def go_on(self, number: int) -> None:
        try:
            self.ask_on(number)
        except Exception as error:  # noqa: BLE001: of a thread, nobody would hear of it.
            self.broken.append(error)

    def ask_on(self, number: int) -> None:
        client, latest, count = Client(self.stack), None, 0
        due = time.monotonic() + self.pause * number / THREADS
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            # What was missed while waiting for an answer is not made up for: a closed loop with a speed limit.
            due = max(due + self.pause, time.monotonic())
            turn, count = count % 3, count + 1
            if turn == 0 or latest is None:
                latest = self.write(client) or latest
            elif turn == 1:
                self.timed("get", client, "GET", f"/v1/contexts/{latest}")
            else:
                answer = self.timed("search", client, "POST", "/v1/contexts/search", {"query": f"load number{count % 50}", "limit": 3})
                if answer is not None and answer.status == 200 and answer.json["degraded"]:
                    with self.lock:
                        self.degraded += 1
        client.close()

    def write(self, client: Client) -> str | None:
        name = uuid.uuid4().hex
        body = {"user_id": USER, "context_type": "load", "key": name, "content": f"Written under load, number{len(self.answers) % 50}."}
        answer = self.timed("write", client, "POST", "/v1/contexts", body, {"Idempotency-Key": name})
        if answer is None or answer.status not in (200, 201):
            return None
        with self.lock:
            self.acknowledged.append(answer.json["id"])
        return answer.json["id"]

    def timed(self, what: str, client: Client, *request):
        began, answer = time.monotonic(), None
        try:
            answer = client.ask(*request)
            outcome = answer.status if time.monotonic() - began <= SECONDS_MAX else "late"
        except (OSError, HTTPException) as error:
            outcome = type(error).__name__
        with self.lock:
            self.answers.append((began, time.monotonic() - began, what, outcome))
        return answer

    # --- what came of it -------------------------------------------------------------------------------------------

    def failures(self, since: float = 0.0) -> list:
        return [answer for answer in self.answers if answer[0] >= since and answer[3] not in (200, 201)]

    def outcomes(self) -> str:
        """Failures by kind: `503: 12, ConnectionRefusedError: 3`."""
        kinds = {}
        for failure in self.failures():
            kinds[failure[3]] = kinds.get(failure[3], 0) + 1
        return ", ".join(f"{kind}: {count}" for kind, count in kinds.items()) or "none"

    def p99_ms(self) -> float:
        times = sorted(seconds for _, seconds, _, outcome in self.answers if outcome in (200, 201))
        return times[int(len(times) * 0.99)] * 1000 if times else float("nan")

    def summary(self) -> str:
        return f"{len(self.answers)} requests, {len(self.failures())} failed ({self.outcomes()}), p99 {self.p99_ms():.0f} ms"

    def missing(self) -> list:
        """Acknowledged writes that are not there."""
        exported = self.stack.ask("GET", "/v1/contexts/export?context_type=load", expected=200).body
        there = {json.loads(line)["id"] for line in exported.splitlines() if line.strip()}
        return [id for id in self.acknowledged if id not in there]
