//! A plugin that panics costs the request that it was asked about, and no other.

mod in_process;

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use ringway::plugins::Instance;
use ringway::plugins::Plugin;
use ringway::plugins::Verdict;
use ringway::plugins::chain::Scope;
use ringway::plugins::kind;
use ringway::plugins::view::LogView;
use ringway::plugins::view::ResponseView;
use ringway::plugins::view::View;
use ringway::proxy::worker::Chosen;
use ringway::state::compile::Compiler;
use ringway::state::delta::Change;
use ringway::state::spec::PluginSpec;
use serde_json::json;
use uuid::Uuid;

use in_process::Running;
use in_process::delta;
use in_process::row;
use in_process::upstream;

/// Panics in the phase that the header `x-panic` names.
struct Panicking;

fn is_asked(header: Option<&[u8]>, phase: &str) -> bool {
    header.is_some_and(|asked| asked == phase.as_bytes())
}

impl Plugin for Panicking {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let asked = view.header(b"x-panic");
        assert!(!is_asked(asked, "access"), "as asked");
        view.notes.numbers[0] = u64::from(is_asked(asked, "log"));
        Verdict::Continue
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        let asked = view.request_fields.get_by_name(view.request_source, b"x-panic");
        assert!(!is_asked(asked, "response"), "as asked");
    }

    fn log(&self, view: &mut LogView<'_>) {
        assert_eq!(view.notes.numbers[0], 0, "as asked");
    }
}

/// The answer to a request that asks for a panic; the connection must end after one that panicked before it was answered.
fn ask(client: &mut TcpStream, phase: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nx-panic: {phase}\r\n\r\n");
    client.write_all(request.as_bytes()).expect("the core reads requests");
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while !in_process::is_whole(answer.as_bytes()) {
        let count = client.read(&mut piece).expect("the core answers");
        assert_ne!(count, 0, "the core closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&piece[..count]));
    }
    answer
}

#[test]
fn a_plugin_that_panics_costs_its_request_only() {
    let [service, route] = [(); 2].map(|()| Uuid::new_v4().to_string());
    let rows = [
        row("services", json!({"id": service, "protocol": "http", "host": "127.0.0.1", "port": upstream()})),
        row("routes", json!({"id": route, "protocols": ["http"], "paths": ["/"], "service": {"id": service}})),
    ];
    let compiled = Compiler::default().compile(&rows).unwrap_or_else(|refusals| panic!("refused: {refusals:?}"));
    let mut delta = delta(compiled);
    let (of_kind, _) = kind("request-termination").expect("the program has it");
    let id = Uuid::new_v4();
    let instance = Arc::new(Instance { id, kind: of_kind, plugin: Box::new(Panicking) });
    delta.changes.push(Change::Plugin(Arc::new(PluginSpec { id, scope: Scope::default(), enabled: true, instance })));
    let core = Running::start(Chosen::Epoll, "off", delta);
    let mut bystander = core.connect();
    for phase in ["access", "response", "log"] {
        let mut client = core.connect();
        assert!(ask(&mut client, "nothing").starts_with("HTTP/1.1 200 "), "{phase}");
        let answer = ask(&mut client, phase);
        // Of a request that was answered the client hears nothing more.
        let want = if phase == "log" { "HTTP/1.1 200 " } else { "HTTP/1.1 500 " };
        assert!(answer.starts_with(want), "{phase}: {answer}");
        assert_eq!(client.read(&mut [0; 1]).expect("the core closes in peace"), 0, "{phase}: the connection ends");
        assert!(ask(&mut bystander, "nothing").starts_with("HTTP/1.1 200 "), "{phase}: others are served on");
    }
    assert_eq!(core.counters.panics.get(), 3);
}
