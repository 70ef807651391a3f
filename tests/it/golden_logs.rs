//! The log lines that a real Kong wrote (`tests/data/proxy.jsonl`), beside those of the real gateway.

use serde_json::Value;

use crate::golden::pattern::Pattern;
use crate::golden::record::Record;
use crate::golden::servers::Servers;
use crate::golden::setup::Setup;
use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;

/// How the differences begin that are meant, and why.
const MEANT: &[(&str, &str)] = &[
    (": no mine", "a function in Lua made it"),
    (".service: no ws_id", "there are no workspaces to show"),
    (".route: no ws_id", "there are no workspaces to show"),
    (r#".response.headers.connection: "keep-alive" instead of "close""#, "what was sent is told"),
    (".response.headers: date = ", "what was sent is told"),
    (".response.headers.content-length", "the echo tells of its own headers"),
];

#[test]
fn log_lines_are_as_recorded() {
    let servers = Servers::start();
    let gateway = Gateway::with(Driver::any(), &[("workers", "1")]);
    let mut known = servers.ports();
    known.push(("<proxy_port>".to_owned(), gateway.proxy.to_string()));
    known.push(("kong/<version>".to_owned(), format!("ringway/{}", env!("CARGO_PKG_VERSION"))));
    known.push(("<prefix>".to_owned(), gateway.prefix().display().to_string()));
    let mut setup = Setup::new(&gateway);
    let (mut compared, mut wrong) = (0, Vec::new());
    let records = Record::all();
    for pair in records.windows(2).filter(|pair| pair[1].log_line.is_object()) {
        let mut pattern = Pattern::new(known.clone());
        setup.replace(&pair[1].config, &pattern);
        let mut client = gateway.connect();
        client.send(pair[0].request_bytes(|text| pattern.put_in(text)));
        client.response();
        compared += 1;
        let line = eventually("a line", || {
            let text = std::fs::read_to_string(gateway.prefix().join("file.log")).ok()?;
            text.lines().nth(compared - 1).filter(|_| text.ends_with('\n')).map(str::to_owned)
        });
        let line: Value = serde_json::from_str(&line).expect("a line is JSON");
        let mut found = Vec::new();
        pattern.differences("", &pair[1].log_line, &line, &mut found);
        found.retain(|found| !MEANT.iter().any(|(meant, _)| found.starts_with(meant)));
        wrong.extend(found.into_iter().map(|found| format!("{}{found}", pair[1].name)));
    }
    assert!(wrong.is_empty(), "of {compared} lines differ:\n{}", wrong.join("\n"));
    assert_eq!(compared, 3);
}
