"""What holds for every test: a home of its own, no settings of the machine, no network but loopback."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FOLDERS = {
    "HOME": "",
    "USERPROFILE": "",
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}
_KEPT = ("GGUFKIT_TEST",)  # the test bed's own: which llama-server, where its cache is
_SETTINGS = ("GGUFKIT_", "HF_", "HUGGING_FACE_", "MODELSCOPE_", "OLLAMA_", "LMSTUDIO_", "LM_STUDIO_")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")


def pytest_configure(config: pytest.Config) -> None:
    """Send the hub clients, which look for tokens where HOME is at their import, to an empty folder."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite runs in the background
    empty = tempfile.mkdtemp(prefix="ggufkit-tests-")
    config.add_cleanup(lambda: _remove(empty))
    os.environ |= {"HF_HOME": empty, "MODELSCOPE_HOME": empty, "MODELSCOPE_CACHE": empty}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an empty home, and return it, and an environment that says nothing of this machine."""
    for name in list(os.environ):
        if _is_setting(name):
            monkeypatch.delenv(name)
    folder = tmp_path_factory.mktemp("home")
    for name, below in _FOLDERS.items():
        monkeypatch.setenv(name, str(folder / below))
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"):
        monkeypatch.setenv(name, "1")
    return folder


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Fail a test that asks for another machine, by address or by name, before it is asked."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        honest = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
            _refuse_others(host)
            return honest(host, *arguments, **named)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


def _guarded(honest: Any) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        # A datagram socket sends nothing when it is connected: that is how one's own address is found.
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            _refuse_others(address[0])
        return honest(self, address)

    return connect


def _refuse_others(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "localhost", "::1", "0.0.0.0", "::") and not name.startswith("127."):
        pytest.fail(f"a test asked for {name}: nothing may leave this machine")


def _is_setting(name: str) -> bool:
    if name.startswith(_KEPT):
        return False
    return name.startswith(_SETTINGS) or name.lower() in _PROXIES or name in (*_CERTIFICATES, *_TERMINAL)


def _remove(folder: str) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
