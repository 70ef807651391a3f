//! `GET /metrics` as Prometheus would read it, beside traffic that is known.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use crate::golden::pattern::Pattern;
use crate::golden::record::Record;
use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::exposition::Scrape;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

const ALL: &str = "kong_http_requests_total";

fn everything() -> Value {
    json!({"status_code_metrics": true, "latency_metrics": true, "bandwidth_metrics": true,
           "upstream_health_metrics": true, "per_consumer": true})
}

fn text(gateway: &Gateway) -> String {
    let answer = gateway.admin("GET", "/metrics", None).must_be(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=UTF-8"));
    answer.text()
}

fn scrape(gateway: &Gateway) -> Scrape {
    Scrape::read(&text(gateway))
}

/// Scrapes until the sum is there: cores show new series some times a second.
#[track_caller]
fn scrape_with(gateway: &Gateway, name: &str, labels: &[(&str, &str)], sum: f64) -> Scrape {
    let what = format!("{name} {labels:?} to be {sum}");
    eventually(&what, || Some(scrape(gateway)).filter(|scrape| scrape.sum(name, labels) == sum))
}

#[test]
fn without_the_plugin_only_the_node_is_told_of() {
    let gateway = Gateway::start(Driver::any());
    let scrape = scrape(&gateway);
    let names: Vec<&str> = scrape.families.iter().map(|(name, _)| name.as_str()).collect();
    let want = [
        "kong_datastore_reachable",
        "kong_memory_workers_lua_vms_bytes",
        "kong_nginx_connections_total",
        "kong_nginx_requests_total",
        "kong_nginx_timers",
        "kong_node_info",
    ];
    assert_eq!(names, want);
    assert!(scrape.sum("kong_memory_workers_lua_vms_bytes", &[]) > 1e6);
    let states: BTreeSet<&str> = scrape
        .find("kong_nginx_connections_total", &[("subsystem", "http")])
        .map(|(labels, _)| &*labels["state"])
        .collect();
    assert_eq!(states.len(), 7);
    assert_eq!(scrape.sum("kong_node_info", &[("version", "3.10.0")]), 1.0);
}

#[test]
fn figures_are_those_of_the_traffic_over_all_workers() {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let status = if arrived.line().contains("fail") { "500 Oh" } else { "200 OK" };
            accepted.send(format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello"));
        }
    });
    let gateway = Gateway::with(Driver::any(), &[("workers", "3")]);
    gateway.proxy_to(peer.port);
    gateway.create("/plugins", json!({"name": "prometheus", "config": everything()}));
    // A route without a name, and one whose name needs an escape; both answer by themselves.
    let nameless = gateway.create("/routes", json!({"paths": ["/gone"]}));
    gateway.create("/plugins", json!({"name": "key-auth", "service": null, "route": {"id": nameless["id"]}}));
    gateway.create("/consumers", json!({"username": "q\"uo\\te"}));
    gateway.create("/consumers/q%22uo%5Cte/key-auth", json!({"key": "k"}));
    let mut sent = 0;
    for at in 0..40 {
        let path = if at % 4 == 0 { "/fail" } else { "/fine" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        gateway.connect().ask(&request);
        sent += request.len();
    }
    gateway.get("/gone").must_be(401);
    gateway.get("/gone?apikey=k").must_be(503);
    let scrape = scrape_with(&gateway, ALL, &[], 42.0);
    let of = |labels: &[(&str, &str)]| scrape.sum(ALL, labels);
    let ours = [("service", "s"), ("route", "r"), ("workspace", "default"), ("consumer", "")];
    assert_eq!(of(&[&ours[..], &[("code", "200"), ("source", "service")]].concat()), 30.0);
    assert_eq!(of(&[&ours[..], &[("code", "500"), ("source", "service")]].concat()), 10.0);
    let id = nameless["id"].as_str().expect("an id");
    let own = [("service", ""), ("route", id), ("source", "kong")];
    assert_eq!(of(&[&own[..], &[("code", "401"), ("consumer", "")]].concat()), 1.0);
    assert_eq!(of(&[&own[..], &[("code", "503"), ("consumer", "q\"uo\\te")]].concat()), 1.0);
    let bytes = |direction| scrape.sum("kong_bandwidth_bytes", &[("route", "r"), ("direction", direction)]);
    assert_eq!(bytes("ingress"), sent as f64);
    assert!(bytes("egress") > 40.0 * 100.0, "{}", bytes("egress"));
    for (name, count) in [("kong", 40.0), ("request", 40.0), ("upstream", 40.0)] {
        assert_eq!(scrape.sum(&format!("kong_{name}_latency_ms_count"), &[("route", "r")]), count, "{name}");
    }
    assert_eq!(scrape.sum("kong_kong_latency_ms_count", &[("route", id)]), 2.0);
    assert_eq!(scrape.sum("kong_upstream_latency_ms_count", &[("route", id)]), 0.0, "no upstream answered");
    assert_eq!(scrape.sum("kong_nginx_metric_errors_total", &[]), 0.0);
    assert!(scrape.sum("kong_nginx_requests_total", &[]) >= 42.0);
}

#[test]
fn times_fall_into_buckets() {
    let peer = Peer::scripted(|accepted| {
        while accepted.request().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(120));
            accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", json!({"name": "prometheus", "config": {"latency_metrics": true}}));
    gateway.get("/").must_be(200);
    let scrape = scrape_with(&gateway, "kong_upstream_latency_ms_count", &[], 1.0);
    assert_eq!(scrape.sum("kong_upstream_latency_ms_bucket", &[("le", "100")]), 0.0);
    assert_eq!(scrape.sum("kong_upstream_latency_ms_bucket", &[("le", "60000")]), 1.0);
    assert!(scrape.sum("kong_upstream_latency_ms_sum", &[]) >= 120.0);
    assert!(!scrape.has(ALL) && !scrape.has("kong_bandwidth_bytes"), "only what was asked for");
}

#[test]
fn histories_survive_changes_and_go_with_their_entities() {
    let peer = Peer::hello();
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    let plugin = gateway.create("/plugins", json!({"name": "prometheus", "config": everything()}));
    gateway.create("/services/s/routes", json!({"name": "other", "paths": ["/other"]}));
    for path in ["/", "/", "/other"] {
        gateway.get(path).must_be(200);
    }
    scrape_with(&gateway, ALL, &[], 3.0);
    gateway.patch("/routes/r", json!({"name": "renamed", "tags": ["x"]}));
    gateway.patch("/services/s", json!({"retries": 1}));
    gateway.get("/").must_be(200);
    let scrape = scrape_with(&gateway, ALL, &[], 4.0);
    assert_eq!(scrape.sum(ALL, &[("route", "renamed")]), 3.0);
    gateway.admin("DELETE", "/routes/other", None).must_be(204);
    assert_eq!(scrape_with(&gateway, ALL, &[], 3.0).find(ALL, &[("route", "other")]).count(), 0);
    let path = format!("/plugins/{}", plugin["id"].as_str().expect("an id"));
    gateway.patch(&path, json!({"enabled": false}));
    assert!(!self::scrape(&gateway).has(ALL), "without the plugin only the node is told of");
    gateway.patch(&path, json!({"enabled": true}));
    gateway.get("/").must_be(200);
    scrape_with(&gateway, ALL, &[("route", "renamed")], 4.0);
}

#[test]
fn the_health_of_targets_is_told_by_state() {
    let gateway = Gateway::start(Driver::any());
    let healthchecks = json!({"passive": {"unhealthy": {"http_failures": 1, "http_statuses": [500]}}});
    gateway.create("/upstreams", json!({"name": "watched", "healthchecks": healthchecks}));
    gateway.create("/upstreams", json!({"name": "plain"}));
    for upstream in ["watched", "plain"] {
        gateway.create(&format!("/upstreams/{upstream}/targets"), json!({"target": "127.0.0.1:1234"}));
    }
    gateway.create("/upstreams/plain/targets", json!({"target": "nowhere.invalid:80"}));
    let set = "/upstreams/watched/targets/127.0.0.1:1234/unhealthy";
    gateway.create("/plugins", json!({"name": "prometheus", "config": {"upstream_health_metrics": true}}));
    let name = "kong_upstream_target_health";
    let state_of = |upstream: &str, target: &str| {
        let scrape = scrape(&gateway);
        let labels = [("upstream", upstream), ("target", target), ("subsystem", "http")];
        let lines: Vec<_> = scrape.find(name, &labels).collect();
        assert_eq!(lines.len(), 4, "one line for each state");
        let on: Vec<_> = lines.iter().filter(|(_, value)| *value == 1.0).collect();
        assert_eq!(on.len(), 1);
        (on[0].0["address"].clone(), on[0].0["state"].clone())
    };
    let is = |address: &str, state: &str| (address.to_owned(), state.to_owned());
    assert_eq!(state_of("watched", "127.0.0.1:1234"), is("127.0.0.1:1234", "healthy"));
    gateway.admin("PUT", set, None).must_be(204);
    assert_eq!(state_of("watched", "127.0.0.1:1234"), is("127.0.0.1:1234", "unhealthy"));
    assert_eq!(state_of("plain", "127.0.0.1:1234"), is("127.0.0.1:1234", "healthchecks_off"));
    assert_eq!(state_of("plain", "nowhere.invalid:80"), is("", "dns_error"));
}

#[test]
fn the_status_listener_tells_the_same_and_both_only_with_the_plugin_enabled_for_the_node() {
    let status = Port::reserve();
    let listen = format!("127.0.0.1:{}", status.number);
    let gateway = Gateway::with(Driver::any(), &[("status_listen", &listen)]);
    let answer = Client::connect(status.number).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").must_be(200);
    assert!(Scrape::read(&answer.text()).has("kong_node_info"));
    drop(gateway);
    let bare = Gateway::with(Driver::any(), &[("status_listen", &listen), ("plugins", "key-auth")]);
    Client::connect(status.number).ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").must_be(404);
    bare.admin("GET", "/metrics", None).must_be(404);
}

/// The families of which Kong tells and that do not exist here.
const NOT_HERE: &str = "kong_memory_lua_shared_dict";

#[test]
fn the_text_is_as_recorded() {
    let records = Record::all();
    let record = records.iter().find(|record| record.name == "prometheus/admin-metrics").expect("it was recorded");
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            let status = if arrived.line().contains("500") { "500 Oh" } else { "200 OK" };
            accepted.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let gateway = Gateway::start(Driver::any());
    let service = &record.config["services"][0];
    let route = &service["routes"][0];
    gateway.service("s99", peer.port, json!({}));
    gateway.create("/services/s99/routes", json!({"name": route["name"], "paths": route["paths"]}));
    gateway.create("/routes/r99/plugins", route["plugins"][0].clone());
    gateway.get("/p").must_be(200);
    gateway.get("/p?status=500").must_be(500);
    scrape_with(&gateway, ALL, &[], 2.0);
    let got = text(&gateway);
    let is_told = |line: &&str| !line.starts_with("# HELP") && !line.contains(NOT_HERE);
    let recorded = record.response["body"].as_str().expect("a text");
    let mut pattern = Pattern::new(Vec::new());
    let (want, got): (Vec<&str>, Vec<&str>) =
        (recorded.lines().filter(is_told).collect(), got.lines().filter(is_told).collect());
    for (want, got) in want.iter().zip(&got) {
        // Times have fractions here.
        let (want, got) = match want.strip_suffix(" <n>") {
            Some(name) => (name, got.rsplit_once(' ').map_or(*got, |(name, _)| name)),
            None => (*want, *got),
        };
        assert!(pattern.matches(want, got), "{got} instead of {want}");
    }
    assert_eq!(want.len(), got.len());
}
