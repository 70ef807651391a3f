"""The processes that are compared, and the upstream behind them.

Owns starting, configuring, probing and ending them. Every process is a child of this one, pinned before it executes,
listens on 127.0.0.1 only, is ended by its pid, and gets SIGTERM from the kernel should this process die first.
"""

import ctypes
import http.client
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

from measure import POST_BYTES, process_tree

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
# Request headers that the probe shows as the upstream receives them.
PROBED = ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Path",
          "X-Forwarded-Prefix", "X-Request-Id", "X-Kong-Request-Id", "Via"]


class Failure(Exception):
    """Something that ends the run, in words for the user."""


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


class Run:
    """What one run of the benchmark owns: a directory, CPUs, processes. Leaving it removes all of them."""

    def __init__(self, proxy_cpu, load_cpu, load):
        self.proxy_cpu, self.load_cpu, self.load, self.processes, self.ports = proxy_cpu, load_cpu, load, [], set()
        self.leaving = []  # what to undo at the end
        self.connections = 8192  # that a peer is told to provide for
        self.descriptors = None  # a limit for what is started from now on
        # Memory, so that no writeback of access logs runs during a measurement.
        shared = os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 2 << 30
        self.directory = tempfile.mkdtemp(prefix="ringway-bench-", dir="/dev/shm" if shared else None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
        for undo in self.leaving:
            undo()
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

    def spawn(self, name, argv, cpus, stdout=None):
        """`cpus`: one number, or a set of them."""
        def child():
            os.setsid()  # Ctrl-C reaches this process only, which then ends its children in order
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if self.descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors, self.descriptors))
            os.sched_setaffinity(0, cpus if isinstance(cpus, set) else {cpus})
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
        for _ in range(400):
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
events {{ worker_connections {run.connections}; }}
http {{
  {temporary} keepalive_requests 1000000000; default_type application/octet-stream;
  {http_block}
  server {{ listen 127.0.0.1:{port} backlog=4096; {server_block} }}
}}""")]


def start_upstream(run, address="127.0.0.1"):
    """Fixed answers at less cost than any proxy's."""
    run.upstream_port = run.port()
    argv = [run.load, "origin", "--listen", f"{address}:{run.upstream_port}"]
    run.upstream = run.spawn("upstream", argv, run.load_cpu)
    run.wait_ready("upstream", run.upstream, run.upstream_port, "/api/small")


class Contender:
    """One proxy under test. `log`: its access log; `does`: what it does for a request, besides what the probe finds."""

    kind = "peer"
    logs = None

    def __init__(self, name, binary, options):
        self.name, self.binary, self.options = name, binary, options
        self.parity = {}

    def start(self, run):
        self.port = run.port()
        self.log = os.path.join(run.directory, self.name, "access.log") if self.logs else None
        os.makedirs(os.path.join(run.directory, self.name))
        self.launch(run)
        run.wait_ready(self.name, self.process, self.port, "/api/small")

    def check(self, workloads):
        """Fails unless every workload's request is answered as the upstream answers it; fills `parity`."""
        for workload in workloads:
            method, body = ("POST", b"x" * POST_BYTES) if "--post" in workload.options else ("GET", None)
            status, _, answer = request(self.port, method, workload.path, body)
            if (status, len(answer)) != (200, workload.body_bytes):
                raise Failure(f"{self.name}: {method} {workload.path} gave {status} with {len(answer)} bytes, "
                              f"not 200 with {workload.body_bytes}")
        for _ in range(3):
            _, headers, answer = request(self.port, "GET", "/api/probe")
        upstream = dict(line.lower().split(": ", 1) for line in answer.decode().splitlines() if ": " in line)
        own = {"server", "date", "content-type", "content-length", "connection"}
        self.parity = {
            "version": self.version(),
            "request headers added": ", ".join(name for name in PROBED if name.lower() in upstream) or "none",
            "response headers added": ", ".join(name for name, _ in headers if name.lower() not in own) or "none",
            "upstream connection reused": "yes" if int(upstream["requests-on-connection"]) > 1 else "NO",
            "access log": self.logged(),
            "does": self.does,
        }

    def logged(self):
        if not self.log:
            return "none"
        time.sleep(0.5)
        with open(self.log, "rb") as log:
            line = log.read().splitlines()[-1:]
        return f"{len(line[0])} B per line, {self.logs}" if line else "NONE WRITTEN"

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
  maxconn {run.connections}
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


class Envoy(Contender):
    version_flags = ["--version"]
    logs = "as by default"
    does = "HTTP parsing, one route, streamed bodies"

    def launch(self, run):
        typed = "type.googleapis.com/envoy.extensions"
        line = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% - - [%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% " \
               "%PROTOCOL%\" %RESPONSE_CODE% %BYTES_SENT% \"%REQ(REFERER)%\" \"%REQ(USER-AGENT)%\" %REQ(X-REQUEST-ID)%\n"
        manager = {
            "@type": f"{typed}.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "bench",
            "use_remote_address": True,
            "access_log": [{"name": "file", "typed_config": {
                "@type": f"{typed}.access_loggers.file.v3.FileAccessLog", "path": self.log,
                "log_format": {"text_format_source": {"inline_string": line}}}}],
            "http_filters": [{"name": "router", "typed_config": {"@type": f"{typed}.filters.http.router.v3.Router"}}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "60s"}}]}]}}
        address = lambda port: {"socket_address": {"address": "127.0.0.1", "port_value": port}}  # noqa: E731
        endpoint = {"lb_endpoints": [{"endpoint": {"address": address(run.upstream_port)}}]}
        limits = {"thresholds": [{"max_connections": 8192, "max_requests": 8192, "max_pending_requests": 8192}]}
        conf = run.write(f"{self.name}/envoy.json", json.dumps({"static_resources": {
            "listeners": [{"address": address(self.port), "filter_chains": [{"filters": [
                {"name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": "upstream", "type": "STATIC", "circuit_breakers": limits,
                          "load_assignment": {"cluster_name": "upstream", "endpoints": [endpoint]}}]}}))
        self.process = run.spawn(self.name, [self.binary, "--concurrency", "1", "-l", "error", "-c", conf], run.proxy_cpu)


class Relay(Contender):
    """The floor: what moving the bytes costs alone."""

    does = "nothing but moving bytes; an upstream connection per client connection"

    def launch(self, run):
        argv = [run.load, "relay", "--listen", f"127.0.0.1:{self.port}", "--to", f"127.0.0.1:{run.upstream_port}"]
        self.process = run.spawn(self.name, argv, run.proxy_cpu)

    def version(self):
        return "tools/load"


class Running:
    """A process that somebody else started, as far as a measurement asks."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, "unknown"

    def poll(self):
        return None if os.path.exists(f"/proc/{self.pid}") else 1


class Kong(Contender):
    """A Kong that runs already, on this machine, pinned by who started it: it gets a service and a route, and loses them after."""

    does = "as it was configured"

    def launch(self, run):
        self.run = run
        self.port = port_of(os.environ["KONG_URL"])
        self.admin = port_of(os.environ.get("KONG_ADMIN_URL", "http://127.0.0.1:8001"))
        self.process = Running(int(os.environ["KONG_PID"]))
        service = post(self.admin, "/services", {"name": "bench", "url": f"http://127.0.0.1:{run.upstream_port}"})
        self.made = [f"/services/{service['id']}"]
        route = post(self.admin, "/routes", {"paths": ["/api"], "strip_path": False, "service": {"id": service["id"]}})
        self.made.insert(0, f"/routes/{route['id']}")
        run.leaving.append(self.clean)

    def clean(self):
        for path in self.made:
            request(self.admin, "DELETE", path)

    def version(self):
        return json.loads(request(self.admin, "GET", "/")[2])["version"]


def port_of(url):
    address = urllib.parse.urlsplit(url)
    if address.hostname != "127.0.0.1" or not address.port:
        raise Failure(f"{url}: an URL of the kind http://127.0.0.1:8000 is needed, as its CPU time is read on this machine")
    return address.port


class Ringway(Contender):
    kind = "ringway"
    version_flags = ["version"]
    logs = "as by default"

    def launch(self, run):
        prefix, admin, upstream = os.path.dirname(self.log), run.port(), run.upstream_port
        self.admin = admin
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
        raise Failure(f"POST {path} gave {status}: {answer[:500].decode(errors='replace')}")
    return json.loads(answer)


class Node:
    """A ringway, told what it serves in one document."""

    def __init__(self, run, binary, workers=1):
        self.run, self.name, self.log = run, f"ringway-{len(run.processes)}", None
        prefix = os.path.join(run.directory, self.name)
        self.port, self.admin = run.port(), run.port()
        settings = [f"proxy_listen=127.0.0.1:{self.port}", f"admin_listen=127.0.0.1:{self.admin}", "status_listen=off",
                    f"workers={workers}", "client_max_body_size=0"]
        flags = [word for setting in settings for word in ("--set", setting)]
        # Workers take the first CPUs; the control plane goes where the kernel likes.
        cpus = {run.proxy_cpu} if workers == 1 else {run.proxy_cpu, run.load_cpu}
        self.process = run.spawn(self.name, [binary, "start", "-p", prefix, *flags], cpus)
        run.wait_ready(self.name, self.process, self.admin, "/")

    def serve(self, **lists):
        """Replaces the configuration: a service at the upstream, a route to it, and the entities given."""
        document = {"_format_version": "3.0", "services": [{"name": "bench", "url": f"http://127.0.0.1:{self.run.upstream_port}"}],
                    "routes": [{"name": "bench", "paths": ["/api"], "strip_path": False, "service": "bench"}]}
        for name, entities in lists.items():
            document[name] = document.get(name, []) + entities
        body = json.dumps(document)
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=120)
        connection.request("POST", "/config", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 201:
            raise Failure(f"POST /config gave {answer.status}: {text[:500].decode(errors='replace')}")
        return self

    def end(self):
        self.run.stop(self.process)
