"""Crowds of clients that behave badly, or do nothing, and what measurements of them share.

Owns many sockets at a time and the reading of what they cost the other side; starts no contender.
"""

import os
import resource
import socket
import subprocess
import threading
import time

from contenders import Failure, request
from measure import memory_mib, process_tree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PATIENCE_S = 20
# Several addresses of loopback, so that local ports do not run out.
ADDRESSES = 8


def built(name, package):
    """The path of a program of this repository, which is built when it is missing."""
    path = os.path.join(ROOT, "target", "release", name)
    if not os.path.exists(path):
        print(f"building {name}", flush=True)
        if subprocess.run(["cargo", "build", "--release", "-q", "-p", package], cwd=ROOT, check=False).returncode:
            raise Failure(f"cargo build --release -p {package} failed")
    return path


def allow_descriptors(needed):
    """Raises this process's limit, and that of what it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failure(f"{needed} descriptors are needed and {hard} allowed (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def wait_for(what, ask):
    """What `ask` answers as soon as that is true; an error of a socket counts as false."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = ask()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > end:
            raise Failure(f"waited in vain for {what}")
        time.sleep(0.002)


def connect(port, number=0, timeout=10):
    return socket.create_connection(("127.0.0.1", port), timeout=timeout,
                                    source_address=(f"127.0.0.{2 + number % ADDRESSES}", 0))


def read_answer(client):
    """Reads one answer with a Content-Length, or without a body; its status, 0 when the connection ends before."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = client.recv(65536)
        if not piece:
            return 0
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        piece = client.recv(65536)
        if not piece:
            return 0
        body += piece
    return int(lines[0].split()[1])


def settled_memory(pid):
    """Bytes of the process and its children, once two looks in a row agree within 64 KiB."""
    last = None
    for _ in range(40):
        now = memory_mib(process_tree(pid)) * (1 << 20)
        if last is not None and abs(now - last) < 64 << 10:
            return now
        last = now
        time.sleep(0.25)
    return last


class Crowd:
    """Clients that connect, send something, and stay. Leaving it closes them all."""

    def __init__(self, port, count, says=b"", answered=False):
        self.clients = []
        for number in range(count):
            client = connect(port, number)
            self.clients.append(client)
            if says:
                client.sendall(says)
            if answered and not read_answer(client):
                raise Failure("a connection ended instead of an answer")
        self.stop = threading.Event()
        self.dribbling = None
        self.gone = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        if self.dribbling:
            self.dribbling.join()
        for client in self.clients:
            client.close()

    def dribble(self, period_s):
        """Each sends another byte in every period, spread over it."""

        def run():
            slices = 20
            while not self.stop.is_set():
                for part in range(slices):
                    for client in self.clients[part::slices]:
                        try:
                            client.send(b"x")
                        except OSError:
                            self.gone += 1
                    if self.stop.wait(period_s / slices):
                        return

        self.dribbling = threading.Thread(target=run, daemon=True)
        self.dribbling.start()


def is_served(port, path):
    return request(port, "GET", path)[0] == 200
