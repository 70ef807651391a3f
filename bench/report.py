"""Records -> what is read: medians with spread, ratios, notes of doubt; as Markdown, which is also what is printed.

Pure: takes values, gives text.
"""

from statistics import median

from measure import WORKLOADS

# ringway's CPU per request divided by the peer's, at most.
TARGETS = {
    "W1": {"nginx": 0.60, "haproxy": 0.55}, "W4": {"nginx": 0.60, "haproxy": 0.55}, "W6": {"nginx": 0.60, "haproxy": 0.55},
    "W3": {"nginx": 0.62, "haproxy": 0.60}, "W5": {"nginx": 0.50, "haproxy": 0.80}, "W7": {"nginx": 0.85, "haproxy": 0.80},
    "W2": {"nginx": 0.90, "haproxy": 0.85}, "W8": {"nginx": 0.90, "haproxy": 0.85},
}
# To the blind relay, which is the floor; Envoy and Kong, in every workload.
TO_RELAY = {"W1": 1.15, "W2": 1.1, "W3": 1.2, "W4": 1.15, "W6": 1.15, "W8": 1.1}
for _name, _targets in TARGETS.items():
    _targets |= {"envoy": 0.25, "kong": 0.22}
    if _name in TO_RELAY:
        _targets["relay"] = TO_RELAY[_name]
FOREIGN = 0.05  # share of a CPU taken by other work from which a figure is called disturbed
UNEQUAL = 0.10  # difference in the load of the proxies' CPU from which their costs are called not like for like
COLUMNS = ["contender", "CPU us/req", "min-max", "req/s", "p50 ms", "p99 ms", "memory MiB", "cpu busy proxy/load",
           "saturated", "others proxy/load"]


def table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    return lines[:1] + ["|" + "|".join("-" * (width + 2) for width in widths) + "|"] + lines[1:]


def summarise(records):
    """Medians over rounds of one contender in one workload; only `problems` when any round had one."""
    problems = [f"round {record['round']}: {record['problem']}" for record in records if record["problem"]]
    if problems or not records:
        return {"problems": problems or ["not measured"]}
    keys = ["cpu_us", "rps", "p50_us", "p99_us", "memory_mib", "proxy_share", "uring_share", "proxy_cpu_busy",
            "load_cpu_busy", "log_share"]
    summary = {key: median(record[key] for record in records) for key in keys}
    costs = [record["cpu_us"] for record in records]
    verdicts = [record["saturated"] for record in records]
    return summary | {
        "problems": [], "cpu_us_min": min(costs), "cpu_us_max": max(costs),
        "saturated": max(set(verdicts), key=verdicts.count),
        "foreign": [median(record["foreign"][i] for record in records) for i in (0, 1)]}


def row_of(name, s):
    if s["problems"]:
        return [name, "INVALID"] + ["-"] * (len(COLUMNS) - 2)
    return [name, f"{s['cpu_us']:.2f}", f"{s['cpu_us_min']:.2f}-{s['cpu_us_max']:.2f}", f"{s['rps']:.0f}",
            f"{s['p50_us'] / 1e3:.2f}", f"{s['p99_us'] / 1e3:.2f}", f"{s['memory_mib']:.1f}",
            f"{s['proxy_cpu_busy']:.0%} / {s['load_cpu_busy']:.0%}", s["saturated"],
            f"{s['foreign'][0]:.0%} / {s['foreign'][1]:.0%}"]


def ratio(records, first, second, key):
    """(median, min, max) of first/second within each round, where both met the same disturbance."""
    value = {(record["round"], record["contender"]): record[key] for record in records}
    rounds = {record["round"] for record in records}
    ratios = [value[number, first] / max(value[number, second], 1e-9) for number in rounds]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def report_workload(name, contenders, records):
    """(JSON value, Markdown lines) of one workload."""
    summaries = {c.name: summarise([record for record in records if record["contender"] == c.name]) for c in contenders}
    workload = WORKLOADS[name]
    lines = [f"### {name}: {workload.title}, {workload.connections} connection{'s' * (workload.connections > 1)}", ""]
    lines += table([COLUMNS] + [row_of(who, summary) for who, summary in summaries.items()]) + [""]
    lines += [f"- **{who} is INVALID**: {'; '.join(s['problems'])}" for who, s in summaries.items() if s["problems"]]
    valid = {who: summary for who, summary in summaries.items() if not summary["problems"]}
    base, ratios = contenders[0], {}
    for other in (c for c in contenders[1:] if base.name in valid and c.name in valid):
        of = {key: ratio(records, base.name, other.name, key) for key in ("cpu_us", "rps", "p50_us", "p99_us")}
        ratios[f"{base.name}/{other.name}"] = of
        target = TARGETS[name].get(other.name) if base.kind == "ringway" else None
        verdict = f" (target {target:.2f}: {'met' if of['cpu_us']['median'] <= target else 'MISSED'})" if target else ""
        lines.append(f"- **{base.name}/{other.name}: CPU {of['cpu_us']['median']:.2f}** "
                     f"[{of['cpu_us']['min']:.2f}-{of['cpu_us']['max']:.2f}]{verdict}, throughput {of['rps']['median']:.2f}, "
                     f"p50 {of['p50_us']['median']:.2f}, p99 {of['p99_us']['median']:.2f}")
    return {"contenders": summaries, "ratios": ratios}, lines + [f"- {note}" for note in notes(valid)] + [""]


def notes(valid):
    """Reasons to trust a table less."""
    shares = {who: summary["proxy_share"] for who, summary in valid.items()}
    if shares and max(shares.values()) - min(shares.values()) > UNEQUAL:
        yield ("unequal pressure: " + ", ".join(f"{who} used {share:.0%} of its CPU" for who, share in shares.items())
               + "; a proxy that waits batches less and pays for wake-ups, so CPU per request is not like for like")
    disturbed = [f"{max(s['foreign']):.0%} beside {who}" for who, s in valid.items() if max(s["foreign"]) > FOREIGN]
    if disturbed:
        yield "disturbed: other work took of a CPU " + ", ".join(disturbed)
    for who, summary in valid.items():
        if summary["log_share"] < 0.95:
            yield f"{who} logged only {summary['log_share']:.0%} of its requests"
        if summary["uring_share"] > 0.01:
            yield f"{who}: {summary['uring_share']:.0%} of its CPU time is io_uring kernel workers (included)"


def report(contenders, records, machine, options):
    """(JSON value, Markdown text) of the whole run."""
    names = [c.name for c in contenders]
    lines = [f"## {' against '.join(names)}", "",
             f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}. Each proxy: one worker on "
             f"cpu{options.proxy_cpu}; load and upstream on cpu{options.load_cpu}. {options.rounds} interleaved rounds of "
             f"{options.seconds} s; medians. CPU: run time of all threads of the proxy, io_uring workers included, per "
             "request. Ratios: within each round, then median.", ""]
    lines += ["What each does per request (headers, reuse and log as found by a probe before the first measurement):", ""]
    for contender in contenders:
        lines += [f"- **{contender.name}**"] + [f"  - {key}: {value}" for key, value in contender.parity.items()]
    lines.append("")
    kept = ("rounds", "seconds", "warmup", "routes", "ringway_set", "proxy_cpu", "load_cpu")  # no paths of this machine
    chosen = {key: getattr(options, key) for key in kept}
    result = {"machine": machine, "options": chosen, "parity": {c.name: c.parity for c in contenders},
              "workloads": {}, "measurements": records}
    for name in options.workloads:
        value, text = report_workload(name, contenders, [record for record in records if record["workload"] == name])
        result["workloads"][name] = value
        lines += text
    return result, "\n".join(lines)
