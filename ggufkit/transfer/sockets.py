"""Connections that another thread can cut, so that a silent server holds nobody up.

Imports urllib3: imported late, by what opens the first connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_used_by: dict[int, socket.socket] = {}
"""The socket that a thread waits for, by the thread's number."""


class _Plain(HTTPConnection):
    def getresponse(self) -> Any:
        _note(self.sock)
        return super().getresponse()


class _Secure(HTTPSConnection):
    def getresponse(self) -> Any:
        _note(self.sock)
        return super().getresponse()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def make_cuttable(manager: urllib3.PoolManager) -> None:
    """Let `manager` open connections that `cut` can cut (not those through a SOCKS proxy)."""
    if manager.pool_classes_by_scheme["http"] is HTTPConnectionPool:
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


def _note(sock: socket.socket | None) -> None:
    if sock is not None:
        _used_by[threading.get_ident()] = sock


def held() -> socket.socket | None:
    """Return the socket of this thread's connection, where it is one that can be cut."""
    return _used_by.get(threading.get_ident())


def let_go() -> None:
    """Say that this thread is done with its connection: another one may get it now."""
    _used_by.pop(threading.get_ident(), None)


def cut(thread: int) -> None:
    """End what the thread of this number waits for: its next read finds the line dropped."""
    sock = _used_by.get(thread)
    if sock is not None:
        with contextlib.suppress(OSError):
            # Not sock.shutdown: the one of a TLS socket takes away what its reader is using just now.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
