//! Host names of services and targets: what is asked for, when, and what a request sees of it (spec/balancer.md
//! sections 1, 2, 3 and 5).
//! The upstreams of a test listen on one port at several addresses 127.0.0.x and answer with their own address.

use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::dns::Dns;
use crate::harness::dns::Says;
use crate::harness::dns::Srv;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::site::Site;

/// A name server with a script, upstreams and a gateway.
struct Scripted {
    site: Site,
    dns: Dns,
}

impl std::ops::Deref for Scripted {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Scripted {
    /// Upstreams at the addresses 127.0.0.x.
    fn of(last_bytes: &[u8]) -> Self {
        Self::with(last_bytes, &[])
    }

    fn with(last_bytes: &[u8], settings: &[(&str, &str)]) -> Self {
        let dns = Dns::start();
        let site = Site::new(&dns.address(), last_bytes, settings);
        Self { site, dns }
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
    let site = Scripted::of(&[2]);
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
    let site = Scripted::of(&[2, 3]);
    site.dns.set("pair.test", &[2, 3], 60);
    site.serve("pair.test");
    assert_eq!(site.shares("pair.test", 20, [2, 3]), [10, 10]);
}

#[test]
fn an_address_where_nobody_listens_costs_no_request() {
    let site = Scripted::of(&[3]);
    site.dns.set("half.test", &[2, 3], 60);
    site.serve("half.test");
    assert_eq!(site.shares("half.test", 10, [3]), [10]);
}

#[test]
fn a_changed_record_is_followed_and_no_request_fails_or_waits() {
    let site = Scripted::of(&[2, 3]);
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
    let site = Scripted::with(&[2, 3], &[("dns_valid_ttl", "1")]);
    site.dns.set("long.test", &[2], 3600);
    site.serve("long.test");
    assert_eq!(site.answerer("long.test"), 2);
    site.dns.set("long.test", &[3], 3600);
    site.moves_to("long.test", 3, &[2]);
}

#[test]
fn a_name_that_does_not_exist_is_503_until_it_does() {
    let site = Scripted::with(&[2], &[("dns_not_found_ttl", "1")]);
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
    let site = Scripted::with(&[], &[("dns_not_found_ttl", "60")]);
    site.serve("absent.test");
    site.refuses("absent.test", 503, "name resolution failed");
    site.are_left_alone(&["absent.test"]);
}

#[test]
fn a_failing_server_is_500_with_its_words_until_it_works() {
    let site = Scripted::of(&[2]);
    site.dns.say("broken.test", Says::Failure);
    site.serve("broken.test");
    site.refuses("broken.test", 500, &failed("broken.test", "dns server error: 2 server failure"));
    site.dns.set("broken.test", &[2], 60);
    site.recovers("broken.test", 500);
}

#[test]
fn a_silent_server_is_500_until_it_speaks() {
    let site = Scripted::of(&[2]);
    site.dns.say("silent.test", Says::Nothing);
    site.serve("silent.test");
    site.refuses("silent.test", 500, &failed("silent.test", "timeout"));
    site.dns.set("silent.test", &[2], 60);
    site.recovers("silent.test", 500);
}

#[test]
fn the_last_good_addresses_outlive_their_server() {
    let mut site = Scripted::of(&[2, 3]);
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
    let site = Scripted::with(&[2], &[("dns_stale_ttl", "1")]);
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
    let site = Scripted::of(&[2, 3, 4]);
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
    let site = Scripted::of(&[2]);
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
    let mut site = Scripted::of(&[2, 3]);
    site.dns.set("pool.test", &[3], 1);
    site.gateway.create("/upstreams", json!({"name": "pool.test"}));
    site.target("pool.test", "127.0.0.2", 100);
    site.serve("pool.test");
    assert_eq!(site.answerer("pool.test"), 2);
    site.are_left_alone(&["pool.test"]);
    site.site.gateway.kill();
    site.site.gateway.restart();
    assert_eq!(site.answerer("pool.test"), 2);
    site.are_left_alone(&["pool.test"]);
    assert_eq!(site.dns.asked("pool.test"), 0);
}

#[test]
fn a_name_belongs_to_an_upstream_as_long_as_the_upstream_exists() {
    let site = Scripted::of(&[2, 3]);
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
    let site = Scripted::with(&[1, 2, 3, 4], &[("dns_hostsfile", path)]);
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
    let site = Scripted::of(&[2]);
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
    let site = Scripted::of(&[2, 3]);
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
    let site = Scripted::of(&[2]);
    site.dns.cut();
    site.dns.set("long.test", &[2], 60);
    site.serve("long.test");
    assert_eq!(site.answerer("long.test"), 2);
    assert!(site.dns.asked_over_tcp("long.test") > 0);
}

#[test]
fn a_silent_server_beside_a_good_one_costs_nothing() {
    let silent = Dns::start();
    silent.say("api.test", Says::Nothing);
    let good = Dns::start();
    good.set("api.test", &[2], 60);
    let servers = format!("{},{}", silent.address(), good.address());
    let site = Scripted::with(&[2], &[("dns_resolver", &servers)]);
    site.serve("api.test");
    assert_eq!(site.answerer("api.test"), 2);
}

/// SRV records of one priority, of these weights and targets, all at one port.
fn services(port: u16, records: &[(u16, &'static str)]) -> Says {
    let of = |&(weight, target): &(u16, &'static str)| Srv { priority: 1, weight, port, target };
    Says::Services(records.iter().map(of).collect(), 1)
}

#[test]
fn srv_records_give_a_service_its_port_and_shares() {
    let site = Scripted::of(&[2, 3]);
    site.dns.set("a.test", &[2], 60);
    site.dns.set("b.test", &[3], 60);
    site.dns.say("pair.test", services(site.port, &[(30, "a.test"), (10, "b.test")]));
    // The service's own port is overridden.
    site.gateway.create("/services", json!({"name": "pair", "host": "pair.test", "port": 1}));
    site.gateway.create("/services/pair/routes", json!({"paths": ["/pair"]}));
    site.moves_to("pair", 3, &[2]);
    assert_eq!(site.shares("pair", 40, [2, 3]), [30, 10]);
}

#[test]
fn srv_records_give_a_target_its_port_and_weights() {
    let site = Scripted::of(&[2, 3, 4]);
    site.dns.set("a.test", &[2], 60);
    site.dns.set("b.test", &[3], 60);
    site.dns.say("srv.test", services(site.port, &[(20, "a.test"), (10, "b.test")]));
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.gateway.create("/upstreams/pool/targets", json!({"target": "srv.test:1", "weight": 1000}));
    site.target("pool", "127.0.0.4", 10);
    site.serve("pool");
    for last_byte in [2, 3] {
        site.moves_to("pool", last_byte, &[2, 3, 4]);
    }
    assert_eq!(site.shares("pool", 40, [2, 3, 4]), [20, 10, 10]);
}

#[test]
fn the_host_field_says_what_the_upstream_wants_it_to() {
    let (dns, peer) = (Dns::start(), Peer::hello());
    dns.set("a.test", &[1], 60);
    dns.say("srv.test", services(peer.port, &[(1, "a.test")]));
    let gateway = Gateway::with(Driver::any(), &[("dns_resolver", dns.address().as_str()), ("workers", "1")]);
    gateway.create("/upstreams", json!({"name": "pool"}));
    gateway.create("/upstreams/pool/targets", json!({"target": "srv.test:1"}));
    gateway.create("/services", json!({"name": "s", "host": "pool"}));
    gateway.create("/services/s/routes", json!({"name": "r", "paths": ["/"]}));
    for (change, host) in [
        (json!({"use_srv_name": false}), format!("srv.test:{}", peer.port)),
        (json!({"use_srv_name": true}), format!("a.test:{}", peer.port)),
        (json!({"host_header": "own.test"}), format!("own.test:{}", peer.port)),
        (json!({"host_header": "own.test:9"}), "own.test:9".to_owned()),
        (json!({"host_header": null}), format!("a.test:{}", peer.port)),
    ] {
        gateway.patch("/upstreams/pool", change.clone());
        gateway.get("/").must_be(200);
        assert_eq!(peer.arrived().header("host"), Some(host.as_str()), "{change}");
    }
    gateway.patch("/routes/r", json!({"preserve_host": true}));
    gateway.connect().ask("GET / HTTP/1.1\r\nHost: client.test:7\r\n\r\n").must_be(200);
    assert_eq!(peer.arrived().header("host"), Some("client.test:7"));
}

#[test]
fn a_name_that_is_gone_keeps_its_addresses_for_dns_stale_ttl_and_no_longer() {
    for gone in [Says::NoSuchName, Says::Empty] {
        let site = Scripted::with(&[2, 3], &[("dns_stale_ttl", "2"), ("dns_not_found_ttl", "1")]);
        site.dns.set("blink.test", &[2], 1);
        site.serve("blink.test");
        assert_eq!(site.answerer("blink.test"), 2);
        // A server that forgets for a moment does no harm.
        site.dns.say("blink.test", gone.clone());
        site.dns.asked_again("blink.test", 1);
        site.dns.set("blink.test", &[3], 1);
        site.moves_to("blink.test", 3, &[2]);
        site.dns.say("blink.test", gone);
        eventually("the name to be given up", || {
            let answer = site.gateway.get("/blink.test");
            assert!([200, 503].contains(&answer.status), "{}{}", answer.head, answer.text());
            (answer.status == 503).then_some(())
        });
        site.refuses("blink.test", 503, "name resolution failed");
        site.dns.set("blink.test", &[2], 60);
        site.recovers("blink.test", 503);
    }
}

#[test]
fn the_other_dns_client_asks_by_the_form_of_the_name_and_tells_what_it_did() {
    let dns = Dns::start();
    let address = dns.address();
    let settings = [("new_dns_client", "on"), ("resolver_address", address.as_str())];
    let site = Scripted { site: Site::new("127.0.0.1:1", &[2, 3], &settings), dns };
    site.dns.set("plain.test", &[2], 60);
    site.dns.set("a.test", &[3], 60);
    site.dns.say("_http._tcp.srv.test", services(site.port, &[(1, "a.test")]));
    site.serve("plain.test");
    site.serve("_http._tcp.srv.test");
    assert_eq!((site.answerer("plain.test"), site.answerer("_http._tcp.srv.test")), (2, 3));
    assert_eq!(site.dns.asked("plain.test"), 1, "not for SRV records");
    let status = site.gateway.admin("GET", "/status/dns", None).must_be(200).json();
    assert_eq!(status["worker"], json!({"id": 0, "count": 1}));
    assert_eq!(status["stats"]["plain.test"]["runs"], 1);
    assert_eq!(status["stats"]["_http._tcp.srv.test"]["type"], "SRV");
}

#[test]
fn the_usual_dns_client_keeps_no_statistics() {
    let site = Scripted::of(&[]);
    let answer = site.gateway.admin("GET", "/status/dns", None).must_be(501);
    assert_eq!(answer.json()["message"], "not implemented with the legacy DNS client");
}

#[test]
fn a_reload_reads_the_hosts_file_again() {
    let file = tempfile::NamedTempFile::new().expect("temporary files can be made");
    let write = |text: &str| std::fs::write(file.path(), text).expect("it can be written to");
    write("127.0.0.2 known.test\n");
    let path = file.path().to_str().expect("a plain path");
    let site = Scripted::with(&[2, 3, 4], &[("dns_hostsfile", path)]);
    site.dns.set("known.test", &[4], 60);
    site.serve("known.test");
    assert_eq!(site.answerer("known.test"), 2);
    write("127.0.0.3 known.test\n");
    site.gateway.signal(libc::SIGHUP);
    site.moves_to("known.test", 3, &[2]);
    write("");
    site.gateway.signal(libc::SIGHUP);
    site.moves_to("known.test", 4, &[3]);
}
