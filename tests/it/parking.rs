//! Client connections on which nothing comes: they give up their task, and nobody can tell.

use std::time::Instant;

use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

on_both_drivers!(
    a_parked_connection_speaks_again,
    pipelined_requests_wake_a_parked_connection_and_all_are_answered,
    a_head_that_stops_in_the_middle_is_parked_and_goes_on,
    a_head_that_never_goes_on_is_told_so_at_its_time,
    a_parked_connection_that_closes_is_forgotten,
    a_parked_connection_ends_at_the_idle_timeout,
    parked_connections_end_at_shutdown_and_none_that_spoke_is_lost,
    a_client_named_by_a_preface_is_remembered_in_the_park,
    many_connections_are_parked_and_all_speak_again,
);

fn figure(gateway: &Gateway, name: &str) -> u64 {
    let status = gateway.admin("GET", "/status", None).must_be(200).json();
    let cores = status["cores"].as_array().expect("a list");
    cores.iter().map(|core| core[name].as_u64().expect("a number")).sum()
}

/// Waits until so many connections are parked.
fn until_parked(gateway: &Gateway, count: u64) {
    eventually("connections to be parked", || (figure(gateway, "connections_parked") == count).then_some(()));
}

/// A gateway in front of an upstream that says hello, and a connection that was used and is parked.
fn parked(driver: Driver, settings: &[(&str, &str)]) -> (Peer, Gateway, Client) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, settings);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.ask(GET).must_be(200);
    until_parked(&gateway, 1);
    (peer, gateway, client)
}

fn a_parked_connection_speaks_again(driver: Driver) {
    let (_peer, gateway, mut client) = parked(driver, &[]);
    for _ in 0..2 {
        assert_eq!(client.ask(GET).must_be(200).text(), "hello");
        until_parked(&gateway, 1);
    }
    assert_eq!(figure(&gateway, "connections_active"), 1);
    assert_eq!(figure(&gateway, "connections_waiting"), 1);
}

fn pipelined_requests_wake_a_parked_connection_and_all_are_answered(driver: Driver) {
    let (_peer, gateway, mut client) = parked(driver, &[]);
    client.send(GET.repeat(20));
    for _ in 0..20 {
        assert_eq!(client.response().must_be(200).text(), "hello");
    }
    until_parked(&gateway, 1);
}

fn a_head_that_stops_in_the_middle_is_parked_and_goes_on(driver: Driver) {
    let (peer, gateway, mut client) = parked(driver, &[]);
    peer.arrived();
    client.send("GET /half HTTP/1.1\r\nHo");
    until_parked(&gateway, 0);
    until_parked(&gateway, 1);
    assert_eq!(figure(&gateway, "connections_waiting"), 0, "a request has begun");
    client.send("st: a\r\n\r\n");
    assert_eq!(client.response().must_be(200).text(), "hello");
    assert!(peer.arrived().line().starts_with("GET /half "));
}

fn a_head_that_never_goes_on_is_told_so_at_its_time(driver: Driver) {
    let (_peer, gateway, mut client) = parked(driver, &[("client_header_timeout", "1500ms")]);
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHo");
    client.response().must_be(408);
    client.must_end();
    assert!(begun.elapsed().as_millis() >= 1400, "ended after {:?}", begun.elapsed());
    eventually("the connection to be gone", || (figure(&gateway, "connections_active") == 0).then_some(()));
}

fn a_parked_connection_that_closes_is_forgotten(driver: Driver) {
    let (_peer, gateway, client) = parked(driver, &[]);
    drop(client);
    eventually("the connection to be gone", || (figure(&gateway, "connections_active") == 0).then_some(()));
    assert_eq!(figure(&gateway, "connections_parked"), 0);
    assert_eq!(figure(&gateway, "connections_waiting"), 0);
}

fn a_parked_connection_ends_at_the_idle_timeout(driver: Driver) {
    let (_peer, gateway, mut client) = parked(driver, &[("client_keepalive_timeout", "1500ms")]);
    let since = Instant::now();
    client.ask(GET).must_be(200);
    client.must_end();
    assert!(since.elapsed().as_millis() >= 1400, "ended after {:?}", since.elapsed());
    eventually("the connection to be gone", || (figure(&gateway, "connections_active") == 0).then_some(()));
}

fn parked_connections_end_at_shutdown_and_none_that_spoke_is_lost(driver: Driver) {
    let (peer, mut gateway, mut idle) = parked(driver, &[]);
    peer.arrived();
    let mut halfway = gateway.connect();
    halfway.send("GET /halfway HTTP/1.1\r\nHo");
    until_parked(&gateway, 2);
    gateway.signal(libc::SIGTERM);
    idle.must_end();
    // What has begun a request may end it.
    halfway.send("st: a\r\n\r\n");
    assert_eq!(halfway.response().must_be(200).header("connection"), Some("close"));
    halfway.must_end();
    assert!(gateway.wait().success());
}

fn a_client_named_by_a_preface_is_remembered_in_the_park(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(
        driver,
        &[
            ("proxy_listen", "127.0.0.1:0 proxy_protocol"),
            ("real_ip_header", "proxy_protocol"),
            ("trusted_ips", "127.0.0.1"),
        ],
    );
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 5555 80\r\n");
    for _ in 0..2 {
        client.ask(GET).must_be(200);
        assert_eq!(peer.arrived().header("x-real-ip"), Some("192.0.2.7"));
        until_parked(&gateway, 1);
    }
}

fn many_connections_are_parked_and_all_speak_again(driver: Driver) {
    const CLIENTS: usize = 300;
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[]);
    gateway.proxy_to(peer.port);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| gateway.connect()).collect();
    until_parked(&gateway, CLIENTS as u64);
    // All at once: more than one call to the kernel gives.
    clients.iter_mut().for_each(|client| client.send(GET));
    for client in &mut clients {
        assert_eq!(client.response().must_be(200).text(), "hello");
    }
    until_parked(&gateway, CLIENTS as u64);
    drop(clients);
    eventually("the connections to be gone", || (figure(&gateway, "connections_active") == 0).then_some(()));
}
