//! Upstreams that say who they are, behind a gateway that has to find them by name.

use std::net::Ipv4Addr;
use std::net::TcpListener;

use serde_json::json;

use crate::harness::Driver;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::peer::Peer;
use crate::harness::port::Port;

/// Upstreams and a gateway that asks some name server.
pub struct Site {
    pub gateway: Gateway,
    /// The port of all upstreams.
    pub port: u16,
    _upstreams: (Port, Vec<Peer>),
}

impl Site {
    /// Upstreams at the addresses 127.0.0.x; each answers with its address.
    pub fn new(dns_address: &str, last_bytes: &[u8], settings: &[(&str, &str)]) -> Self {
        let port = Port::reserve();
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
        // One core, so that shares are exact.
        let basic = [("dns_resolver", dns_address), ("workers", "1")];
        let gateway = Gateway::with(Driver::any(), &[&basic, settings].concat());
        Self { gateway, port: port.number, _upstreams: (port, upstreams) }
    }

    /// A service on a host, and a route to it at `/<host>`.
    pub fn serve(&self, host: &str) {
        self.gateway.create("/services", json!({"name": host, "host": host, "port": self.port}));
        self.gateway.create(&format!("/services/{host}/routes"), json!({"paths": [format!("/{host}")]}));
    }

    pub fn target(&self, upstream: &str, host: &str, weight: u16) {
        let target = json!({"target": format!("{host}:{}", self.port), "weight": weight});
        self.gateway.create(&format!("/upstreams/{upstream}/targets"), target);
    }

    /// The last byte of the address that answers a request for a host.
    #[track_caller]
    pub fn answerer(&self, host: &str) -> u8 {
        let answer = self.gateway.get(&format!("/{host}")).must_be(200).text();
        answer.parse::<Ipv4Addr>().expect("the body is an address").octets()[3]
    }

    /// How many of `requests` requests each of the addresses answers.
    #[track_caller]
    pub fn shares<const N: usize>(&self, host: &str, requests: usize, last_bytes: [u8; N]) -> [usize; N] {
        let answers: Vec<u8> = (0..requests).map(|_| self.answerer(host)).collect();
        last_bytes.map(|last| answers.iter().filter(|answer| **answer == last).count())
    }

    /// Waits until an address answers; until then each request is answered by one of `before`.
    #[track_caller]
    pub fn moves_to(&self, host: &str, last_byte: u8, before: &[u8]) {
        eventually(&format!("127.0.0.{last_byte} to be used"), || {
            let answerer = self.answerer(host);
            assert!(answerer == last_byte || before.contains(&answerer), "127.0.0.{answerer} answers");
            (answerer == last_byte).then_some(())
        });
    }

    /// Asserts what the gateway answers by itself.
    #[track_caller]
    pub fn refuses(&self, host: &str, status: u16, message: &str) {
        let answer = self.gateway.get(&format!("/{host}")).must_be(status);
        assert_eq!(answer.json()["message"], message);
        assert!(answer.header("x-kong-response-latency").is_some(), "{}", answer.head);
    }

    /// Waits until a host is served; until then each request is answered with `status`.
    #[track_caller]
    pub fn recovers(&self, host: &str, status: u16) {
        eventually(&format!("{host} to be served"), || {
            let answer = self.gateway.get(&format!("/{host}"));
            assert!([200, status].contains(&answer.status), "{}{}", answer.head, answer.text());
            (answer.status == 200).then_some(())
        });
    }
}
