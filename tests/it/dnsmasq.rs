//! A real name server whose records change, that dies and comes back, under requests that all have to succeed.

use serde_json::json;

use crate::harness::dnsmasq::Dnsmasq;
use crate::harness::eventually;
use crate::harness::site::Site;

#[test]
fn address_records_are_followed_through_changes_and_the_death_of_the_server() {
    let mut dns = Dnsmasq::start();
    dns.set_hosts("127.0.0.2 api.test\n127.0.0.3 api.test\n");
    let site = Site::new(&dns.address(), &[2, 3, 4], &[]);
    site.serve("api.test");
    site.moves_to("api.test", 3, &[2]);
    assert_eq!(site.shares("api.test", 20, [2, 3]), [10, 10]);
    dns.set_hosts("127.0.0.4 api.test\n");
    site.moves_to("api.test", 4, &[2, 3]);
    dns.kill();
    eventually("the gateway to miss the server", || {
        assert_eq!(site.answerer("api.test"), 4);
        site.gateway.log().contains("api.test: ").then_some(())
    });
    assert_eq!(site.shares("api.test", 20, [4]), [20]);
    dns.set_hosts("127.0.0.2 api.test\n");
    dns.start_again();
    site.moves_to("api.test", 2, &[4]);
}

#[test]
fn service_records_are_followed_through_changes_and_the_death_of_the_server() {
    let mut dns = Dnsmasq::start();
    dns.set_hosts("127.0.0.2 a.test\n127.0.0.3 b.test\n127.0.0.4 c.test\n");
    let site = Site::new(&dns.address(), &[2, 3, 4], &[]);
    let name = "_http._tcp.test";
    let weights = |a: u16, b: u16| [(name, "a.test", site.port, 1, a), (name, "b.test", site.port, 1, b)];
    let backup = (name, "c.test", site.port, 2, 1);
    dns.set_services(&[&weights(30, 10)[..], &[backup]].concat());
    dns.start_again();
    site.gateway.create("/upstreams", json!({"name": "pool"}));
    site.gateway.create("/upstreams/pool/targets", json!({"target": format!("{name}:1")}));
    site.serve("pool");
    site.moves_to("pool", 3, &[2]);
    assert_eq!(site.shares("pool", 40, [2, 3, 4]), [30, 10, 0]);
    dns.set_services(&weights(10, 10));
    dns.start_again();
    eventually("the new weights", || (site.shares("pool", 20, [2, 3, 4]) == [10, 10, 0]).then_some(()));
    dns.kill();
    eventually("the gateway to miss the server", || {
        site.answerer("pool");
        site.gateway.log().contains("_http._tcp.test: ").then_some(())
    });
    assert_eq!(site.shares("pool", 20, [2, 3, 4]), [10, 10, 0]);
    dns.set_services(&[backup]);
    dns.start_again();
    site.moves_to("pool", 4, &[2, 3]);
}
