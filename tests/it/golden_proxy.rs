//! Recorded exchanges of a real Kong through the real gateway (`tests/data/proxy.jsonl`).
//! Owns: which records are not replayed yet, and which differences are meant. Always: a difference that is not in the
//! table fails, and so does one in the table that is no more.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::golden::compare::Exchange;
use crate::golden::compare::differences;
use crate::golden::pattern::Pattern;
use crate::golden::record::Record;
use crate::golden::servers;
use crate::golden::servers::Servers;
use crate::golden::setup::Setup;
use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Arrived;

/// Plugins whose records are replayed.
const PLUGINS: &[&str] = &[
    "acl",
    "basic-auth",
    "bot-detection",
    "correlation-id",
    "cors",
    "file-log",
    "ip-restriction",
    "jwt",
    "key-auth",
    "prometheus",
    "proxy-cache",
    "rate-limiting",
    "redirect",
    "request-size-limiting",
    "request-termination",
    "request-transformer",
    "response-ratelimiting",
    "response-transformer",
];

/// A difference that is meant: the record, how the lines of the comparison begin (all of them), and why.
type Exception = (&'static str, &'static [&'static str], &'static str);

/// Groups whose records are as good if the other of two equal targets answered. That a key keeps its target, and that
/// targets take turns, is shown by the tests of `balancing.rs`.
const EITHER_ECHO: [&str; 2] = ["passive", "hash"];

const BAD_REQUEST: &[&str] = &["status 400 instead of 200"];
const NO_STUB_PAGE: &[&str] =
    &["no Content-Type: text/html", "Content-Length: 0 instead of 1", "body: \"\" instead of \"<html>"];
const NO_STUB: &str = "a redirect needs no body (spec/router.md section 9)";
const CRLF_ONLY: &str = "lines end in CRLF, a header has a colon (requirements 1.1)";

const EXCEPTIONS: &[Exception] = &[
    ("basic/path /a/b#frag", BAD_REQUEST, "a raw # in a target is refused (requirements 1.6)"),
    ("badrequest/raw-utf8", BAD_REQUEST, "raw 8-bit bytes in a target are refused (requirements 1.6)"),
    ("badrequest/header-nocolon", BAD_REQUEST, CRLF_ONLY),
    ("badrequest/lf-only", BAD_REQUEST, CRLF_ONLY),
    ("badrequest/http09", &["status 400 instead of null"], "no HTTP/0.9 (requirements 1.9)"),
    ("upstream/garbage GET", &["status 502 instead of null"], "no HTTP/0.9 (requirements 1.9)"),
    ("upstream/garbage POST", &["status 502 instead of null"], "no HTTP/0.9 (requirements 1.9)"),
    (
        "basic/path /a/x%zz",
        &[
            "Content-Type: application/json; charset=utf-8 instead of text/plain; charset=utf-8",
            "Content-Length: 80 instead of 57",
            r#"body: "{\n  \"message\":\"Bad request\",\n"#,
        ],
        "the head is read before its target is judged, so Accept is known",
    ),
    (
        "headers/too-big-header",
        &[
            "Content-Type: text/plain; charset=utf-8 instead of application/json; charset=utf-8",
            "Content-Length: 80 instead of 103",
            r#"body: "Request header or cookie too large\nrequest_id: "#,
        ],
        "of a head that is refused nothing is believed, Accept neither",
    ),
    (
        "response/hdr=X-Accel-Redirect:/z",
        &["upstream: GET /?hdr=X-Accel-Redirect:/z HTTP/1.1 instead of GET / HTTP/1.1"],
        "an upstream's orders to an accelerator are not obeyed (spec/proxying.md section 5)",
    ),
    ("noroute/accept application/grpc", &["no Content-Type: "], "an empty Content-Type says nothing"),
    (
        "badrequest/bad-chunk",
        &[
            "no X-Kong-Upstream-Latency: <ms>",
            "no X-Kong-Proxy-Latency: <ms>",
            "no Via: 1.1 kong/<version>",
            "X-Kong-Response-Latency too many",
        ],
        "nothing of the request was handed to an upstream, so the answer is not a proxied one",
    ),
    (
        "retry/hang+ok GET 0",
        &["quicker than 0.5 s"],
        "round-robin begins where it likes, here with the peer that answers",
    ),
    ("https-only/301", NO_STUB_PAGE, NO_STUB),
    ("https-only/302", NO_STUB_PAGE, NO_STUB),
    ("https-only/307", NO_STUB_PAGE, NO_STUB),
    ("https-only/308", NO_STUB_PAGE, NO_STUB),
    ("https-only/post", NO_STUB_PAGE, NO_STUB),
    ("https-only/grpc", NO_STUB_PAGE, NO_STUB),
    (
        "request-transformer/add get",
        &["upstream: GET /x?q=1&a=zz HTTP/1.1 instead of GET /x?a=zz&q=1 HTTP/1.1"],
        "arguments are added in the order in which the configuration names them",
    ),
    (
        "request-termination/echo",
        &["body.matched_route: no ws_id", "body.matched_service: no ws_id"],
        "there are no workspaces to show",
    ),
];

/// How the records of a group went.
#[derive(Default)]
struct Counts {
    all: usize,
    same: usize,
    meant: usize,
}

/// Why a record is not replayed.
fn left_out(record: &Record) -> Option<String> {
    if record.response.is_null() {
        return Some("log lines, which golden_logs.rs compares".to_owned());
    }
    if record.name == "prometheus/admin-metrics" {
        return Some("metrics, which prometheus.rs compares".to_owned());
    }
    if !record.request["on"].is_null() {
        return Some(format!("port {}", record.request["on"]));
    }
    plugin_names(&record.config).find(|name| !PLUGINS.contains(&name.as_str())).map(|name| format!("plugin {name}"))
}

/// The names of all plugins, wherever they stand.
fn plugin_names(config: &Value) -> impl Iterator<Item = String> {
    fn walk(value: &Value, names: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, below)| {
                let plugins = below.as_array().filter(|_| name == "plugins").into_iter().flatten();
                names.extend(plugins.filter_map(|plugin| plugin["name"].as_str()).map(str::to_owned));
                walk(below, names);
            }),
            Value::Array(list) => list.iter().for_each(|below| walk(below, names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    walk(config, &mut names);
    names.into_iter()
}

/// Of service paths, route paths and requests.
fn is_of_matrix(record: &Record) -> bool {
    record.name.split('/').any(|part| part == "path")
}

/// A configuration and the records made under it.
type Run = (Value, Vec<Record>);

/// The records to be replayed in runs that share a configuration; why the others are not.
fn runs(flavor: &str) -> (Vec<Run>, BTreeMap<String, usize>) {
    let (mut runs, mut reasons) = (Vec::<Run>::new(), BTreeMap::new());
    for record in Record::all() {
        if record.router_flavor != flavor {
            continue;
        }
        if let Some(reason) = left_out(&record) {
            *reasons.entry(reason).or_insert(0) += 1;
            continue;
        }
        match runs.last_mut() {
            Some((config, records)) if *config == record.config => records.push(record),
            // The services of the path matrix were loaded together.
            Some((config, records)) if is_of_matrix(&records[0]) && is_of_matrix(&record) => {
                let services = config["services"].as_array_mut().expect("the matrix has services");
                let service = &record.config["services"][0];
                if services.last() != Some(service) {
                    services.push(service.clone());
                }
                records.push(record);
            }
            _ => runs.push((record.config.clone(), vec![record])),
        }
    }
    (runs, reasons)
}

/// Whether connections of clients carry one request or as many as they can.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    Fresh,
    Kept,
}

/// The client of a replay.
struct Caller<'a> {
    gateway: &'a Gateway,
    servers: &'a Servers,
    connections: Connections,
    kept: Option<Client>,
}

impl Caller<'_> {
    fn exchange(&mut self, record: &Record, pattern: &Pattern) -> Exchange {
        let mut client = self.kept.take().unwrap_or_else(|| self.gateway.connect());
        let start = Instant::now();
        client.send_what_is_taken(&record.request_bytes(|text| pattern.put_in(text)));
        let response = match record.method() {
            "HEAD" => client.head(),
            _ => client.response(),
        };
        let elapsed_s = start.elapsed().as_secs_f64();
        if response.header("connection").is_some_and(|words| words.starts_with("close")) {
            client.must_end();
        } else if self.connections == Connections::Kept {
            self.kept = Some(client);
        }
        Exchange { response, arrived: self.servers.arrived(), elapsed_s }
    }
}

/// What reached the upstream for the responses that the cache answers with later: the recording tells it of these answers,
/// too, as it was read from their bodies.
#[derive(Default)]
struct Kept(BTreeMap<String, Vec<(u16, Arrived)>>);

impl Kept {
    fn with_what_is_behind(&mut self, record: &Record, mut real: Exchange) -> Exchange {
        let path = record.request["path"].to_string();
        match real.response.header("x-cache-status") {
            Some("Hit") if real.arrived.is_empty() => real.arrived = self.0.get(&path).cloned().unwrap_or_default(),
            Some("Miss") if record.method() == "GET" => drop(self.0.insert(path, real.arrived.clone())),
            _ => {}
        }
        real
    }
}

#[test]
fn recorded_exchanges() {
    replay(Driver::any(), Connections::Fresh, "traditional_compatible");
}

#[test]
fn recorded_exchanges_on_kept_connections() {
    replay(Driver::Epoll, Connections::Kept, "traditional_compatible");
}

#[test]
fn recorded_exchanges_of_the_flavour_traditional() {
    replay(Driver::any(), Connections::Fresh, "traditional");
}

#[track_caller]
fn replay(driver: Driver, connections: Connections, flavor: &str) {
    let servers = Servers::start();
    let resolver = format!("127.0.0.1:{}", servers::name_server());
    // One worker: its count of picks and of generated ids goes on from record to record, as in the recorded process.
    let gateway = Gateway::with(driver, &[("workers", "1"), ("dns_resolver", &resolver), ("router_flavor", flavor)]);
    let mut known = servers.ports();
    known.push(("<proxy_port>".to_owned(), gateway.proxy.to_string()));
    known.push(("<prefix>".to_owned(), gateway.prefix().display().to_string()));
    known.push(("kong/<version>".to_owned(), format!("ringway/{}", env!("CARGO_PKG_VERSION"))));
    let mut pattern = Pattern::new(known);
    let mut setup = Setup::new(&gateway);
    let mut caller = Caller { gateway: &gateway, servers: &servers, connections, kept: None };
    let (runs, reasons) = runs(flavor);
    let mut groups = BTreeMap::<String, Counts>::new();
    let mut wrong = Vec::new();
    for (config, records) in &runs {
        setup.replace(config, &pattern);
        if plugin_names(config).any(|name| name.contains("limiting")) {
            wait_for_room_in_the_minute();
        }
        let mut kept = Kept::default();
        for record in records {
            let real = kept.with_what_is_behind(record, caller.exchange(record, &pattern));
            // Which of the two it is hangs on their port numbers (hashing), or on where a ring begins.
            let swapped = EITHER_ECHO.contains(&record.group()).then(|| record.with_echoes_swapped());
            let by_other = |swapped: &Record| {
                real.arrived.first().is_some_and(|(port, _)| {
                    pattern.put_in(swapped.upstream["port"].as_str().unwrap_or_default()) == port.to_string()
                })
            };
            let record = swapped.as_ref().filter(|swapped| by_other(swapped)).unwrap_or(record);
            let found = differences(&mut pattern, record, &real);
            let meant = EXCEPTIONS.iter().find(|(name, ..)| *name == record.name);
            let group = groups.entry(record.group().to_owned()).or_default();
            group.all += 1;
            match meant {
                None if found.is_empty() => group.same += 1,
                Some((_, lines, _)) if are_those(&found, lines) => group.meant += 1,
                Some((_, lines, _)) => wrong.push(format!("{} {}: {found:?}, not {lines:?}", record.seq, record.name)),
                None => wrong.push(format!(
                    "{} {}: {}; it was {} {:?}",
                    record.seq,
                    record.name,
                    found.join("; "),
                    real.response.status,
                    real.response.text().chars().take(120).collect::<String>()
                )),
            }
        }
    }
    report(&groups, &reasons);
    let of_this_flavor = Record::all().into_iter().filter(|record| record.router_flavor == flavor);
    let names: Vec<String> = of_this_flavor.map(|record| record.name).collect();
    for (name, ..) in EXCEPTIONS.iter().filter(|(name, ..)| names.iter().any(|known| known == name)) {
        let is_replayed = runs.iter().flat_map(|(_, records)| records).any(|record| record.name == *name);
        assert!(is_replayed, "the table names {name:?}, which is not replayed");
    }
    assert!(wrong.is_empty(), "{} records differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Counts begin anew with the minute, which must not happen between two records.
fn wait_for_room_in_the_minute() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    let second = now.as_secs() % 60;
    if second >= 55 {
        std::thread::sleep(Duration::from_secs(60 - second));
    }
}

fn are_those(found: &[String], lines: &[&str]) -> bool {
    found.len() == lines.len() && found.iter().zip(lines).all(|(found, line)| found.starts_with(line))
}

fn report(groups: &BTreeMap<String, Counts>, reasons: &BTreeMap<String, usize>) {
    let print = |name: &str, counts: &Counts| {
        println!("{name}: {} of {}, and {} meant to differ", counts.same, counts.all, counts.meant);
    };
    let mut sum = Counts::default();
    for (group, counts) in groups {
        print(group, counts);
        sum.all += counts.all;
        sum.same += counts.same;
        sum.meant += counts.meant;
    }
    print("as recorded", &sum);
    for (reason, count) in reasons {
        println!("not replayed: {count}, {reason}");
    }
}
