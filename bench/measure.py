"""One measurement: load against one contender, with the CPU time that the contender spent meanwhile.

Owns the workloads, the reading of /proc and the run of the load generator; starts no contender.

The figure is CPU time of the contender divided by finished requests. CPU time comes from the scheduler's own
nanosecond counter (sum_exec_runtime), not from the ticks of /proc/PID/stat. /proc/PID/task/*/schedstat shows that
counter per thread, and the process CPU clock shows its sum over the thread group, ended threads included, which a sum
over task/ would lose. io_uring's kernel workers are tasks of the process that owns the ring (their names begin with
"iou-wrk-" or "iou-sqp-"): tried on Linux 6.18 with reads forced to workers and with SQPOLL, they are listed in
/proc/PID/task, their run time is in the process CPU clock, and they inherit the affinity. So nothing is added for
them; `uring_share` says how much of the figure is theirs.
"""

import collections
import glob
import json
import os
import resource
import subprocess
import time

Workload = collections.namedtuple("Workload", "title path connections body_bytes options", defaults=((),))
POST_BYTES = 1024
SMALL_BYTES = 128
# body_bytes: length of the response body, checked before the first measurement. options: of `load generate`.
WORKLOADS = {
    "W1": Workload("GET 128 B", "/api/small", 64, SMALL_BYTES),
    "W2": Workload("GET 128 B, one client", "/api/small", 1, SMALL_BYTES),
    "W3": Workload("GET 128 B, many clients", "/api/small", 512, SMALL_BYTES),
    "W4": Workload("GET 16 KiB", f"/api/bytes/{16 << 10}", 64, 16 << 10),
    "W5": Workload("GET 1 MiB", f"/api/bytes/{1 << 20}", 64, 1 << 20),
    "W6": Workload("POST 1 KiB", "/api/sink", 64, 2, ("--post", str(POST_BYTES))),
    "W7": Workload("GET 128 B, connection per request", "/api/small", 64, SMALL_BYTES, ("--close",)),
    "W8": Workload("GET 128 B, 15,000 per second whatever comes back", "/api/small", 64, SMALL_BYTES, ("--rate", "15000")),
}

SATURATED = 0.95  # busy share of a CPU from which it counts as saturated
DRAIN_SECONDS = 0.3  # after load, for log buffers (nginx is told 200 ms) and closing connections


def read(path):
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def process_tree(pid):
    """The process and all its descendants that live now."""
    pids = [pid]
    for parent in pids:
        for path in glob.glob(f"/proc/{parent}/task/*/children"):
            try:
                pids += map(int, read(path).split())
            except OSError:  # the thread ended between the listing and the reading
                pass
    return pids


def cpu_ns(pids):
    """Run time of all threads that these processes have or had, kernel workers included."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)  # 2: CPUCLOCK_SCHED, see the kernel's posix-timers


def uring_ns(pids):
    """Run time of io_uring's kernel workers, already a part of `cpu_ns`."""
    total = 0
    for task in (path for pid in pids for path in glob.glob(f"/proc/{pid}/task/*")):
        try:
            if read(f"{task}/comm").startswith("iou-"):
                total += int(read(f"{task}/schedstat").split()[0])
        except OSError:
            pass
    return total


def memory_mib(pids):
    """Proportional set size: as RSS, but pages that a master and its worker share count once."""
    lines = (line for pid in pids for line in read(f"/proc/{pid}/smaps_rollup").splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_ticks(cpu):
    """(busy, total) ticks of one CPU since boot; busy includes time that the hypervisor stole."""
    fields = next(line for line in read("/proc/stat").splitlines() if line.startswith(f"cpu{cpu} "))
    ticks = [int(word) for word in fields.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # 3: idle, 4: iowait


def run_load(run, workload, port, seconds):
    """The generator's own figures, with `problem` None when every request was answered with 2xx or 3xx."""
    argv = [run.load, "generate", "--to", f"127.0.0.1:{port}", "--path", workload.path, "--connections",
            str(workload.connections), "--seconds", str(seconds), *workload.options]
    process = run.spawn("load", argv, run.load_cpu, stdout=subprocess.PIPE)
    try:
        output = process.communicate(timeout=seconds + 20)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        return {"requests": 0, "problem": "the load generator did not end in time"}
    finally:
        run.stop(process)
    if not output.startswith("{"):
        return {"requests": 0, "problem": f"the load generator failed: {output[-200:]}"}
    result = json.loads(output)
    failed = [f"{count} {kind}" for kind, count in result["errors"].items() if count]
    result["problem"] = "errors: " + ", ".join(failed) if failed else None if result["requests"] else "no request was answered"
    return result


def measure(run, contender, workload, seconds, warmup_seconds):
    """Warm up, then measure once; the returned record has a `problem` when its figures must not be used."""
    try:
        if contender.process.poll() is None:
            run_load(run, workload, contender.port, warmup_seconds)
            time.sleep(DRAIN_SECONDS)
            return measure_warm(run, contender, workload, seconds)
    except OSError as error:  # what /proc says of a process that has just ended
        if contender.process.poll() is None:
            return {"problem": f"could not be measured: {error}"}
    return {"problem": f"the process ended with status {contender.process.returncode}"}


def measure_warm(run, contender, workload, seconds):
    if contender.log:
        os.truncate(contender.log, 0)

    pids = process_tree(contender.process.pid)
    upstream = process_tree(run.upstream.pid)
    cpus = (run.proxy_cpu, run.load_cpu)

    def counters():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # the generator is the only child that ends in between
        return (cpu_ns(pids), uring_ns(pids), cpu_ns(upstream) + (usage.ru_utime + usage.ru_stime) * 1e9,
                time.perf_counter_ns(), [cpu_ticks(cpu) for cpu in cpus])

    before = counters()
    record = run_load(run, workload, contender.port, seconds)
    if contender.process.poll() is None and process_tree(contender.process.pid) != pids:
        return {"problem": "a process of the contender ended or began during the measurement"}
    after = counters()
    proxy, uring, load, wall = (after[i] - before[i] for i in range(4))
    busy = [(a[0] - b[0]) / max(1, a[1] - b[1]) for a, b in zip(after[4], before[4])]
    time.sleep(DRAIN_SECONDS)
    lines = record["requests"]
    if contender.log:
        with open(contender.log, "rb") as log:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
    saturated = [who for who, share in zip(("proxy", "load"), busy) if share >= SATURATED]
    record.update(
        memory_mib=memory_mib(pids), proxy_share=proxy / wall, uring_share=uring / max(1, proxy),
        proxy_cpu_busy=busy[0], load_cpu_busy=busy[1], saturated="+".join(saturated) or "neither",
        # Busy time that is neither the contender's nor the load's: other work on the machine, or stolen; so noise.
        foreign=[max(0, busy[0] - proxy / wall), max(0, busy[1] - load / wall)])
    if record["requests"]:
        record.update(cpu_us=proxy / 1e3 / record["requests"], log_share=lines / record["requests"],
                      rps=record["requests"] * 1e6 / record["duration_us"])
    return record
