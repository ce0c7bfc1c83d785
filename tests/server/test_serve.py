"""The verb: what it would serve, that it serves it, and that it stops when told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ggufkit.errors import NotFoundError, UsageError
from ggufkit.verbs.serve import plan_serve, serve, serving
from tests.server.asking import ask
from tests.server.test_shelf import Listener, settle
from tests.support.hub import FOLDER, REPO_ID, write_repo

SHARD = f"{FOLDER}/{FOLDER}-00002-of-00004.gguf"
SCRIPT = """
    import sys
    from pathlib import Path
    from ggufkit.verbs.serve import plan_serve, serve
    plan = plan_serve(Path(sys.argv[1]), port=0)
    serve(plan, on_ready=lambda serving: print(serving.url, flush=True))
    print("stopped", flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Remember digests in a folder of the test, not in the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    return write_repo(tmp_path / "root", shard_bytes=2_000_000)


@contextmanager
def process(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve from another process, and give it with its address."""
    arguments = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(root)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running, running.stdout.readline().strip()
        finally:
            running.kill()


def test_the_plan_says_what_and_how_much(tmp_path: Path, files: dict[str, bytes]) -> None:
    plan = plan_serve(tmp_path / "root", port=0)
    assert [repo.repo_id for repo in plan.repos] == [REPO_ID]
    assert (plan.n_files, plan.total_bytes) == (6, sum(map(len, files.values())))
    assert plan.unhashed_bytes == plan.total_bytes
    assert plan.warnings == ()
    assert not (tmp_path / "cache").exists(), "a plan writes nothing"


def test_what_was_hashed_once_needs_no_reading(tmp_path: Path, files: dict[str, bytes]) -> None:
    for path in files:
        settle(tmp_path / "root" / REPO_ID / path)
    listener = Listener()
    with serving(plan_serve(tmp_path / "root", port=0), listener):
        assert listener.done_bytes == sum(map(len, files.values()))
    plan = plan_serve(tmp_path / "root", port=0)
    assert plan.unhashed_bytes == len(files["README.md"]) + len(files["config.json"]), (
        "small files are not kept"
    )


def test_no_folder_and_no_repos(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a folder"):
        plan_serve(tmp_path / "none")
    (tmp_path / "loose.gguf").touch()
    with pytest.raises(NotFoundError, match="no repos") as nothing:
        plan_serve(tmp_path)
    assert nothing.value.hint is not None and "OWNER/NAME" in nothing.value.hint


@pytest.mark.parametrize(
    ("host", "n_warnings"),
    [("127.0.0.1", 0), ("127.1.2.3", 0), ("::1", 0), ("localhost", 0), ("0.0.0.0", 1), ("::", 1), ("box", 1)],
)
def test_it_warns_of_addresses_that_others_reach(
    tmp_path: Path, files: dict[str, bytes], host: str, n_warnings: int
) -> None:
    warnings = plan_serve(tmp_path / "root", host).warnings
    assert len(warnings) == n_warnings
    assert all(host in warning and "without a login" in warning for warning in warnings)


def test_a_broken_manifest_is_a_warning(tmp_path: Path, files: dict[str, bytes]) -> None:
    records = tmp_path / "root" / REPO_ID / ".ggufkit"
    records.mkdir()
    (records / "broken.json").write_text("{")
    (warning,) = plan_serve(tmp_path / "root").warnings
    assert "broken.json" in warning


def test_serving_in_a_thread(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serving(plan_serve(tmp_path / "root", port=0)) as running:
        assert running.port > 0 and running.url == f"http://127.0.0.1:{running.port}"
        assert ask(running.url, f"/{REPO_ID}/resolve/main/{SHARD}").body == files[SHARD]
    with pytest.raises(OSError):
        ask(running.url, "/")


def test_every_address(tmp_path: Path, files: dict[str, bytes]) -> None:
    with serving(plan_serve(tmp_path / "root", "0.0.0.0", 0)) as running:
        assert "0.0.0.0" not in running.url, "the address is one that another machine can use"
        assert ask(f"http://127.0.0.1:{running.port}", "/").status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(
    tmp_path: Path, files: dict[str, bytes], number: signal.Signals
) -> None:
    with process(tmp_path / "root") as (running, url):
        assert ask(url, f"/{REPO_ID}/resolve/main/{SHARD}").body == files[SHARD]
        started_s = time.monotonic()
        running.send_signal(number)
        rest, errors = running.communicate(timeout=30)
        assert (running.returncode, rest, errors) == (0, "stopped\n", "")
        assert time.monotonic() - started_s < 5


def test_it_stops_with_a_download_under_way(tmp_path: Path) -> None:
    write_repo(tmp_path / "root", n_shards=1)
    path = f"/{REPO_ID}/resolve/main/{FOLDER}/{FOLDER}-00001-of-00001.gguf"
    os.truncate(tmp_path / "root" / path.replace("/resolve/main", "")[1:], 50_000_000)
    with process(tmp_path / "root") as (running, url), socket.socket() as slow:
        host, port = url.removeprefix("http://").split(":")
        slow.connect((host, int(port)))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        running.send_signal(signal.SIGINT)
        rest, errors = running.communicate(timeout=30)
        assert (running.returncode, rest, errors) == (0, "stopped\n", "")


def test_the_port_is_taken(tmp_path: Path, files: dict[str, bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        plan = plan_serve(tmp_path / "root", port=port)
        with pytest.raises(UsageError, match=f"port {port} is taken") as taken:
            serve(plan)
        assert taken.value.hint is not None and "--port" in taken.value.hint
        with pytest.raises(UsageError, match="is taken"), serving(plan):
            pass


def test_an_address_of_another_machine(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(UsageError, match=r"cannot listen at 192\.0\.2\.1"):
        serve(plan_serve(tmp_path / "root", "192.0.2.1", 0))


def test_an_error_of_the_caller_stays_its_own(tmp_path: Path, files: dict[str, bytes]) -> None:
    def break_down(running: object) -> None:
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError):
        serve(plan_serve(tmp_path / "root", port=0), on_ready=break_down)


def test_without_aiohttp_it_says_what_to_install(tmp_path: Path, files: dict[str, bytes]) -> None:
    script = """
        import sys
        from pathlib import Path
        from ggufkit.errors import ToolError
        from ggufkit.verbs.serve import plan_serve, serve
        sys.modules["aiohttp"] = None
        try:
            serve(plan_serve(Path(sys.argv[1])))
        except ToolError as error:
            print(error.hint)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "root")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("pip install 'ggufkit[serve]'\n", "")


def test_a_plan_needs_no_web_server(tmp_path: Path, files: dict[str, bytes]) -> None:
    script = """
        import sys
        from pathlib import Path
        from ggufkit.verbs.serve import plan_serve
        assert plan_serve(Path(sys.argv[1])).n_files == 6
        heavy = {"aiohttp", "huggingface_hub", "modelscope", "modelscope_hub", "numpy"} & set(sys.modules)
        assert not heavy, heavy
    """
    arguments = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "root")]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
