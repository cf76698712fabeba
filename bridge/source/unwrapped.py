"""Calls of libpq that psycopg has no wrapper for, in the very library that psycopg uses; each can be done without."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Final

from psycopg import pq
from psycopg.pq.abc import PGconn

# PGVerbosity of libpq-fe.h.
DEFAULT_VERBOSITY: Final = 1
VERBOSE: Final = 2


def _load_libpq() -> ctypes.CDLL | None:
    """
    The libpq that psycopg uses, for the calls that psycopg has no wrapper for; it gives out `pgconn_ptr` for that.

    A library's handle finds the symbols of what it was linked to, hence the detour by psycopg's own extension module.
    The implementation in Python is made of ctypes itself, and has the library at hand.
    """
    module = sys.modules[pq.PGconn.__module__]
    loaded: ctypes.CDLL | None = getattr(getattr(module, "impl", None), "pq", None)
    try:
        return loaded or ctypes.CDLL(module.__file__)
    except OSError:
        return None


_libpq = _load_libpq()


def address_of(function: str) -> int:
    """Of a function in that library; 0 where it can't be found."""
    found = getattr(_libpq, function, None)
    return (found and ctypes.cast(found, ctypes.c_void_p).value) or 0


def _load_set_verbosity() -> Callable[[int, int], object] | None:
    """
    PQsetErrorVerbosity: while connecting, libpq keeps the SQLSTATE to itself, unless told to put it into the message.

    Without it nothing breaks, but a wrong password is a failure like any other, and tried again.
    """
    address = address_of("PQsetErrorVerbosity")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    return prototype(address) if address else None


_set_libpq_verbosity = _load_set_verbosity()


def set_verbosity(pgconn: PGconn, verbosity: int) -> None:
    """PQsetErrorVerbosity, where it was found."""
    pointer: int | None = getattr(pgconn, "pgconn_ptr", None)
    if _set_libpq_verbosity is not None and pointer:
        _set_libpq_verbosity(pointer, verbosity)
