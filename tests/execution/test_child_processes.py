"""Child processes that nobody else can reach: they have their own network and end with their parent."""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import grpc
import pytest

from tests import processes
from tff_personalization import errors
from tff_personalization.execution import child_processes, connections, runtime, worker

# Listens on all interfaces, like a worker, and answers in capitals.
ECHO = [
    sys.executable,
    "-c",
    f"""
import socketserver

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data.upper())

socketserver.ThreadingTCPServer(("0.0.0.0", {child_processes.PORT}), Echo).serve_forever()
""",
]
PARENT = f"""
import os, sys, time
from tff_personalization.execution import child_processes
closed = child_processes.Closed({ECHO!r}, os.environ, sys.stderr)
print(closed.process.pid, closed.target.removeprefix("unix:"), flush=True)
time.sleep(100)
"""
WITHOUT_NETWORKS = ["unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"', "sh"]


@pytest.fixture
def closed():
    made = child_processes.Closed(ECHO, os.environ, sys.stderr)
    yield made
    made.process.kill()
    made.process.wait()
    made.close()


def answer(address, family=socket.AF_UNIX, message=b"hello"):
    with socket.socket(family) as connection:
        connection.connect(address)
        connection.sendall(message)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def listening_ports():
    """The listening TCP ports of this network."""
    tables = (pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table]
    return {int(line[1].rsplit(":", 1)[1], 16) for line in lines if line[3] == "0A"}


def test_a_closed_command_is_reached_through_its_socket_and_not_through_the_network():
    before = listening_ports()
    with contextlib.closing(child_processes.Closed(ECHO, os.environ, sys.stderr)) as closed:
        path = pathlib.Path(closed.target.removeprefix("unix:"))
        assert answer(str(path)) == b"HELLO"
        assert answer(str(path), message=bytes(5_000_000)) == bytes(5_000_000)
        assert listening_ports() <= before
        if child_processes.PORT not in before:
            with pytest.raises(ConnectionRefusedError):
                answer(("127.0.0.1", child_processes.PORT), socket.AF_INET)
        assert path.parent.stat().st_mode & 0o077 == 0
        closed.process.kill()
        closed.process.wait()


def test_its_socket_and_processes_go_with_it(closed):
    path = pathlib.Path(closed.target.removeprefix("unix:"))
    relay = processes.children(closed.process.pid)
    assert len(relay) == 1
    closed.process.kill()
    closed.process.wait()
    processes.assert_all_end(relay)
    assert not path.parent.exists()


def test_they_go_with_a_parent_that_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=processes.ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        pid, path = parent.stdout.readline().split()
        assert answer(path) == b"HELLO"
        family = [int(pid), *processes.children(int(pid))]
        parent.send_signal(signal.SIGKILL)
    processes.assert_all_end(family)
    deadline = time.monotonic() + 10
    while pathlib.Path(path).parent.exists():
        assert time.monotonic() < deadline, "the socket is still there"
        time.sleep(0.05)


def test_where_the_kernel_gives_no_network_it_says_why_and_leaves_nothing():
    with tempfile.TemporaryDirectory() as place:
        command = ["env", f"TMPDIR={place}", *WITHOUT_NETWORKS, sys.executable, "-c", PARENT]
        completed = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=False)
        assert os.listdir(place) == []
    assert completed.stderr.splitlines()[-1].endswith("NotClosed: No space left on device")


@pytest.fixture
def _not_closed(monkeypatch):
    def refuse(*_):
        raise child_processes.NotClosed("as a test wants it")

    monkeypatch.setattr(child_processes, "Closed", refuse)


@pytest.mark.usefixtures("_not_closed")
def test_a_worker_that_cannot_be_closed_is_refused_if_that_is_asked_for(tmp_path):
    with (tmp_path / "log").open("wb") as log, pytest.raises(errors.UserError, match=r"closed_worker: .* \(as a test"):
        runtime.Worker(1, 1, log, require_closed=True)


@pytest.mark.usefixtures("_not_closed")
def test_it_works_all_the_same_after_a_warning(tmp_path, caplog, monkeypatch):
    from tests.execution import test_runtime

    runtime._warn_of_open_worker.cache_clear()
    monkeypatch.setenv("http_proxy", "http://10.255.255.1:3128")
    with (tmp_path / "log").open("wb") as log, runtime.execution_context(cores=1, log=log):
        assert test_runtime.sum_of_doubles([1, 2, 3]) == 12
    assert "cannot be isolated from the network here (as a test wants it)" in caplog.text


@pytest.mark.usefixtures("_not_closed")
def test_without_loopback_an_open_worker_is_one_line(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    with (
        (tmp_path / "log").open("wb") as log,
        pytest.raises(errors.UserError, match="loopback is down"),
    ):
        runtime.Worker(1, 1, log)


WAYS = [
    ({"http_proxy": "http://me:secret@proxy:3128"}, "one:8000", "proxy:3128"),
    ({"grpc_proxy": "first:1", "http_proxy": "http://second:2"}, "one:8000", "first:1"),
    ({"https_proxy": "http://proxy:3128", "no_proxy": "other, .cluster"}, "one.cluster:8000", ""),
    ({"https_proxy": "http://proxy:3128", "no_proxy": "other, .cluster"}, "one:8000", "proxy:3128"),
    ({"http_proxy": "http://proxy:3128"}, "localhost:8000", ""),
    ({"http_proxy": "http://proxy:3128"}, "127.0.1.1:8000", ""),
    ({"http_proxy": "http://proxy:3128"}, "[::1]:8000", ""),
    ({"http_proxy": "http://proxy:3128"}, "unix:/tmp/worker", ""),
    ({}, "one:8000", ""),
]


@pytest.mark.parametrize(("environment", "address", "proxy"), WAYS)
def test_which_way_a_worker_is_reached(environment, address, proxy, monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert connections.proxy_to(address) == proxy


def test_grpc_itself_takes_that_way(monkeypatch):
    """A proxy that refuses everything: a channel that asked it would never be ready."""
    with worker.listening("127.0.0.1", 0) as proxy, concurrent.futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with connections.channel(f"localhost:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
        server.stop(0).wait()


def test_a_worker_for_others_listens_on_the_address_that_it_is_given_and_no_other():
    with worker.listening("127.0.0.2", 0) as listener:
        address = listener.getsockname()
        process = child_processes.start_closed(ECHO, os.environ, None, listener)
        try:
            assert answer(address, socket.AF_INET) == b"HELLO"
            with pytest.raises(ConnectionRefusedError):
                answer(("127.0.0.1", address[1]), socket.AF_INET)
        finally:
            process.kill()
            process.wait()
    with pytest.raises(errors.UserError, match="--port=8000: cannot be used"):
        worker.listening("192.0.2.1", 8000)
