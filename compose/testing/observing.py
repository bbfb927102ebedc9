"""Trials of what shows how the stack is: its metrics and alerts, and figures of its images and containers."""

import json
import time
import urllib.parse
import urllib.request
from datetime import datetime

from load import Load
from stack import COMPOSE, Stack, expect, wait_until
from trials import MIB, RATE, SERVICES

LOOK_SECONDS = 5
WATCHERS = ["prometheus", "alertmanager", "postgres-exporter", "redis-exporter"]


def monitoring(stack: Stack) -> str:
    """Prometheus sees everything, and every query of the dashboards has an answer"""
    # It looks more often here, so that there need not be so much to wait for.
    settings = (COMPOSE / "monitoring" / "prometheus.yml").read_text()
    expect(settings.count(": 15s") >= 2, "prometheus.yml does not look every 15 s any more")
    often = stack.folder / "prometheus.yml"
    often.write_text(settings.replace(": 15s", f": {LOOK_SECONDS}s"))
    watched = stack.environment | {"OVERLAYS": "observability", "PROMETHEUS_CONFIG": str(often)}
    stack.environment, plain = watched, stack.environment
    try:
        stack.command("compose", "up", "--detach", "--no-deps", "--wait", *WATCHERS)
        jobs = {"context-api", "worker", "backup", "embeddings", "postgres", "redis", "prometheus"}
        wait_until(lambda: jobs <= {job["metric"]["job"] for job in asked(stack, "up == 1")}, 90, "all targets are up", 1)
        wait_until(lambda: len(asked(stack, 'up{job="context-api"} == 1')) == 2, 60, "both replicas are seen", 1)
        with Load(stack, RATE):
            # Rates need two looks with something to see in both.
            time.sleep(2 * LOOK_SECONDS + 3)
        queries, empty = 0, []
        for dashboard in sorted((COMPOSE / "monitoring" / "grafana" / "dashboards").glob("*.json")):
            for panel in json.loads(dashboard.read_text())["panels"]:
                for target in panel.get("targets", []):
                    queries += 1
                    if not asked(stack, target["expr"].replace("$__rate_interval", "1m")):
                        empty.append(f"{panel['title']}: {target['expr']}")
        expect(not empty, "these queries find nothing: " + "; ".join(empty))
        # Also those that only would fire if it stayed so, but not those of them that tell how fast it was for a moment, on a machine that
        # does all this at once.
        alerts = asked(stack, 'ALERTS{alertstate="firing"} or ALERTS{alertname!~"SlowSearches|SearchesDegraded"}')
        expect(not alerts, f"there are alerts: {[alert['metric'] for alert in alerts]}")
        return f"{len(jobs)} kinds of targets up, {queries} queries answered, no alert fires or is about to"
    finally:
        stack.command("compose", "rm", "--force", "--stop", *WATCHERS, check=False)
        stack.environment = plain


def asked(stack: Stack, query: str) -> list:
    """What Prometheus answers to a query; an error of the query is raised."""
    url = f"http://127.0.0.1:{stack.prometheus_port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)["data"]["result"]


def figures(stack: Stack) -> str:
    """Sizes of images, start times, memory"""
    images, words = {}, []
    # Before any is started anew: what it takes after it has worked.
    memory = {service: memory_of(stack, service) for service in SERVICES}
    for service in SERVICES:
        image = stack.inspect(stack.containers(service)[0])["Config"]["Image"]
        images[image] = int(stack.docker("image", "inspect", "--format", "{{.Size}}", image)) / MIB
        words.append(f"{service}: {images[image]:.1f} MiB image, memory {memory[service]}, healthy {start_seconds(stack, service):.1f} s after its start")
    parts = sbom(stack)
    expect("context-api" in parts and "actix-web" in parts and "pglite-oxide" not in parts, f"the image's list of parts is wrong: {len(parts)}")
    image = next(image for image in images if image.startswith("context-api:"))
    pulled = int(stack.run(["bash", "-c", f"docker save {image} | gzip | wc -c"], True, 120).stdout) / MIB
    expect(pulled <= 20, f"the API's image has {pulled:.1f} MiB as it is pulled")
    words.append(f"{image}: {pulled:.1f} MiB as it is pulled")
    return "\n".join(words)


def memory_of(stack: Stack, service: str) -> str:
    return stack.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", stack.containers(service)[0])


def sbom(stack: Stack) -> set:
    """Names of what the API's image says that it is made of."""
    container = stack.containers("context-api")[0]
    target = stack.folder / "sbom"
    stack.docker("cp", f"{container}:/usr/share/sbom/context-api.spdx", str(target))
    return {line.split(": ")[1] for line in target.read_text().splitlines() if line.startswith("PackageName: ")}


def start_seconds(stack: Stack, service: str) -> float:
    """From the start of a container to the first time that its own health check is content."""
    (container, *_) = stack.containers(service)
    stack.docker("restart", container)
    began = moment(stack.inspect(container)["State"]["StartedAt"])
    wait_until(lambda: stack.content(container), 60, f"{service} is healthy", 0.05)
    return time.time() - began


def moment(text: str) -> float:
    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()
