"""Connections to workers: to this machine without a proxy, to others through the environment's proxy."""

import os
import socket
import urllib.parse

import grpc

from tff_personalization import errors

_OPTIONS = [(f"grpc.max_{kind}message_length", 2_000_000_000) for kind in ("", "receive_", "send_")]
# In the order in which gRPC reads them; it ignores upper-case names.
_PROXIES, _EXCEPTIONS = ("grpc_proxy", "https_proxy", "http_proxy"), ("no_grpc_proxy", "no_proxy")


def channel(target: str) -> grpc.Channel:
    """A connection for messages with models and client data; `target` is host:port or unix:path."""
    return grpc.insecure_channel(target, [*_OPTIONS, ("grpc.enable_http_proxy", int(bool(proxy_to(target))))])


def proxy_to(target: str) -> str:
    """The proxy of connections to a worker, without its password; "" if there is none.

    Loopback and Unix sockets never use a proxy.
    """
    proxy = next((os.environ[name] for name in _PROXIES if os.environ.get(name)), "")
    host = target.rpartition(":")[0].strip("[]").lower()
    if not proxy or target.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127."):
        return ""
    exceptions = next((os.environ[name] for name in _EXCEPTIONS if os.environ.get(name)), "")
    if any(host.endswith(end) for end in exceptions.lower().replace(" ", "").split(",") if end):
        return ""
    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def check_loopback() -> None:
    """Raises UserError if this machine cannot connect to itself."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
            pass
    except OSError as error:
        raise errors.UserError(
            f"loopback is down (127.0.0.1: {error.strerror or error}), and TFF's worker is reached through it: bring "
            "it up (ip link set lo up)."
        ) from error
