//! Connections and cores: the kernel spreads them by a hash, which few long-lived ones may all share.

use crate::harness::Driver;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const WORKERS: usize = 4;

on_both_drivers!(few_long_lived_connections_use_all_cores);

fn by_core(gateway: &Gateway, name: &str) -> Vec<u64> {
    let status = gateway.admin("GET", "/status", None).must_be(200).json();
    let cores = status["cores"].as_array().expect("a list");
    cores.iter().map(|core| core[name].as_u64().expect("a number")).collect()
}

fn few_long_lived_connections_use_all_cores(driver: Driver) {
    let peer = Peer::hello();
    let gateway = Gateway::with(driver, &[("workers", &WORKERS.to_string())]);
    gateway.proxy_to(peer.port);
    // Once by luck, but not every time.
    for count in 8..=16usize {
        let mut clients: Vec<Client> = Vec::new();
        for _ in 0..count {
            let mut client = gateway.connect();
            client.ask(GET).must_be(200);
            clients.push(client);
        }
        let most = count.div_ceil(WORKERS) as u64 + 1;
        let open = by_core(&gateway, "connections_active");
        assert_eq!(open.iter().sum::<u64>(), count as u64);
        assert!(open.iter().all(|open| *open <= most), "{count} connections: {open:?}");
        for client in &mut clients {
            assert_eq!(client.ask(GET).must_be(200).text(), "hello");
        }
        drop(clients);
        eventually("the connections to be gone", || {
            by_core(&gateway, "connections_active").iter().all(|open| *open == 0).then_some(())
        });
    }
    let (accepted, handed_over) =
        (by_core(&gateway, "connections_accepted"), by_core(&gateway, "connections_handed_over"));
    assert_eq!(accepted.iter().sum::<u64>(), (8..=16).sum::<u64>(), "each was accepted once");
    assert!(handed_over.iter().sum::<u64>() > 0, "the kernel spread them evenly every time: {accepted:?}");
}
