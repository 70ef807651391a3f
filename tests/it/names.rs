//! Host names of services and targets: what is asked for, when, and what a request sees of it (spec/balancer.md
//! sections 1, 2, 3 and 5).
//! The upstreams of a test listen on one port at several addresses 127.0.0.x and answer with their own address.

use std::net::Ipv4Addr;
use std::net::TcpListener;

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::dns::Dns;
use crate::harness::dns::Says;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

/// A name server, upstreams and a gateway.
struct Site {
    gateway: Gateway,
    dns: Dns,
    port: u16,
    _upstreams: (Port, Vec<Peer>),
}

impl Site {
    /// Upstreams at the addresses 127.0.0.x.
    fn of(last_bytes: &[u8]) -> Self {
        Self::with(last_bytes, &[])
    }

    fn with(last_bytes: &[u8], settings: &[(&str, &str)]) -> Self {
        let (dns, port) = (Dns::start(), Port::reserve());
        let upstream = |last: &u8| {
            let ip = Ipv4Addr::new(127, 0, 0, *last);
            let listener = TcpListener::bind((ip, port.number)).expect("a reserved port is free");
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ip}", ip.to_string().len());
            Peer::listening(listener, move |accepted| {
                while accepted.request().is_some() {
                    accepted.send(&answer);
                }
            })
        };
        let upstreams = last_bytes.iter().map(upstream).collect();
        let address = dns.address();
        // One core, so that shares are exact.
        let basic = [("dns_resolver", address.as_str()), ("workers", "1")];
        let gateway = Gateway::with(Driver::any(), &[&basic, settings].concat());
        Self { gateway, dns, port: port.number, _upstreams: (port, upstreams) }
    }

    /// A service on a host, and a route to it at `/<host>`.
    fn serve(&self, host: &str) {
        self.gateway.create("/services", json!({"name": host, "host": host, "port": self.port}));
        self.gateway.create(&format!("/services/{host}/routes"), json!({"paths": [format!("/{host}")]}));
    }

    fn target(&self, upstream: &str, host: &str, weight: u16) {
        let target = json!({"target": format!("{host}:{}", self.port), "weight": weight});
        self.gateway.create(&format!("/upstreams/{upstream}/targets"), target);
    }

    /// The last byte of the address that answers a request for a host.
    #[track_caller]
    fn answerer(&self, host: &str) -> u8 {
        let answer = self.gateway.get(&format!("/{host}")).must_be(200).text();
        answer.parse::<Ipv4Addr>().expect("the body is an address").octets()[3]
    }

    /// How many of `requests` requests each of the addresses answers.
    #[track_caller]
    fn shares<const N: usize>(&self, host: &str, requests: usize, last_bytes: [u8; N]) -> [usize; N] {
        let answers: Vec<u8> = (0..requests).map(|_| self.answerer(host)).collect();
        last_bytes.map(|last| answers.iter().filter(|answer| **answer == last).count())
    }

    /// Waits until an address answers; until then each request is answered by one of `before`.
    #[track_caller]
    fn moves_to(&self, host: &str, last_byte: u8, before: &[u8]) {
        eventually(&format!("127.0.0.{last_byte} to be used"), || {
            let answerer = self.answerer(host);
            assert!(answerer == last_byte || before.contains(&answerer), "127.0.0.{answerer} answers");
            (answerer == last_byte).then_some(())
        });
    }

    /// Asserts what the gateway answers by itself.
    #[track_caller]
    fn refuses(&self, host: &str, status: u16, message: &str) {
        let answer = self.gateway.get(&format!("/{host}")).must_be(status);
        assert_eq!(answer.json()["message"], message);
        assert!(answer.header("x-kong-response-latency").is_some(), "{}", answer.head);
    }

    /// Waits until a host is served; until then each request is answered with `status`.
    #[track_caller]
    fn recovers(&self, host: &str, status: u16) {
        eventually(&format!("{host} to be served"), || {
            let answer = self.gateway.get(&format!("/{host}"));
            assert!([200, status].contains(&answer.status), "{}{}", answer.head, answer.text());
            (answer.status == 200).then_some(())
        });
    }

    /// Asserts that names are not asked for while another one, asked for every second, is asked for twice.
    #[track_caller]
    fn are_left_alone(&self, names: &[&str]) {
        self.dns.set("clock.test", &[1], 1);
        let clock = self.gateway.create("/services", json!({"name": "clock", "host": "clock.test"}));
        let asked = || names.iter().map(|name| self.dns.asked(name)).collect::<Vec<_>>();
        let before = asked();
        self.dns.asked_again("clock.test", 2);
        assert_eq!(asked(), before, "questions for {names:?}");
        let id = clock["id"].as_str().expect("an id");
        self.gateway.admin("DELETE", &format!("/services/{id}"), None).must_be(204);
    }
}

fn failed(host: &str, why: &str) -> String {
    format!("failed the initial dns/balancer resolve for '{host}' with: {why}")
}

#[test]
fn the_first_request_waits_for_the_first_answer_and_later_ones_ask_nothing() {
    let site = Site::of(&[2]);
    site.dns.say("api.test", Says::Nothing);
    site.serve("api.test");
    let mut client = site.gateway.connect();
    client.send("GET /api.test HTTP/1.1\r\nHost: a\r\n\r\n");
    // The question is repeated after a third of a second; the request has been waiting since.
    site.dns.asked_again("api.test", 1);
    site.dns.set("api.test", &[2], 60);
    assert_eq!(client.response().must_be(200).text(), "127.0.0.2");
    let asked = site.dns.asked("api.test");
    for _ in 0..20 {
        assert_eq!(site.answerer("api.test"), 2);
    }
    assert_eq!(site.dns.asked("api.test"), asked, "what is known is not asked for");
}

#[test]
fn the_addresses_of_a_name_take_turns() {
    let site = Site::of(&[2, 3]);
    site.dns.set("pair.test", &[2, 3], 60);
    site.serve("pair.test");
    assert_eq!(site.shares("pair.test", 20, [2, 3]), [10, 10]);
}

#[test]
fn an_address_where_nobody_listens_costs_no_request() {
    let site = Site::of(&[3]);
    site.dns.set("half.test", &[2, 3], 60);
    site.serve("half.test");
    assert_eq!(site.shares("half.test", 10, [3]), [10]);
}

#[test]
fn a_changed_record_is_followed_and_no_request_fails_or_waits() {
    let site = Site::of(&[2, 3]);
    site.dns.set("moving.test", &[2], 1);
    site.serve("moving.test");
    assert_eq!(site.answerer("moving.test"), 2);
    // It is asked for again by itself, and while that question is open the old address is used.
    site.dns.say("moving.test", Says::Nothing);
    site.dns.asked_again("moving.test", 1);
    assert_eq!(site.shares("moving.test", 20, [2]), [20]);
    site.dns.set("moving.test", &[3], 1);
    site.moves_to("moving.test", 3, &[2]);
}

#[test]
fn dns_valid_ttl_replaces_the_time_to_live() {
    let site = Site::with(&[2, 3], &[("dns_valid_ttl", "1")]);
    site.dns.set("long.test", &[2], 3600);
    site.serve("long.test");
    assert_eq!(site.answerer("long.test"), 2);
    site.dns.set("long.test", &[3], 3600);
    site.moves_to("long.test", 3, &[2]);
}

#[test]
fn a_name_that_does_not_exist_is_503_until_it_does() {
    let site = Site::with(&[2], &[("dns_not_found_ttl", "1")]);
    site.dns.say("hollow.test", Says::Empty);
    for host in ["absent.test", "hollow.test"] {
        site.serve(host);
        site.refuses(host, 503, "name resolution failed");
        site.dns.set(host, &[2], 60);
        site.recovers(host, 503);
    }
}

#[test]
fn not_found_is_remembered_for_its_time() {
    let site = Site::with(&[], &[("dns_not_found_ttl", "60")]);
    site.serve("absent.test");
    site.refuses("absent.test", 503, "name resolution failed");
    site.are_left_alone(&["absent.test"]);
}

#[test]
fn a_failing_server_is_500_with_its_words_until_it_works() {
    let site = Site::of(&[2]);
    site.dns.say("broken.test", Says::Failure);
    site.serve("broken.test");
    site.refuses("broken.test", 500, &failed("broken.test", "dns server error: 2 server failure"));
    site.dns.set("broken.test", &[2], 60);
    site.recovers("broken.test", 500);
}

#[test]
fn a_silent_server_is_500_until_it_speaks() {
    let site = Site::of(&[2]);
    site.dns.say("silent.test", Says::Nothing);
    site.serve("silent.test");
    site.refuses("silent.test", 500, &failed("silent.test", "timeout"));
    site.dns.set("silent.test", &[2], 60);
    site.recovers("silent.test", 500);
}

#[test]
fn the_last_good_addresses_outlive_their_server() {
    let mut site = Site::of(&[2, 3]);
    site.dns.set("orphan.test", &[2], 1);
    site.serve("orphan.test");
    assert_eq!(site.answerer("orphan.test"), 2);
    site.dns.stop();
    eventually("the gateway to miss the server", || {
        assert_eq!(site.answerer("orphan.test"), 2);
        site.gateway.log().contains("orphan.test: ").then_some(())
    });
    assert_eq!(site.shares("orphan.test", 10, [2]), [10]);
    site.dns = site.dns.restarted();
    site.dns.say("orphan.test", Says::Failure);
    site.dns.asked_again("orphan.test", 1);
    assert_eq!(site.shares("orphan.test", 10, [2]), [10]);
    site.dns.set("orphan.test", &[3], 60);
    site.moves_to("orphan.test", 3, &[2]);
}

#[test]
fn the_last_good_addresses_are_given_up_after_dns_stale_ttl() {
    let site = Site::with(&[2], &[("dns_stale_ttl", "1")]);
    site.dns.set("stale.test", &[2], 1);
    site.serve("stale.test");
    assert_eq!(site.answerer("stale.test"), 2);
    site.dns.say("stale.test", Says::Failure);
    eventually("the address to be given up", || {
        let answer = site.gateway.get("/stale.test");
        assert!([200, 500].contains(&answer.status), "{}{}", answer.head, answer.text());
        (answer.status == 500).then_some(())
    });
    site.refuses("stale.test", 500, &failed("stale.test", "dns server error: 2 server failure"));
    site.dns.set("stale.test", &[2], 60);
    site.recovers("stale.test", 500);
}

#[test]
fn every_address_of_a_target_has_the_weight_of_the_target() {
    let site = Site::of(&[2, 3, 4]);
    site.dns.set("two.test", &[2, 3], 60);
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.target("pool", "two.test", 10);
    site.target("pool", "127.0.0.4", 20);
    site.serve("pool");
    for last_byte in [2, 3] {
        site.moves_to("pool", last_byte, &[2, 3, 4]);
    }
    assert_eq!(site.shares("pool", 40, [2, 3, 4]), [10, 10, 20]);
}

#[test]
fn targets_without_addresses_do_not_harm_the_others() {
    let site = Site::of(&[2]);
    site.dns.set("good.test", &[2], 60);
    site.dns.say("broken.test", Says::Failure);
    site.dns.say("silent.test", Says::Nothing);
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.serve("pool");
    site.target("pool", "absent.test", 100);
    site.refuses("pool", 503, "failure to get a peer from the ring-balancer");
    site.target("pool", "broken.test", 100);
    site.target("pool", "silent.test", 100);
    site.target("pool", "good.test", 100);
    assert_eq!(site.answerer("pool"), 2, "the first request waits for an address, whichever comes first");
    assert_eq!(site.shares("pool", 20, [2]), [20]);
}

#[test]
fn the_name_of_an_upstream_is_never_asked_for() {
    let mut site = Site::of(&[2, 3]);
    site.dns.set("pool.test", &[3], 1);
    site.gateway.create("/upstreams", json!({"name": "pool.test"}));
    site.target("pool.test", "127.0.0.2", 100);
    site.serve("pool.test");
    assert_eq!(site.answerer("pool.test"), 2);
    site.are_left_alone(&["pool.test"]);
    site.gateway.kill();
    site.gateway.restart();
    assert_eq!(site.answerer("pool.test"), 2);
    site.are_left_alone(&["pool.test"]);
    assert_eq!(site.dns.asked("pool.test"), 0);
}

#[test]
fn a_name_belongs_to_an_upstream_as_long_as_the_upstream_exists() {
    let site = Site::of(&[2, 3]);
    site.dns.set("pool.test", &[3], 1);
    site.serve("pool.test");
    assert_eq!(site.answerer("pool.test"), 3);
    site.gateway.create("/upstreams", json!({"name": "pool.test"}));
    site.target("pool.test", "127.0.0.2", 100);
    assert_eq!(site.answerer("pool.test"), 2);
    site.are_left_alone(&["pool.test"]);
    site.gateway.admin("DELETE", "/upstreams/pool.test", None).must_be(204);
    assert_eq!(site.answerer("pool.test"), 3);
}

#[test]
fn the_hosts_file_comes_first_and_localhost_needs_none() {
    let mut file = tempfile::NamedTempFile::new().expect("temporary files can be made");
    std::io::Write::write_all(&mut file, b"127.0.0.2 known.test also.test # nobody else\n127.0.0.3 known.test\n")
        .expect("it can be written to");
    let path = file.path().to_str().expect("a plain path");
    let site = Site::with(&[1, 2, 3, 4], &[("dns_hostsfile", path)]);
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.target("pool", "also.test", 100);
    site.serve("pool");
    for (name, last_byte) in [("known.test", 2), ("Also.Test", 2), ("localhost", 1)] {
        site.dns.set(name, &[4], 1);
        site.serve(name);
        assert_eq!(site.answerer(name), last_byte, "{name}");
    }
    assert_eq!(site.answerer("pool"), 2);
    site.are_left_alone(&["known.test", "also.test", "localhost"]);
    assert_eq!(["known.test", "also.test", "localhost"].map(|name| site.dns.asked(name)), [0, 0, 0]);
}

#[test]
fn a_name_that_nothing_uses_any_more_is_left_alone() {
    let site = Site::of(&[2]);
    for name in ["old.test", "shared.test"] {
        site.dns.set(name, &[2], 1);
    }
    site.serve("old.test");
    site.serve("shared.test");
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.target("pool", "shared.test", 100);
    for name in ["old.test", "shared.test"] {
        assert_eq!(site.answerer(name), 2);
    }
    let elsewhere: Value = json!({"host": "127.0.0.2"});
    site.gateway.patch("/services/old.test", elsewhere.clone());
    site.are_left_alone(&["old.test"]);
    // A target goes on using the other one.
    site.gateway.patch("/services/shared.test", elsewhere);
    site.dns.asked_again("shared.test", 2);
    site.gateway.admin("DELETE", "/upstreams/pool", None).must_be(204);
    site.are_left_alone(&["shared.test"]);
    assert_eq!(site.answerer("old.test"), 2);
}

#[test]
fn an_alias_is_followed_and_asked_for_again_when_it_expires() {
    let site = Site::of(&[2, 3]);
    site.dns.say("alias.test", Says::Alias("first.test", 1));
    site.dns.set("first.test", &[2], 3600);
    site.dns.set("second.test", &[3], 3600);
    site.serve("alias.test");
    assert_eq!(site.answerer("alias.test"), 2);
    site.dns.say("alias.test", Says::Alias("second.test", 1));
    site.moves_to("alias.test", 3, &[2]);
}

#[test]
fn an_answer_too_long_for_udp_comes_over_tcp() {
    let site = Site::of(&[2]);
    site.dns.cut();
    site.dns.set("long.test", &[2], 60);
    site.serve("long.test");
    assert_eq!(site.answerer("long.test"), 2);
    assert_eq!(site.dns.asked_over_tcp("long.test"), 1);
}

#[test]
fn a_silent_server_beside_a_good_one_costs_nothing() {
    let silent = Dns::start();
    silent.say("api.test", Says::Nothing);
    let good = Dns::start();
    good.set("api.test", &[2], 60);
    let servers = format!("{},{}", silent.address(), good.address());
    let site = Site::with(&[2], &[("dns_resolver", &servers)]);
    site.serve("api.test");
    assert_eq!(site.answerer("api.test"), 2);
}
