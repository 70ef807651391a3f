//! Tests only, and only on demand: how long `find`, `insert` and `remove` take in small and large routers.
//! `cargo test --release router::speed -- --ignored --nocapture`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use fastrand::Rng;
use uuid::Uuid;

use crate::config::RouterFlavor;
use crate::router::RouteKey;
use crate::router::Router;
use crate::router::compile::Rules;
use crate::router::compile::compile;
use crate::router::matcher::Compiled;
use crate::router::twin::Headers;
use crate::router::twin::Request;

/// A route and a request that it matches. Of a hundred: one regex, half of the others with hosts (some of them
/// wildcards or with a port), some with methods, few with a header; and one path in many that is short and common.
fn random_pair(rng: &mut Rng, index: usize) -> (Rules, Request) {
    let mut rules = Rules { id: Uuid::from_u128(rng.u128(..)), ..Rules::default() };
    let mut request = Request {
        method: "GET",
        host: "gateway.example.com".to_owned(),
        path: String::new(),
        https: false,
        sni: None,
        port: 8000,
        arguments: "",
        source: ([127, 0, 0, 1], 40_000).into(),
        destination: [127, 0, 0, 1].into(),
        headers: Headers(vec![("user-agent", "curl/8.0"), ("accept", "*/*")]),
    };
    let team = ["billing", "orders", "search", "users", "media"][rng.usize(..5)];
    let (route, path) = match index % 100 {
        0 => (
            format!(r"~/{team}/v{}/item-{index}/(?<id>\d+)", index % 7),
            format!("/{team}/v{}/item-{index}/77/x", index % 7),
        ),
        1 => (format!("/{}", index % 1000), format!("/{}/x", index % 1000)),
        _ => {
            (format!("/{team}/v{}/item-{index}", index % 7), format!("/{team}/v{}/item-{index}/some/where", index % 7))
        }
    };
    rules.paths = vec![route];
    request.path = path;
    match index % 20 {
        0..8 => (rules.hosts, request.host) = (vec![format!("s{index}.example.com")], format!("s{index}.example.com")),
        8 => {
            (rules.hosts, request.host) = (vec![format!("*.t{index}.example.com")], format!("www.t{index}.example.com"))
        }
        9 => (rules.hosts, request.host) = (vec![format!("p{index}.com:8000")], format!("p{index}.com:8000")),
        _ => {}
    }
    if rng.u8(..5) == 0 {
        rules.methods = vec!["GET".to_owned(), "POST".to_owned()];
    }
    if rng.u8(..50) == 0 {
        rules.headers = vec![("x-canary".to_owned(), vec!["1".to_owned()])];
        request.headers.0.push(("x-canary", "1"));
    }
    (rules, request)
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

#[test]
#[ignore = "a measurement"]
fn find_insert_and_remove() {
    for count in [10, 1_000, 100_000] {
        let mut rng = Rng::with_seed(1);
        let (rules, requests): (Vec<Rules>, Vec<Request>) =
            (0..count).map(|index| random_pair(&mut rng, index)).unzip();
        let started = Instant::now();
        let compiled: Vec<Arc<Compiled>> =
            rules.iter().map(|rules| Arc::new(compile(rules, RouterFlavor::TraditionalCompatible).unwrap())).collect();
        let compiling = started.elapsed() / count as u32;
        let mut router = Router::new();
        let mut inserts = Vec::with_capacity(count);
        for (index, compiled) in compiled.iter().enumerate() {
            let started = Instant::now();
            router.insert(RouteKey(index as u32), compiled.clone());
            inserts.push(started.elapsed());
        }
        let mut finds = Vec::with_capacity(200_000);
        for round in 0..2 {
            finds.clear();
            for _ in 0..200_000 {
                // A copy: a request that was just received is in the cache, whatever the router's size.
                let request = requests[rng.usize(..count)].clone();
                let started = Instant::now();
                let hit = black_box(request.find_in(black_box(&router)));
                finds.push(started.elapsed());
                assert!(hit.is_some(), "round {round} {request:?}");
            }
        }
        let started = Instant::now();
        for request in requests.iter().cycle().take(200_000) {
            black_box(request.find_in(black_box(&router)));
        }
        let in_order = started.elapsed() / 200_000;
        let mut replaces = Vec::with_capacity(10_000);
        for _ in 0..10_000 {
            let index = rng.usize(..count);
            let started = Instant::now();
            router.insert(RouteKey(index as u32), compiled[index].clone());
            replaces.push(started.elapsed());
        }
        println!(
            "{count} routes: find p50 {:?} p99 {:?}, in turn {in_order:?} each; compile {compiling:?}; insert p50 {:?} p99 {:?} \
             max {:?}; remove and insert p50 {:?} max {:?}",
            percentile(&mut finds, 50),
            percentile(&mut finds, 99),
            percentile(&mut inserts, 50),
            percentile(&mut inserts, 99),
            percentile(&mut inserts, 100),
            percentile(&mut replaces, 50),
            percentile(&mut replaces, 100),
        );
    }
}
