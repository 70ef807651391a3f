"""The processes that are compared, and the upstream behind them.

Owns starting, configuring, probing and ending them. Every process is a child of this one, pinned before it executes,
listens on 127.0.0.1 only, is ended by its pid, and gets SIGTERM from the kernel should this process die first.
"""

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from measure import POST_BYTES, SMALL_BYTES, WRK_LUA, process_tree

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
# Request headers that the probe shows as the upstream receives them.
PROBED = ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Path",
          "X-Forwarded-Prefix", "X-Request-Id", "X-Kong-Request-Id", "Via"]


class Failure(Exception):
    """Something that ends the run, in words for the user."""


class Run:
    """What one run of the benchmark owns: a directory, CPUs, processes. Leaving it removes all of them."""

    def __init__(self, proxy_cpu, load_cpu):
        self.proxy_cpu, self.load_cpu, self.processes, self.ports = proxy_cpu, load_cpu, [], set()
        # Memory, so that no writeback of access logs runs during a measurement.
        shared = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2 << 30
        self.directory = tempfile.mkdtemp(prefix="ringway-bench-", dir="/dev/shm" if shared else None)
        self.wrk_script = self.write("wrk.lua", WRK_LUA)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        for process in reversed(self.processes[:]):
            self.stop(process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        return path

    def port(self):
        """A port that is free now and was not given before."""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in self.ports:
                self.ports.add(port)
                return port

    def spawn(self, name, argv, cpu, stdout=None):
        def child():
            os.setsid()  # Ctrl-C reaches this process only, which then ends its children in order
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.sched_setaffinity(0, {cpu})
        with open(os.path.join(self.directory, f"{name}.err"), "ab") as err:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or err, stderr=err, preexec_fn=child)
        self.processes.append(process)
        return process

    def stop(self, process):
        """SIGTERM, then SIGKILL to what is left of its tree after five seconds."""
        if process.poll() is None:
            tree = process_tree(process.pid)
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in tree:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                process.wait()
        self.processes.remove(process)

    def wait_ready(self, name, process, port, path):
        for _ in range(200):
            if process.poll() is not None:
                break
            try:
                if request(port, "GET", path)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        with open(os.path.join(self.directory, f"{name}.err"), errors="replace") as err:
            raise Failure(f"{name} does not answer GET {path} on its port; it printed:\n{err.read()[-2000:]}")


def request(port, method, path, body=None, headers={}):
    """(status, headers, body) of one request on a fresh connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.getheaders(), answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{method} {path}: {error!r}") from error
    finally:
        connection.close()


def nginx_conf(run, name, port, http_block, server_block):
    directory = os.path.join(run.directory, name)
    os.makedirs(directory, exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    # As root the worker would change to a user that may not enter the private directory.
    user = "user root root;" if os.geteuid() == 0 else ""
    return ["nginx", "-p", directory, "-e", f"{directory}/error.log", "-c", run.write(f"{name}/nginx.conf", f"""
{user} daemon off; pid {directory}/pid; worker_processes 1; error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  {temporary} keepalive_requests 1000000000; default_type application/octet-stream;
  {http_block}
  server {{ listen 127.0.0.1:{port} backlog=4096; {server_block} }}
}}""")]


def start_upstream(run):
    """nginx with fixed answers: small and sink from its configuration, the others from files by sendfile."""
    port = run.port()
    run.write("upstream/api/16k", b"x" * (16 << 10))
    run.write("upstream/api/1m", b"x" * (1 << 20))
    probe = "".join(f"{name}: $http_{name.lower().replace('-', '_')}\\n" for name in PROBED)
    argv = nginx_conf(run, "upstream", port, "access_log off; sendfile on; open_file_cache max=16;", f"""
      root {run.directory}/upstream;
      location = /api/small {{ return 200 "{'x' * SMALL_BYTES}"; }}
      location = /api/sink {{ return 200 "ok"; }}
      location = /api/probe {{ return 200 "{probe}Requests-On-Connection: $connection_requests\\n"; }}""")
    run.upstream = run.spawn("upstream", argv, run.load_cpu)
    run.wait_ready("upstream", run.upstream, port, "/api/small")
    run.upstream_port = port


class Contender:
    """One proxy under test. `log`: its access log; `does`: what it does for a request, besides what the probe finds."""

    kind = "peer"

    def __init__(self, name, binary, options):
        self.name, self.binary, self.options = name, binary, options
        self.parity = {}

    def start(self, run):
        self.port = run.port()
        self.log = os.path.join(run.directory, self.name, "access.log")
        os.makedirs(os.path.dirname(self.log))
        self.launch(run)
        run.wait_ready(self.name, self.process, self.port, "/api/small")

    def check(self, workloads):
        """Fails unless every workload's request is answered as the upstream answers it; fills `parity`."""
        for workload in workloads:
            method, body = ("POST", b"x" * POST_BYTES) if "POST" in workload.options else ("GET", None)
            status, _, answer = request(self.port, method, workload.path, body)
            if (status, len(answer)) != (200, workload.body_bytes):
                raise Failure(f"{self.name}: {method} {workload.path} gave {status} with {len(answer)} bytes, "
                              f"not 200 with {workload.body_bytes}")
        for _ in range(3):
            _, headers, answer = request(self.port, "GET", "/api/probe")
        upstream = dict(line.split(": ", 1) for line in answer.decode().splitlines())
        own = {"server", "date", "content-type", "content-length", "connection"}
        time.sleep(0.5)
        with open(self.log, "rb") as log:
            line = log.read().splitlines()[-1:]
        self.parity = {
            "version": self.version(),
            "request headers added": ", ".join(name for name in PROBED if upstream[name]),
            "response headers added": ", ".join(name for name, _ in headers if name.lower() not in own) or "none",
            "upstream connection reused": "yes" if int(upstream["Requests-On-Connection"]) > 1 else "NO",
            "access log": f"{len(line[0])} B per line, {self.logs}" if line else "NONE WRITTEN",
            "does": self.does,
        }

    def version(self):
        done = subprocess.run([self.binary, *self.version_flags], capture_output=True, text=True, check=False)
        return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0].removeprefix("nginx version: ")


class Nginx(Contender):
    version_flags = ["-v"]
    logs = "buffered 64 KiB"
    does = "HTTP parsing, one location, bodies buffered (default sizes, no temporary files)"

    def launch(self, run):
        self.process = run.spawn(self.name, nginx_conf(run, self.name, self.port, f"""
  log_format bench '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" '
                   '"$http_user_agent" request_id: "$request_id"';
  access_log {self.log} bench buffer=64k flush=200ms;
  upstream up {{ server 127.0.0.1:{run.upstream_port}; keepalive 1024; keepalive_requests 1000000000; }}""", """
    location / {
      proxy_pass http://up; proxy_http_version 1.1; proxy_max_temp_file_size 0;
      proxy_set_header Connection ""; proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Path $uri; proxy_set_header X-Request-Id $request_id;
      add_header X-Request-Id $request_id;
    }"""), run.proxy_cpu)


class Haproxy(Contender):
    version_flags = ["-v"]
    logs = "one write per line"
    does = "HTTP parsing, one backend, streamed bodies"

    def launch(self, run):
        conf = run.write(f"{self.name}/haproxy.cfg", f"""
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0 info
defaults
  mode http
  log global
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:{self.port} backlog 4096
  log-format '%ci - - [%trl] %{{+Q}}r %ST %B request_id: %{{+Q}}ID'
  unique-id-format %[uuid()]
  unique-id-header X-Request-Id
  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Path %[path]
  http-response set-header X-Request-Id %[unique-id]
  default_backend upstream
backend upstream
  server up 127.0.0.1:{run.upstream_port}
""")
        with open(self.log, "ab") as log:  # HAProxy logs to no file by itself, but its output may be one
            self.process = run.spawn(self.name, [self.binary, "-db", "-f", conf], run.proxy_cpu, stdout=log)


class Ringway(Contender):
    kind = "ringway"
    version_flags = ["version"]
    logs = "as by default"

    def launch(self, run):
        prefix, admin, upstream = os.path.dirname(self.log), run.port(), run.upstream_port
        self.log = os.path.join(prefix, "logs", "access.log")
        settings = [f"proxy_listen=127.0.0.1:{self.port}", f"admin_listen=127.0.0.1:{admin}", "status_listen=off",
                    "workers=1", *self.options.ringway_set]
        flags = [word for setting in settings for word in ("--set", setting)]
        self.process = run.spawn(self.name, [self.binary, "start", "-p", prefix, *flags], run.proxy_cpu)
        run.wait_ready(self.name, self.process, admin, "/")
        service = post(admin, "/services", {"name": "bench", "url": f"http://127.0.0.1:{upstream}"})
        post(admin, "/routes", {"paths": ["/"], "service": {"id": service["id"]}})
        for number in range(self.options.routes):  # siblings of the measured paths, so that the search descends
            post(admin, "/routes", {"paths": [f"/api/{number:05}/orders"], "service": {"id": service["id"]}})
        self.does = (f"strict HTTP parsing and framing, router with {self.options.routes + 1} routes, balancer, retries, "
                     "streamed bodies; control plane in the same process and its CPU time counted")
        if self.options.ringway_set:
            self.does += "; set: " + " ".join(self.options.ringway_set)


def post(port, path, row):
    status, _, answer = request(port, "POST", path, json.dumps(row), {"Content-Type": "application/json"})
    if status != 201:
        raise Failure(f"ringway: POST {path} gave {status}: {answer[:500].decode(errors='replace')}")
    return json.loads(answer)
