//! Which responses are kept, which requests they answer, and what clients are told of it.

use super::*;
use crate::plugins::cache::CoreCache;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::NOW_UNIX_MS;
use crate::plugins::testing::plugin;
use crate::plugins::view::ReplyKind;
use serde_json::json;

const NOW_S: u64 = NOW_UNIX_MS / 1000;
/// Header fields.
type Fields<'a> = &'a [(&'a str, &'a str)];

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn built(config: Value) -> Box<dyn Plugin> {
    let mut all = json!({"strategy": "memory"});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    plugin(&KIND, all)
}

/// What a request and a response led to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Body and age.
    Hit(String, String),
    /// The status that the client is told of a response that came from the upstream.
    Passed(String),
    Refused(u16),
}

/// A client and an upstream around the plugin, on one core.
struct Stage {
    plugin: Box<dyn Plugin>,
    cache: CoreCache,
    /// Of the upstream's answer.
    status: u16,
}

impl Stage {
    fn new(config: Value) -> Self {
        Self { plugin: built(config), cache: CoreCache::default(), status: 200 }
    }

    fn ask(&mut self, lines: &[&str], fields: &[(&str, &str)], body: &str) -> Outcome {
        let mut exchange = Exchange::new(lines);
        std::mem::swap(&mut exchange.core.cache, &mut self.cache);
        let outcome = self.exchange(&mut exchange, fields, body);
        std::mem::swap(&mut exchange.core.cache, &mut self.cache);
        outcome
    }

    fn exchange(&self, exchange: &mut Exchange, fields: &[(&str, &str)], body: &str) -> Outcome {
        let told = |exchange: &Exchange, name: &str| {
            let all = exchange.reply_fields().into_iter().chain(exchange.response_fields());
            let found: Vec<String> = all.filter_map(|field| Some(field.strip_prefix(name)?.to_owned())).collect();
            found.last().cloned().unwrap_or_default()
        };
        if exchange.access(&*self.plugin) == Verdict::Reply {
            let Some(stored) = exchange.reply.stored.clone() else { return Outcome::Refused(exchange.reply.status) };
            assert_eq!((exchange.reply.kind, exchange.reply.status), (ReplyKind::Stored, stored.status));
            return Outcome::Hit(String::from_utf8_lossy(&stored.body).into_owned(), told(exchange, "age: "));
        }
        exchange.status = self.status;
        fields.iter().for_each(|(name, value)| exchange.response_field(name, value));
        exchange.response_head(&*self.plugin);
        if exchange.notes.body == BodyUse::Pieces {
            let pieces = [&body[..body.len() / 2], &body[body.len() / 2..]];
            for (at, piece) in pieces.into_iter().enumerate() {
                exchange.response_piece(&*self.plugin, piece.as_bytes(), at == 1);
            }
        }
        Outcome::Passed(told(exchange, "X-Cache-Status: "))
    }

    #[track_caller]
    fn passes(&mut self, lines: &[&str], fields: &[(&str, &str)], status: &str) {
        assert_eq!(self.ask(lines, fields, "body"), Outcome::Passed(status.to_owned()), "{lines:?} {fields:?}");
    }

    #[track_caller]
    fn hits(&mut self, lines: &[&str]) {
        assert_eq!(self.ask(lines, &[], ""), Outcome::Hit("body".into(), "0".into()), "{lines:?}");
    }
}

#[test]
fn a_response_answers_the_requests_of_its_key() {
    let mut stage = Stage::new(json!({}));
    stage.passes(&["GET /p?a=1&b=2"], &[JSON], "Miss");
    stage.hits(&["GET /p?b=2&a=1", "Cache-Control: no-store", "Authorization: x"]);
    stage.passes(&["GET /p?a=1"], &[JSON], "Miss");
    stage.passes(&["HEAD /p?a=1&b=2"], &[JSON], "Miss");
    stage.passes(&["POST /p?a=1&b=2"], &[JSON], "Bypass");
    stage.passes(&["POST /p?a=1&b=2"], &[JSON], "Bypass");
}

#[test]
fn only_responses_of_the_configured_statuses_and_types_are_kept() {
    let bypassed: [&[(&str, &str)]; 7] = [
        &[],
        &[("Content-Type", "application/json; charset=utf-8")],
        &[("Content-Type", "text/html")],
        &[("Content-Type", "")],
        &[("Content-Type", "json")],
        &[JSON, JSON],
        &[("Content-Type", "application/json; x")],
    ];
    for fields in bypassed {
        Stage::new(json!({})).passes(&["GET /p"], fields, "Bypass");
    }
    let typed = json!({"content_type": ["*/*; Charset=\"utf-8\"", "image/*"]});
    for (content_type, status) in [("text/x;charset=utf-8", "Miss"), ("Image/PNG", "Miss"), ("text/x", "Bypass")] {
        Stage::new(typed.clone()).passes(&["GET /p"], &[("Content-Type", content_type)], status);
    }
    for (status, told) in [(404, "Miss"), (500, "Bypass"), (206, "Bypass")] {
        Stage { status, ..Stage::new(json!({})) }.passes(&["GET /p"], &[JSON], told);
    }
}

#[test]
fn cache_control_of_requests_is_obeyed_if_so_configured() {
    let mut stage = Stage::new(json!({"cache_control": true}));
    let fresh = [JSON, ("Cache-Control", "max-age=60")];
    for field in ["Cache-Control: no-store", "Cache-Control: x, No-Cache", "Authorization: x"] {
        stage.passes(&["GET /p", field], &fresh, "Bypass");
    }
    assert_eq!(stage.ask(&["GET /p", "Cache-Control: only-if-cached"], &fresh, "body"), Outcome::Refused(504));
    stage.passes(&["GET /p"], &fresh, "Miss");
    stage.hits(&["GET /p", "Cache-Control: only-if-cached, max-age=0, max-stale=0, min-fresh=60"]);
    stage.passes(&["GET /p", "Cache-Control: min-fresh=61"], &fresh, "Refresh");
}

#[test]
fn age_and_freshness_are_weighed_as_the_client_asks() {
    let plugin = ProxyCache {
        key: KeyRules { ignores_case: false, arguments: Box::default(), headers: Box::default() },
        codes: Box::default(),
        methods: Box::default(),
        types: Box::default(),
        ttl_s: 30,
        obeys: true,
        storage_ttl_s: None,
        shows_age: true,
        shows_status: true,
        shows_key: true,
    };
    let cache = CoreCache::default();
    let begun = Begun { key: [1; 32], purges: 0, status: 200, body_bytes_told: None, at_s: 100, ttl_s: 10, kept_s: 99 };
    assert!(Collected::new(cache.shared().clone(), begun).finish());
    let stored = cache.find(&[1; 32], 100).unwrap();
    let check = |asked: &str, now_s: u64, want: bool| {
        let asked = Directives::of(std::iter::once(asked.as_bytes()));
        assert_eq!(plugin.is_fresh(&stored, &asked, now_s), want, "{asked:?} {now_s}");
    };
    for (asked, now_s, want) in [
        ("max-age=5", 105, true),
        ("max-age=5", 106, false),
        ("max-stale=3", 113, true),
        ("max-stale=3", 114, false),
        ("max-stale", 190, true),
        ("min-fresh=4", 106, true),
        ("min-fresh=4", 107, false),
        ("", 190, true),
        ("", 50, true),
    ] {
        check(asked, now_s, want);
    }
    let plain = ProxyCache { obeys: false, ..plugin };
    assert!(plain.is_fresh(&stored, &Directives::default(), 130));
    assert!(!plain.is_fresh(&stored, &Directives::default(), 131));
}

#[test]
fn responses_say_themselves_how_long_they_are_kept() {
    let date = |s: u64| httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(s));
    let (later, earlier) = (date(NOW_S + 60), date(NOW_S - 60));
    let cases: [(Fields<'_>, Option<u64>); 12] = [
        (&[("Cache-Control", "max-age=60")], Some(60)),
        (&[("Cache-Control", "max-age=60"), ("Cache-Control", "s-maxage=5")], Some(5)),
        (&[("Cache-Control", "max-age=0")], None),
        (&[("Cache-Control", "max-age=60, private")], None),
        (&[("Cache-Control", "max-age=60"), ("Cache-Control", "no-store")], None),
        (&[("Cache-Control", "no-cache=\"x\", max-age=60")], None),
        (&[("Expires", &later)], Some(60)),
        (&[("Expires", &earlier)], None),
        (&[("Expires", &earlier), ("Expires", &later)], Some(60)),
        (&[("Expires", "0")], None),
        (&[("Expires", &later), ("Cache-Control", "max-age=7")], Some(7)),
        (&[], None),
    ];
    for (fields, want) in cases {
        let mut stage = Stage::new(json!({"cache_control": true}));
        let fields: Vec<(&str, &str)> = fields.iter().copied().chain([JSON]).collect();
        stage.passes(&["GET /p"], &fields, if want.is_some() { "Miss" } else { "Bypass" });
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.core.cache = stage.cache;
        let kept = exchange.access(&*stage.plugin) == Verdict::Reply;
        assert_eq!(kept.then(|| exchange.reply.stored.as_ref().unwrap().ttl_s), want, "{fields:?}");
    }
}

#[test]
fn fields_that_were_for_one_client_are_not_kept() {
    let plugin = built(json!({}));
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*plugin);
    for (name, value) in [
        JSON,
        ("X-A", "1"),
        ("X-A", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Content-Length", "4"),
        ("X-RateLimit-Remaining-Minute", "3"),
        ("X-Cache-Status", "Miss"),
        ("X-Kong-Upstream-Latency", "7"),
        ("Proxy-Authenticate", "x"),
    ] {
        exchange.response_field(name, value);
    }
    exchange.response_head(&*plugin);
    exchange.response_piece(&*plugin, b"body", true);
    exchange.notes.clear();
    exchange.reply.clear();
    exchange.reply.fields.append_by_name(b"x-a", b"set by a plugin of this request");
    assert_eq!(exchange.access(&*plugin), Verdict::Reply);
    let fields = exchange.reply_fields();
    let kept: Vec<&str> = fields.iter().map(String::as_str).filter(|field| !field.starts_with("X-Cache-Key")).collect();
    assert_eq!(
        kept,
        ["x-a: set by a plugin of this request", "Content-Type: application/json", "age: 0", "X-Cache-Status: Hit"]
    );
}

#[test]
fn what_is_cut_off_or_too_long_is_not_kept() {
    let plugin = built(json!({}));
    let long = vec![0u8; 1 << 20];
    let pieces: [(&[&[u8]], bool); 3] = [(&[b"bo"], false), (&[long.as_slice(); 17], true), (&[b"body", b""], true)];
    for (at, (pieces, ends)) in pieces.into_iter().enumerate() {
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.access(&*plugin);
        exchange.response_field(JSON.0, JSON.1);
        exchange.response_head(&*plugin);
        for (index, piece) in pieces.iter().enumerate() {
            exchange.response_piece(&*plugin, piece, ends && index + 1 == pieces.len());
        }
        exchange.notes.clear();
        assert_eq!(exchange.access(&*plugin) == Verdict::Reply, at == 2, "{at}");
    }
}

#[test]
fn clients_are_told_what_they_may_know() {
    let config = json!({"response_headers": {"age": false, "X-Cache-Status": false, "X-Cache-Key": false}});
    let plugin = built(config);
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*plugin);
    assert_eq!(exchange.reply_fields(), [""; 0]);
    let mut debugged = Exchange::new(&["GET /p", "Kong-Debug: 1"]);
    debugged.access(&*plugin);
    let fields = debugged.reply_fields();
    assert!(fields[0].starts_with("X-Cache-Key: ") && fields[0].len() == 13 + 64, "{fields:?}");
    assert_eq!(fields[1], "X-Cache-Status: Miss");
}

#[test]
fn hostile_fields_are_harmless() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut noise = |words: &[&str]| {
            let picks: Vec<&str> = (0..rng.usize(0..8)).map(|_| words[rng.usize(..words.len())]).collect();
            picks.concat()
        };
        let words =
            ["max-age", "=", ",", "\"", "-1", "99999999999999999999", "no-store", ";", " ", "*", "/", "text", "é"];
        let (asked, told, content_type) = (noise(&words), noise(&words), noise(&words));
        let mut stage = Stage::new(json!({"cache_control": true, "content_type": ["*/*"], "vary_headers": ["x"]}));
        let line = format!("Cache-Control: {asked}");
        let fields =
            [("Content-Type", content_type.as_str()), ("Cache-Control", &told), ("Vary", &told), ("Expires", &told)];
        stage.ask(&["GET /p?%&=%zz&&a", &line, "x: |:,"], &fields, "body");
    }
}
