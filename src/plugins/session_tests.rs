//! Sessions as clients and upstreams see them.

use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::directory::Credential;
use crate::plugins::directory::Directory;
use crate::plugins::directory::Groups;
use crate::plugins::rows::RowWrite;
use crate::plugins::session_config::KIND;
use crate::plugins::testing::Exchange;
use crate::plugins::testing::NOW_UNIX_MS;
use crate::plugins::testing::plugin;
use crate::plugins::testing::refusal;

const ATTRIBUTES: &str = "; Path=/; SameSite=Strict; Secure; HttpOnly";

fn session(config: Value) -> Box<dyn Plugin> {
    plugin(&KIND, config)
}

/// After another plugin has found out that it is alice.
fn authenticated(exchange: &mut Exchange) {
    exchange.identity.consumer = Some(Uuid::from_u128(1));
    exchange.identity.credential = Some(Uuid::from_u128(0x11));
}

/// A request of alice's, `seconds` from now, in a session that begins with it: the cookies that she gets.
fn begin(session: &dyn Plugin) -> Vec<String> {
    let mut exchange = Exchange::new(&["GET /p"]);
    assert_eq!(exchange.access(session), Verdict::Continue);
    authenticated(&mut exchange);
    exchange.response_head(session);
    cookies(&exchange)
}

/// What a response sets, without attributes.
fn cookies(exchange: &Exchange) -> Vec<String> {
    let lines = exchange.response_fields();
    let set = lines.iter().filter_map(|line| line.strip_prefix("Set-Cookie: "));
    set.map(|text| text.split(';').next().unwrap_or_default().to_owned()).collect()
}

/// A request with cookies, `seconds` from now, as far as the access phase.
fn come_back(session: &dyn Plugin, request: &str, cookies: &[String], seconds: u64) -> (Verdict, Exchange) {
    let mut exchange = Exchange::new(&[request, &format!("Cookie: a=b; {}", cookies.join("; "))]);
    exchange.now_unix_ms = NOW_UNIX_MS + seconds * 1000;
    let verdict = exchange.access(session);
    (verdict, exchange)
}

fn is_alice(exchange: &Exchange) -> bool {
    exchange.identity.consumer == Some(Uuid::from_u128(1))
}

#[test]
fn a_session_begins_when_somebody_has_proved_who_it_is() {
    let session = session(json!({}));
    let mut exchange = Exchange::new(&["GET /p"]);
    exchange.access(&*session);
    exchange.response_head(&*session);
    assert!(cookies(&exchange).is_empty(), "nobody");
    exchange.identity.consumer = Some(Uuid::from_u128(3));
    exchange.response_head(&*session);
    assert!(cookies(&exchange).is_empty(), "the anonymous consumer");
    authenticated(&mut exchange);
    exchange.response_head(&*session);
    let line = exchange.response_fields().pop().expect("a cookie is set");
    assert!(line.starts_with("Set-Cookie: session=") && line.ends_with(ATTRIBUTES), "{line}");
    assert_eq!(exchange.asking, None);
}

#[test]
fn a_session_stands_for_what_was_proved() {
    let session = session(json!({}));
    let mut first = Exchange::new(&["GET /p"]);
    first.access(&*session);
    authenticated(&mut first);
    first.identity.groups = Some(Groups::new(vec!["x".into(), "y z".into()]).into());
    first.response_head(&*session);
    let (verdict, mut exchange) = come_back(&*session, "GET /q", &cookies(&first), 5);
    assert_eq!((verdict, &exchange.identity), (Verdict::Continue, &first.identity));
    let want = [
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000001",
        "X-Consumer-Custom-ID: a1",
        "X-Consumer-Username: alice",
        "X-Credential-Identifier: alice",
        "X-Authenticated-Groups: x, y z",
    ];
    assert_eq!(exchange.fields()[1..], want);
    exchange.response_head(&*session);
    assert!(cookies(&exchange).is_empty(), "nothing has changed");
    // Somebody else has proved who it is on top of that.
    exchange.identity.consumer = Some(Uuid::from_u128(2));
    exchange.response_head(&*session);
    let (_, other) = come_back(&*session, "GET /q", &cookies(&exchange), 5);
    assert_eq!(other.identity.consumer, Some(Uuid::from_u128(2)));
}

#[test]
fn a_cookie_counts_for_the_session_that_it_was_made_for() {
    let made = begin(&*session(json!({})));
    assert!(is_alice(&come_back(&*session(json!({})), "GET /", &made, 0).1), "another worker, the same secret");
    for config in [json!({ "secret": "other" }), json!({ "audience": "other" }), json!({ "cookie_name": "other" })] {
        let renamed = [made.clone(), vec![made[0].replacen("session", "other", 1)]].concat();
        assert!(!is_alice(&come_back(&*session(config.clone()), "GET /", &renamed, 0).1), "{config}");
    }
    for forged in ["session=", "session=x", &made[0][..20], &format!("{}A", made[0])] {
        assert!(!is_alice(&come_back(&*session(json!({})), "GET /", &[forged.to_owned()], 0).1), "{forged}");
    }
}

#[test]
fn a_session_is_renewed_while_it_is_used_and_ends_when_it_is_not() {
    let config = json!({ "idling_timeout": 900, "rolling_timeout": 3600, "absolute_timeout": 6000 });
    let session = session(config);
    let first = begin(&*session);
    assert!(is_alice(&come_back(&*session, "GET /", &first, 899).1));
    assert!(!is_alice(&come_back(&*session, "GET /", &first, 900).1), "it has idled for too long");
    let (mut now_s, mut cookie, mut changes) = (0, first, 0);
    loop {
        now_s += 50;
        let (_, mut exchange) = come_back(&*session, "GET /", &cookie, now_s);
        if !is_alice(&exchange) {
            break;
        }
        exchange.response_head(&*session);
        let set = cookies(&exchange);
        if !set.is_empty() {
            (cookie, changes) = (set, changes + 1);
        }
    }
    assert_eq!(now_s, 6000, "however much it is used");
    assert!((50..70).contains(&changes), "{changes}");
}

#[test]
fn a_session_can_be_ended() {
    let config = json!({ "read_body_for_logout": true, "cookie_domain": "a.test", "cookie_same_site": "Default" });
    let session = session(config);
    assert!(session.reads_body());
    let made = begin(&*session);
    for request in ["GET /?session_logout=1", "POST /", "DELETE /?logout=1"] {
        assert_eq!(come_back(&*session, request, &made, 0).0, Verdict::Continue, "{request}");
    }
    for request in ["POST /?session_logout=1", "DELETE /?a=b&session_logout"] {
        let (verdict, mut exchange) = come_back(&*session, request, &made, 0);
        assert_eq!((verdict, exchange.reply.status, exchange.reply_text()), (Verdict::Reply, 200, String::new()));
        exchange.response_head(&*session);
        let want = "Set-Cookie: session=; Path=/; Domain=a.test; Secure; HttpOnly; \
                    Expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0";
        assert_eq!(exchange.response_fields(), [want]);
    }
    let form = "Content-Type: application/x-www-form-urlencoded";
    let mut exchange = Exchange::new(&["POST /", &format!("Cookie: {}", made[0]), form]).with_body("session_logout=");
    assert_eq!(exchange.access(&*session), Verdict::Reply);
    assert_eq!(come_back(&*session, "POST /?session_logout=1", &[], 0).0, Verdict::Continue, "there is none");
}

#[test]
fn a_session_of_a_consumer_that_is_gone_is_forgotten() {
    let session = session(json!({}));
    let made = begin(&*session);
    let mut exchange = Exchange::new(&["GET /", &format!("Cookie: {}", made[0])]);
    exchange.directory.remove_consumer(Uuid::from_u128(1));
    assert_eq!(exchange.access(&*session), Verdict::Continue);
    assert!(exchange.identity.credential.is_none());
    exchange.response_head(&*session);
    assert_eq!(cookies(&exchange), ["session="]);
}

#[test]
fn who_is_remembered_gets_a_new_session() {
    let session = session(json!({ "remember": true }));
    let made = begin(&*session);
    assert_eq!(made.len(), 2);
    let (_, mut exchange) = come_back(&*session, "GET /", &made[1..], 500_000);
    assert!(is_alice(&exchange), "after days");
    exchange.response_head(&*session);
    let again = cookies(&exchange);
    assert_eq!(again.len(), 2);
    let line = &exchange.response_fields()[1];
    assert!(line.starts_with("Set-Cookie: remember=") && line.ends_with("; Max-Age=604800"), "{line}");
    assert!(is_alice(&come_back(&*session, "GET /", &again, 500_000).1));
    assert!(!is_alice(&come_back(&*session, "GET /", &made[1..], 604_800).1));
    // However often it is renewed, it ends.
    let (mut cookie, mut now_s) = (again, 500_000);
    while is_alice(&come_back(&*session, "GET /", &cookie[1..], now_s + 500_000).1) {
        now_s += 500_000;
        let (_, mut exchange) = come_back(&*session, "GET /", &cookie[1..], now_s);
        exchange.response_head(&*session);
        cookie = cookies(&exchange);
    }
    assert_eq!(now_s, 2_500_000);
}

#[test]
fn header_fields_tell_of_a_session() {
    let all = json!(["id", "audience", "subject", "timeout", "idling-timeout", "rolling-timeout", "absolute-timeout"]);
    let session = session(json!({ "request_headers": all, "response_headers": all, "audience": "shop" }));
    let made = begin(&*session);
    let (_, mut exchange) = come_back(&*session, "GET /", &made, 10);
    exchange.response_head(&*session);
    for lines in [exchange.fields(), exchange.response_fields()] {
        let told: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("Session-")).collect();
        let want = [
            "Audience: shop",
            "Subject: 00000000-0000-0000-0000-000000000001",
            "Timeout: 890",
            "Idling-Timeout: 890",
            "Rolling-Timeout: 3590",
            "Absolute-Timeout: 86390",
        ];
        assert!(told[0].starts_with("Id: ") && told[0].len() == 4 + 43, "{told:?}");
        assert_eq!(told[1..], want);
    }
    let hashed = super::session_tests::session(json!({ "response_headers": ["subject"], "hash_subject": true }));
    let mut exchange = Exchange::new(&["GET /p"]);
    authenticated(&mut exchange);
    exchange.response_head(&*hashed);
    let line = exchange.response_fields().pop().expect("there are fields");
    assert_eq!(line.strip_prefix("Session-Subject: ").map(str::len), Some(43), "{line}");
}

/// Does what the control plane would with rows of sessions; how many there were.
fn keep(directory: &mut Directory, question: Option<Question>) -> usize {
    let Some(Question::Write(writes)) = question else { return 0 };
    for write in &writes {
        match write {
            RowWrite::Insert { entity: "sessions", fields, ttl_s } => {
                let text = |name: &str| fields[name].as_str().expect("it is text");
                directory.sessions.put(Credential {
                    id: text("id").parse().expect("it is an id"),
                    consumer: Uuid::nil(),
                    key: text("session_id").into(),
                    secret: text("data").into(),
                    expires_at_ms: Some(NOW_UNIX_MS + ttl_s * 1000),
                });
            }
            RowWrite::Delete { id, .. } => directory.sessions.remove(*id),
            _ => {}
        }
    }
    writes.len()
}

#[test]
fn a_session_may_be_kept_here() {
    let session = session(json!({ "storage": "kong", "store_metadata": true }));
    let mut first = Exchange::new(&["GET /p"]);
    first.access(&*session);
    authenticated(&mut first);
    first.response_head(&*session);
    let made = cookies(&first);
    assert!(!is_alice(&come_back(&*session, "GET /", &made, 0).1), "it is not there yet");
    let mut directory = first.directory.clone();
    let asked = first.asking.take().map(|asking| asking.question);
    assert_eq!(keep(&mut directory, asked), 2, "with what is known of it");

    let cookie = format!("Cookie: {}", made[0]);
    let with = |request: &str, directory: &Directory, seconds: u64| {
        let mut exchange = Exchange::new(&[request, &cookie]);
        exchange.directory = directory.clone();
        exchange.now_unix_ms += seconds * 1000;
        let verdict = exchange.access(&*session);
        (verdict, exchange)
    };
    let (_, mut same) = with("GET /", &directory, 1);
    assert!(is_alice(&same));
    same.response_head(&*session);
    assert_eq!((cookies(&same).len(), same.asking.is_none()), (0, true));
    let (_, mut used) = with("GET /", &directory, 100);
    used.response_head(&*session);
    assert_eq!(cookies(&used).len(), 1);
    assert!(
        matches!(used.asking.take().map(|asking| asking.question), Some(Question::Write(writes)) if writes.len() == 1)
    );

    let (verdict, mut ended) = with("POST /?session_logout=1", &directory, 1);
    assert_eq!(verdict, Verdict::Ask);
    let asked = ended.asking.take().map(|asking| asking.question);
    assert_eq!(keep(&mut directory, asked), 1);
    assert_eq!(ended.answered(&*session, Answer::Done), Verdict::Reply);
    assert!(!is_alice(&with("GET /", &directory, 1).1), "whoever has kept the cookie");
}

#[test]
fn what_cannot_stand_in_a_cookie_is_refused() {
    for (config, field) in [
        (json!({ "secret": null }), "secret"),
        (json!({ "secret": "{vault://env/s}" }), "secret"),
        (json!({ "cookie_name": "a b" }), "cookie_name"),
        (json!({ "cookie_path": "/;x" }), "cookie_path"),
        (json!({ "cookie_domain": "a\r\nb" }), "cookie_domain"),
        (json!({ "remember": true, "remember_cookie_name": "session" }), "remember_cookie_name"),
    ] {
        assert_eq!(refusal(&KIND, config).0, field);
    }
}
