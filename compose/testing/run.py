"""Runs the trials in their order, and prints what came of each. Called by compose/test, which has provided engine and images."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import observing
import recovery
import trials
from stack import Failed, Stack

# In this order. Those in one pair of brackets at once: they mostly wait, for embeddings and for figures, and `lite` has a stack of its own.
ALL = (
    (trials.start,),
    (trials.isolation, trials.tour, trials.migrations),
    (trials.stop,),
    (trials.rollout,),
    (trials.bad_rollout,),
    (trials.kills,),
    (trials.without_redis,),
    (trials.without_embeddings,),
    (recovery.recover,),
    (recovery.backup,),
    (recovery.damaged,),
    (observing.monitoring, trials.lite),
    (observing.figures,),
)


def main() -> int:
    wanted = sys.argv[1:]
    names = [trial.__name__ for together in ALL for trial in together]
    if unknown := [name for name in wanted if name not in names]:
        print(f"no such trial: {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 1
    # `finally` below runs then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stack, rows, started = Stack(), [], time.monotonic()
    try:
        for together in ALL:
            # The first one starts what all others need.
            chosen = [trial for trial in together if not wanted or trial.__name__ in wanted or together is ALL[0]]
            with ThreadPoolExecutor(len(together)) as pool:
                rows += pool.map(lambda trial: attempt(trial, stack), chosen)
            if together is ALL[0] and rows[-1][1] != "ok":
                break
    finally:
        stack.remove()
    show(rows, time.monotonic() - started)
    return 0 if all(row[1] == "ok" for row in rows) else 1


def attempt(trial, stack: Stack) -> tuple:
    began = time.monotonic()
    print(f"{trial.__name__} ...", file=sys.stderr, flush=True)
    try:
        outcome, words = "ok", trial(stack)
    except Failed as failure:
        outcome, words = "FAILED", str(failure)
    except Exception as error:  # noqa: BLE001: the others are tried all the same.
        outcome, words = "FAILED", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    if outcome != "ok":
        print(stack.last_words(), file=sys.stderr)
    print(f"{trial.__name__} {outcome} in {seconds:.0f} s: {words}", file=sys.stderr, flush=True)
    return trial.__doc__.strip().splitlines()[0], outcome, seconds, words


def show(rows: list, seconds: float) -> None:
    width = max(len(row[0]) for row in rows)
    print()
    for what, outcome, took, words in rows:
        head, *more = words.splitlines() or [""]
        print(f"{what:<{width}}  {outcome:<6} {took:>4.0f} s  {head}")
        for line in more:
            print(f"{'':<{width}}                 {line}")
    print(f"\n{sum(row[1] == 'ok' for row in rows)} of {len(rows)} in {seconds:.0f} s, after {os.environ['PREPARATION_SECONDS']} s for images.")
    print(f"Context API's programs were compiled with the profile {os.environ['IMAGE_PROFILE']}; what is published, with dist.")
    if stand_ins := os.environ["STAND_INS"].split():
        print("STAND-INS, built here of Debian packages because the published images could not be pulled:")
        print("  " + "\n  ".join(stand_ins))
        print("What this cannot prove is the published images' own entrypoints, and the model that they load.")


if __name__ == "__main__":
    sys.exit(main())
