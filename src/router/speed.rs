//! Tests only, and only on demand: how long `find`, `insert` and `remove` take in small and large routers of each flavour.
//! `bench/router` runs it.

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

/// The same routes, every other one written as an expression.
fn as_expression(index: usize, rules: Rules) -> Rules {
    let is_plain = rules.hosts.iter().all(|host| !host.contains(['*', ':']));
    if index % 2 == 1 || !is_plain || rules.paths[0].starts_with('~') {
        return Rules { protocols: vec!["http".to_owned(), "https".to_owned()], ..rules };
    }
    let mut terms = vec![format!("http.path ^= \"{}\"", rules.paths[0])];
    terms.extend(rules.hosts.first().map(|host| format!("http.host == \"{host}\"")));
    Rules {
        id: rules.id,
        protocols: vec!["http".to_owned(), "https".to_owned()],
        expression: Some(terms.join(" && ")),
        ..Rules::default()
    }
}

fn measure(flavor: RouterFlavor, count: usize) {
    let mut rng = Rng::with_seed(1);
    let (rules, requests): (Vec<Rules>, Vec<Request>) = (0..count)
        .map(|index| {
            let (rules, request) = random_pair(&mut rng, index);
            let is_expressions = flavor == RouterFlavor::Expressions;
            (if is_expressions { as_expression(index, rules) } else { rules }, request)
        })
        .unzip();
    let started = Instant::now();
    let compiled: Vec<Arc<Compiled>> = rules.iter().map(|rules| Arc::new(compile(rules, flavor).unwrap())).collect();
    let compiling = started.elapsed() / count as u32;
    let mut router = Router::new();
    let mut adds = Vec::with_capacity(count);
    for (index, compiled) in compiled.iter().enumerate() {
        let started = Instant::now();
        router.insert(RouteKey(index as u32), compiled.clone());
        adds.push(started.elapsed());
    }
    let mut finds = Vec::with_capacity(200_000);
    for _ in 0..200_000 {
        // A copy: a request that was just received is in the cache, whatever the router's size.
        let request = requests[rng.usize(..count)].clone();
        let started = Instant::now();
        let hit = black_box(request.find_in(black_box(&router)));
        finds.push(started.elapsed());
        assert!(hit.is_some(), "{request:?}");
    }
    let mut replaces = Vec::with_capacity(10_000);
    for _ in 0..10_000 {
        let index = rng.usize(..count);
        let started = Instant::now();
        router.insert(RouteKey(index as u32), compiled[index].clone());
        replaces.push(started.elapsed());
    }
    let micros = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e6);
    let row = [
        flavor.word().to_owned(),
        count.to_string(),
        micros(percentile(&mut finds, 50)),
        micros(percentile(&mut finds, 99)),
        micros(percentile(&mut adds, 50)),
        micros(percentile(&mut adds, 100)),
        micros(percentile(&mut replaces, 50)),
        micros(percentile(&mut replaces, 100)),
        micros(compiling),
    ];
    println!("| {} |", row.join(" | "));
}

#[test]
#[ignore = "a measurement"]
fn find_insert_and_remove() {
    println!(
        "| flavour | routes | match p50 us | p99 | add p50 us | max | replace p50 us | max | compile us (off-core) |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for flavor in [RouterFlavor::TraditionalCompatible, RouterFlavor::Traditional, RouterFlavor::Expressions] {
        for count in [10, 100, 1_000, 10_000, 100_000] {
            measure(flavor, count);
        }
    }
}
