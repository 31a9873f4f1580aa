"""Becomes a command that ends with its parent and, if closed, cannot be reached through the network.

    python -I -S launch.py PARENT COMMAND…
    python -I -S launch.py PARENT --closed=TELL,LISTEN,PORT,FOLDER COMMAND…

A closed command gets its own network from the kernel (a Linux network namespace) with only a loopback, so nobody else
can reach its ports. A relay, a child of the command, passes connections from the socket LISTEN, which was made outside,
to PORT inside. It ends with the command and deletes FOLDER. The pipe TELL receives "closed", or the reason why the
command cannot be closed; then it is not started.

This runs in its own process, before any thread, and imports only the standard library: it takes 20 ms.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_BYTES = 1 << 20
_SECONDS_TO_LISTEN = 60.0
_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    parent, command = int(arguments[0]), arguments[1:]
    if command[0].startswith("--closed="):
        tell, listen, port, folder = command.pop(0).removeprefix("--closed=").split(",", 3)
        try:
            _enter_own_network()
        except OSError as error:
            os.write(int(tell), (error.strerror or "no reason given").encode())
            sys.exit(1)
        _start_relay(int(listen), int(port), folder, int(tell))
        os.write(int(tell), b"closed")
        for descriptor in (int(tell), int(listen)):
            os.set_inheritable(descriptor, False)
    _end_with(parent, signal.SIGKILL)  # After the namespace, because a change of credentials clears this setting.
    os.execv(command[0], command)


def _end_with(parent: int, number: signal.Signals) -> None:
    """Asks the kernel for a signal when the parent ends. Exits if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:
        sys.exit(1)


def _enter_own_network() -> None:
    """Enters a network namespace and starts its loopback; OSError if the kernel gives none.

    Users without this right get it in a user namespace, in which files belong to the same users as before.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWNET):
        if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def _start_relay(listen: int, port: int, folder: str, tell: int) -> None:
    command = os.getpid()
    if os.fork():
        return
    os.close(tell)
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _end_with(command, signal.SIGTERM)
        with socket.socket(fileno=listen) as server:
            while True:
                outside, _ = server.accept()
                threading.Thread(target=_relay, args=(outside, port), daemon=True).start()
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def _relay(outside: socket.socket, port: int) -> None:
    """Passes data in both directions until both ends are closed."""
    inside = _connect(port)
    if inside is None:
        outside.close()
        return
    back = threading.Thread(target=_pass_on, args=(inside, outside), daemon=True)
    back.start()
    _pass_on(outside, inside)
    back.join()
    outside.close()
    inside.close()


def _connect(port: int) -> socket.socket | None:
    """Connects to the command as soon as it listens."""
    deadline = time.monotonic() + _SECONDS_TO_LISTEN
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.02)
    return None


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    buffer = memoryview(bytearray(_BYTES))
    with contextlib.suppress(OSError):  # The other end is closed.
        while count := source.recv_into(buffer):
            target.sendall(buffer[:count])
    for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)


if __name__ == "__main__":
    main(sys.argv[1:])
