//! Recorded exchanges of a real Kong through the real gateway (`tests/data/proxy.jsonl`).
//! Owns: which records are not replayed yet, and which differences are meant. Always: a difference that is not in the
//! table fails, and so does one in the table that is no more.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::golden::compare::Exchange;
use crate::golden::compare::differences;
use crate::golden::pattern::Pattern;
use crate::golden::record::Record;
use crate::golden::servers;
use crate::golden::servers::Servers;
use crate::golden::setup::Setup;
use crate::harness::Driver;
use crate::harness::gateway::Gateway;

/// Plugins whose records are replayed.
const PLUGINS: [&str; 3] = ["key-auth", "request-termination", "correlation-id"];

/// A difference that is meant: the record, what differs (in the words of the comparison, all of it), and why.
type Exception = (&'static str, &'static [&'static str], &'static str);

const EXCEPTIONS: &[Exception] = &[];

/// Why a record is not replayed.
fn left_out(record: &Record) -> Option<String> {
    if record.response.is_null() {
        return Some("log lines".to_owned());
    }
    if record.router_flavor != "traditional_compatible" {
        return Some(format!("router_flavor {}", record.router_flavor));
    }
    let text = record.config.to_string();
    for upstream in record.config["upstreams"].as_array().into_iter().flatten() {
        if let Some(algorithm) = upstream["algorithm"].as_str().filter(|name| *name != "round-robin") {
            return Some(format!("algorithm {algorithm}"));
        }
    }
    if text.contains("\"healthchecks\"") {
        return Some("health checks".to_owned());
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

/// The records to be replayed in runs that share a configuration; why the others are not.
fn runs() -> (Vec<(Value, Vec<Record>)>, BTreeMap<String, usize>) {
    let (mut runs, mut reasons) = (Vec::<(Value, Vec<Record>)>::new(), BTreeMap::new());
    for record in Record::all() {
        if let Some(reason) = left_out(&record) {
            *reasons.entry(reason).or_insert(0) += 1;
            continue;
        }
        match runs.last_mut() {
            Some((config, records)) if *config == record.config => records.push(record),
            // The services of the path matrix were loaded together.
            Some((config, records)) if records[0].group() == "path" && record.group() == "path" => {
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

fn exchange(gateway: &Gateway, servers: &Servers, record: &Record, pattern: &Pattern) -> Exchange {
    let start = Instant::now();
    let mut client = gateway.connect();
    client.send_what_is_taken(&record.request_bytes(|text| pattern.put_in(text)));
    let response = match record.method() {
        "HEAD" => client.head(),
        _ => client.response(),
    };
    if response.header("connection") == Some("close") {
        client.must_end();
    }
    Exchange { response, arrived: servers.arrived(), elapsed_s: start.elapsed().as_secs_f64() }
}

#[test]
fn recorded_exchanges() {
    let servers = Servers::start();
    let resolver = format!("127.0.0.1:{}", servers::name_server());
    // One worker: its count of picks and of generated ids goes on from record to record, as in the recorded process.
    let gateway = Gateway::with(Driver::any(), &[("workers", "1"), ("dns_resolver", &resolver)]);
    let mut known = servers.ports();
    known.push(("<proxy_port>".to_owned(), gateway.proxy.to_string()));
    known.push(("kong/<version>".to_owned(), format!("ringway/{}", env!("CARGO_PKG_VERSION"))));
    let mut pattern = Pattern::new(known);
    let mut setup = Setup::new(&gateway);
    let (runs, reasons) = runs();
    let mut groups = BTreeMap::<String, (usize, usize, usize)>::new();
    let mut wrong = Vec::new();
    for (config, records) in &runs {
        setup.replace(config, &pattern);
        for record in records {
            let real = exchange(&gateway, &servers, record, &pattern);
            let found = differences(&mut pattern, record, &real);
            let meant = EXCEPTIONS.iter().find(|(name, ..)| *name == record.name);
            let group = groups.entry(record.group().to_owned()).or_default();
            group.1 += 1;
            match meant {
                None if found.is_empty() => group.0 += 1,
                Some((_, texts, _)) if found == *texts => group.2 += 1,
                Some((_, texts, _)) => wrong.push(format!("{} {}: {found:?}, not {texts:?}", record.seq, record.name)),
                None => wrong.push(format!("{} {}: {}", record.seq, record.name, found.join("; "))),
            }
        }
    }
    report(&groups, &reasons);
    assert!(wrong.is_empty(), "{} records differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn report(groups: &BTreeMap<String, (usize, usize, usize)>, reasons: &BTreeMap<String, usize>) {
    for (group, (same, all, meant)) in groups {
        println!("{group}: {same} of {all}, {meant} meant to differ");
    }
    let sum = |part: fn(&(usize, usize, usize)) -> usize| groups.values().map(part).sum::<usize>();
    println!("{} of {} as recorded, {} meant to differ", sum(|g| g.0), sum(|g| g.1), sum(|g| g.2));
    for (reason, count) in reasons {
        println!("not replayed: {count} with {reason}");
    }
}
