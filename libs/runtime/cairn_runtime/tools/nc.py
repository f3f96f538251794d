"""A little of netcat: `nc [-w SECONDS] HOST PORT` and `nc [-w SECONDS] -l -p PORT`.

Copies standard input to the connection and the connection to standard output, until the other
side has closed it. `-w` bounds how long the other side is waited for and how long silence is
borne. Unlike netcat, a client whose connection is refused tries again within that time: tasks of
a gang start together, and the one that listens may be a moment late.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import sys
import time

_RETRY_SECONDS = 0.1


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0, or 1 when there was no connection."""
    parser = argparse.ArgumentParser(prog="nc")
    parser.add_argument("-w", type=float, metavar="SECONDS", help="give up after this time")
    parser.add_argument("-l", action="store_true", help="listen")
    parser.add_argument("-p", type=int, metavar="PORT", help="the port to listen on")
    parser.add_argument("words", nargs="*", metavar="HOST PORT")
    options = parser.parse_args(arguments)
    try:
        if options.l:
            words = [*options.words, options.p] if options.p is not None else options.words
            if not words:
                parser.error("-l needs a port")
            peer = _accept(int(words[-1]), options.w)
        elif len(options.words) == 2:
            peer = _connect(options.words[0], int(options.words[1]), options.w)
        else:
            parser.error("a host and a port are needed")
        with peer:
            _relay(peer, options.w)
    except OSError as error:
        sys.stderr.write(f"nc: {error}\n")
        return 1
    return 0


def _accept(port: int, seconds: float | None) -> socket.socket:
    with socket.create_server(("", port), backlog=1) as server:
        server.settimeout(seconds)
        return server.accept()[0]


def _connect(host: str, port: int, seconds: float | None) -> socket.socket:
    until = time.monotonic() + (seconds or 0)
    while True:
        try:
            return socket.create_connection((host, port), timeout=seconds)
        except ConnectionRefusedError:
            if time.monotonic() + _RETRY_SECONDS >= until:
                raise
            time.sleep(_RETRY_SECONDS)


def _relay(peer: socket.socket, seconds: float | None) -> None:
    peer.settimeout(seconds)
    with selectors.SelectSelector() as selector:  # epoll refuses regular files as input
        selector.register(0, selectors.EVENT_READ)
        selector.register(peer, selectors.EVENT_READ)
        while events := selector.select(seconds):
            for key, _ in events:
                if key.fd == 0:
                    if data := os.read(0, 65536):
                        peer.sendall(data)
                    else:
                        selector.unregister(0)
                        peer.shutdown(socket.SHUT_WR)
                elif data := peer.recv(65536):
                    while data:
                        data = data[os.write(1, data) :]
                else:
                    return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
