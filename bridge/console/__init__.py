"""
The admin port: health checks, metrics, status as JSON, and a small page for the operator.

Comes in: the service's snapshot, its store, and the few things it lets an operator do (`Actions`). Goes out: HTTP.
Nothing here keeps state of its own; closing the port changes nothing for delivery.

Who may ask: on loopback anybody on this machine, as long as the request names this machine (a page of another origin
can make a browser call 127.0.0.1, but not under that name); elsewhere, or where a token is set, whoever has the token.
The health checks and the page's own files are open, for they show no data.
"""

from bridge.console.app import Actions, build_admin
from bridge.console.server import AdminServer

__all__ = ["Actions", "AdminServer", "build_admin"]
