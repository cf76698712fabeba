"""Greets users; one without a name makes it raise, unless MENDED is a file that exists."""

import os
from pathlib import Path

from bridge.handlers import process_changes


def greet(event):
    if not event.record["name"] and not Path(os.environ["MENDED"]).exists():
        print(f"about to fail for user {event.record['id']}")
        raise ValueError("a user without a name")
    with Path(os.environ["GREETED"]).open("a") as greeted:
        greeted.write(event.id + "\n")


def lambda_handler(event, context):
    return process_changes(event, greet, context=context)
