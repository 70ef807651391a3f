//! ldap-auth in front of real traffic, with a real OpenLDAP; what becomes of requests while that fails.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::Response;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::slapd::Slapd;

/// A gateway whose only route asks for a name and a password.
fn behind(peer: &Peer, slapd: &Slapd, config: Value) -> Gateway {
    let mut all =
        json!({"ldap_host": "127.0.0.1", "ldap_port": slapd.port(), "base_dn": "dc=test", "attribute": "uid"});
    all.as_object_mut().expect("an object").extend(config.as_object().expect("an object").clone());
    // One worker: each remembers for itself what the server said.
    let authority = slapd.authority();
    let gateway =
        Gateway::with(Driver::any(), &[("workers", "1"), ("lua_ssl_trusted_certificate", authority.as_str())]);
    gateway.proxy_to(peer.port);
    gateway.create("/routes/r/plugins", json!({"name": "ldap-auth", "config": all}));
    gateway
}

fn ask(gateway: &Gateway, text: &str) -> Response {
    let text = STANDARD.encode(text);
    gateway.connect().ask(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ldap {text}\r\n\r\n"))
}

fn times(gateway: &Gateway, text: &str) -> usize {
    gateway.log().matches(text).count()
}

#[test]
fn a_real_server_decides() {
    let (peer, slapd) = (Peer::hello(), Slapd::start());
    let ways = [
        json!({}),
        json!({"start_tls": true}),
        json!({"ldaps": true, "ldap_port": slapd.tls_port()}),
        json!({"start_tls": true, "verify_ldap_host": true, "ldap_host": "localhost"}),
        json!({"ldaps": true, "ldap_port": slapd.tls_port(), "verify_ldap_host": true, "ldap_host": "localhost"}),
    ];
    for way in ways {
        let gateway = behind(&peer, &slapd, way.clone());
        // Twice: the second answer is remembered, another password is asked about again.
        for _ in 0..2 {
            assert_eq!(ask(&gateway, "ann:secret").status, 200, "{way} {}", gateway.log());
            assert_eq!(peer.arrived().header("x-credential-identifier"), Some("ann"));
        }
        for wrong in ["ann:wrong", "ann:", "bob:secret", "ann,dc=test:secret", "x,uid=ann:secret"] {
            let answer = ask(&gateway, wrong).must_be(401);
            assert_eq!(answer.header("www-authenticate"), Some("LDAP"));
        }
        assert!(peer.arrived_by_now().is_empty());
        assert_eq!(times(&gateway, "ldap localhost") + times(&gateway, "ldap 127.0.0.1"), 0, "{}", gateway.log());
    }
}

#[test]
fn a_server_that_does_not_prove_who_it_is_gets_no_password() {
    let (peer, slapd) = (Peer::hello(), Slapd::start());
    for way in [json!({"start_tls": true}), json!({"ldaps": true, "ldap_port": slapd.tls_port()})] {
        let mut way = way;
        way["verify_ldap_host"] = json!(true);
        // The certificate is of another name.
        let gateway = behind(&peer, &slapd, way);
        assert_eq!(ask(&gateway, "ann:secret").must_be(500).json()["message"], "An unexpected error occurred");
        assert_eq!(times(&gateway, "TLS: "), 1, "{}", gateway.log());
    }
    let plain = behind(&peer, &slapd, json!({"ldaps": true}));
    ask(&plain, "ann:secret").must_be(500);
}

#[test]
fn a_server_may_go_and_come_back() {
    let (peer, mut slapd) = (Peer::hello(), Slapd::unstarted());
    let gateway = behind(&peer, &slapd, json!({"timeout": 500}));
    for _ in 0..5 {
        ask(&gateway, "ann:secret").must_be(500);
    }
    assert_eq!(times(&gateway, &format!("ldap 127.0.0.1:{}: ", slapd.port())), 1, "{}", gateway.log());
    slapd.start_again();
    eventually("the server to be asked again", || (ask(&gateway, "ann:secret").status == 200).then_some(()));
    assert_eq!(times(&gateway, "answers again"), 1, "{}", gateway.log());
    slapd.halt();
    ask(&gateway, "ann:secret").must_be(200);
    ask(&gateway, "ann:other").must_be(500);
    slapd.go_on();
    eventually("the server to be asked again", || (ask(&gateway, "ann:other").status == 401).then_some(()));
    slapd.kill();
    ask(&gateway, "ann:secret").must_be(200);
    ask(&gateway, "ann:third").must_be(500);
    slapd.start_again();
    eventually("the server to be asked again", || (ask(&gateway, "ann:third").status == 401).then_some(()));
}

#[test]
fn no_connection_is_kept_that_the_server_has_closed() {
    let (peer, mut slapd) = (Peer::hello(), Slapd::start());
    let gateway = behind(&peer, &slapd, json!({}));
    ask(&gateway, "ann:secret").must_be(200);
    slapd.kill();
    slapd.start_again();
    ask(&gateway, "ann:wrong").must_be(401);
    assert_eq!(times(&gateway, "ldap 127.0.0.1"), 0, "{}", gateway.log());
}

#[test]
fn whom_the_server_does_not_know_may_be_the_anonymous_consumer() {
    let (peer, slapd) = (Peer::hello(), Slapd::start());
    let gateway = behind(&peer, &slapd, json!({"anonymous": "nobody", "hide_credentials": true}));
    gateway.create("/consumers", json!({"username": "nobody"}));
    ask(&gateway, "ann:wrong").must_be(200);
    assert_eq!(peer.arrived().header("x-anonymous-consumer"), Some("true"));
    ask(&gateway, "ann:secret").must_be(200);
    let arrived = peer.arrived();
    assert_eq!((arrived.header("x-anonymous-consumer"), arrived.header("authorization")), (None, None));
}

#[test]
fn tls_begins_once() {
    let (peer, slapd) = (Peer::hello(), Slapd::start());
    let gateway = Gateway::start(Driver::any());
    gateway.proxy_to(peer.port);
    let config = json!({"ldap_host": "127.0.0.1", "ldap_port": slapd.port(), "base_dn": "dc=test", "attribute": "uid",
                        "ldaps": true, "start_tls": true});
    let plugin = json!({"name": "ldap-auth", "config": config});
    let answer = gateway.admin("POST", "/plugins", Some(&plugin)).must_be(400);
    assert!(answer.text().contains("'ldaps' and 'start_tls' cannot be enabled simultaneously"), "{}", answer.text());
}
