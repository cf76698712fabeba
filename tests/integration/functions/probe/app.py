"""A handler that does what the event asks of it, for the tests of the local Lambda."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

print("loading", flush=True)

state = {"calls": 0}


class PlannedError(Exception):
    pass


def handler(event, context):
    state["calls"] += 1
    action = event.get("do") if isinstance(event, dict) else None
    if action == "raise":
        raise PlannedError("as planned")
    if action == "sleep":
        time.sleep(event["seconds"])
    if action == "exit":
        sys.exit(event["code"])
    if action == "abort":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "print":
        print("to stdout")
        logging.getLogger().warning("to the logger")
        print("to stderr", file=sys.stderr)
        print("no end of line", end="")
    if action == "print much":
        print("x" * 20_000 + "tail")
    if action == "unserializable":
        return object()
    if action == "big":
        return "x" * event["bytes"]
    if action == "orphan":
        return subprocess.Popen(["sleep", "600"]).pid
    if action == "hold":
        with Path(event["told"]).open("w", encoding="ascii") as told:
            told.write(f"{context.aws_request_id} {os.getpid()}\n")
        release = os.open(event["release"], os.O_RDONLY)
        os.read(release, 1)
        os.close(release)
        if event.get("fail"):
            raise PlannedError("after it was held")
    return {
        "event": event,
        "calls": state["calls"],
        "pid": os.getpid(),
        "request_id": context.aws_request_id,
        "function_version": context.function_version,
        "arn": context.invoked_function_arn,
        "tenant_id": context.tenant_id,
        "memory": context.memory_limit_in_mb,
        "remaining_ms": context.get_remaining_time_in_millis(),
        "client_context": context.client_context.custom if context.client_context else None,
        "environment": {name: os.environ.get(name) for name in event.get("environ", [])}
        if isinstance(event, dict)
        else None,
        "cwd": str(Path.cwd()),
    }
