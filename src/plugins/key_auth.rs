//! HOT: a key in a header is found, looked up and answered for without an allocation.
//! key-auth: who asks is told by a key in a header, an argument or the body (spec/plugins.md B.1, A.6).
//! Never: compares keys one by one; the directory finds them by hash.

use std::borrow::Cow;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::entity::validators::Check;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::Proof;
use crate::plugins::authenticate::challenge;
use crate::plugins::body::Format;
use crate::plugins::query;
use crate::plugins::query::Found;
use crate::plugins::settings;
use crate::plugins::view::View;

const KEY_NAME: Field = Field::string("").check(Check::HeaderName);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "key-auth",
        &[
            Field::array("key_names", &KEY_NAME).required().default_strs(&["apikey"]),
            Field::boolean("hide_credentials").required().default_bool(false),
            Field::string("anonymous"),
            Field::boolean("key_in_header").required().default_bool(true),
            Field::boolean("key_in_query").required().default_bool(true),
            Field::boolean("key_in_body").required().default_bool(false),
            Field::boolean("run_on_preflight").required().default_bool(true),
            Field::string("realm").optional(),
        ],
    )
    .no_consumer(),
    priority: 1250,
    build,
};

struct KeyAuth {
    key_names: Box<[Box<str>]>,
    in_header: bool,
    in_query: bool,
    in_body: bool,
    hide_credentials: bool,
    policy: Policy,
    run_on_preflight: bool,
    /// Value of `WWW-Authenticate`.
    challenge: Box<str>,
}

/// Why a request has no credential. All are 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Several,
    NoKey,
    Unknown,
}

impl Failure {
    fn message(self) -> &'static str {
        match self {
            Self::Several => "Duplicate API key found",
            Self::NoKey => "No API key found in request",
            Self::Unknown => "Unauthorized",
        }
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    Ok(Box::new(KeyAuth {
        key_names: settings::texts(config, "key_names").map(Box::from).collect(),
        in_header: settings::flag(config, "key_in_header"),
        in_query: settings::flag(config, "key_in_query"),
        in_body: settings::flag(config, "key_in_body"),
        hide_credentials: settings::flag(config, "hide_credentials"),
        policy: Policy::of(config),
        run_on_preflight: settings::flag(config, "run_on_preflight"),
        challenge: challenge("Key", config),
    }))
}

impl Plugin for KeyAuth {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if !self.run_on_preflight && view.method == Method::Options {
            return Verdict::Continue;
        }
        self.policy.decide(
            view,
            |view| self.authenticate(view),
            |reply, failure| {
                reply.gateway(401, failure.message());
                reply.fields.set(Known::WwwAuthenticate, self.challenge.as_bytes());
            },
        )
    }

    fn reads_body(&self) -> bool {
        self.in_body
    }
}

impl KeyAuth {
    fn authenticate<'a>(&self, view: &mut View<'a>) -> Result<Proof<'a>, Failure> {
        let (name, key) = self.find_key(view)?;
        let credential = match &*key {
            b"" => Err(Failure::NoKey),
            key => view.directory.keys.find(key, view.now_unix_ms).ok_or(Failure::Unknown),
        };
        if self.hide_credentials {
            self.hide(view, name.as_bytes());
        }
        let proof = Proof::of(view, credential?).ok_or(Failure::Unknown)?;
        Ok(Proof { identifier: None, ..proof })
    }

    /// The first text under one of the names, and the name.
    fn find_key<'s: 'v, 'v>(&'s self, view: &'v View<'_>) -> Result<(&'s str, Cow<'v, [u8]>), Failure> {
        for name in &self.key_names {
            let mut found = Found::Nothing;
            if self.in_header {
                found = in_header(view, name.as_bytes());
            }
            if self.in_query && found == Found::Nothing {
                found = query::find(view.query.get(), name.as_bytes());
            }
            if self.in_body && found == Found::Nothing {
                found = in_body(view, name.as_bytes());
            }
            match found {
                Found::Text(key) => return Ok((name, key)),
                Found::Several => return Err(Failure::Several),
                Found::Nothing | Found::NoText => {}
            }
        }
        Err(Failure::NoKey)
    }

    /// Takes the name out of all that goes on to the upstream, wherever the key was found.
    fn hide(&self, view: &mut View<'_>, name: &[u8]) {
        view.fields.remove_by_name(view.source, name);
        if let Some(rest) = query::without(view.query.get(), name) {
            view.query.set(rest);
        }
        if !self.in_body {
            return;
        }
        let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
        if let Some(format) = format
            && let Some(body) = &mut view.body
            && let Some(rest) = format.without(body.get(), name)
        {
            body.set(rest);
        }
    }
}

fn in_header<'v>(view: &'v View<'_>, name: &'v [u8]) -> Found<'v> {
    let mut values = view.fields.values_by_name(view.source, name);
    match (values.next(), values.next()) {
        (None, _) => Found::Nothing,
        (Some(value), None) => Found::Text(Cow::Borrowed(value)),
        _ => Found::Several,
    }
}

fn in_body<'v>(view: &'v View<'_>, name: &[u8]) -> Found<'v> {
    let Some(body) = &view.body else { return Found::Nothing };
    let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
    format.map_or(Found::Nothing, |format| format.find(body.get(), name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::view::Identity;
    use serde_json::json;
    use uuid::Uuid;

    const ALICE: &[&str] = &[
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000001",
        "X-Consumer-Custom-ID: a1",
        "X-Consumer-Username: alice",
        "X-Credential-Identifier: 00000000-0000-0000-0000-000000000011",
    ];
    const ANONYMOUS: &[&str] = &[
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000003",
        "X-Consumer-Username: anon",
        "X-Anonymous-Consumer: true",
    ];
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

    fn hiding() -> Value {
        json!({"hide_credentials": true, "key_in_body": true, "key_names": ["apikey", "x-k"], "run_on_preflight": false})
    }

    fn identity(consumer: u128, credential: Option<u128>) -> Identity {
        let (consumer, credential) = (Some(Uuid::from_u128(consumer)), credential.map(Uuid::from_u128));
        Identity { consumer, credential, groups: None }
    }

    /// The upstream gets `fields`.
    #[track_caller]
    fn passes(config: Value, exchange: &mut Exchange, fields: &[&[&str]]) {
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Continue);
        assert_eq!(exchange.fields(), fields.concat());
        assert_eq!(exchange.reply_fields(), [""; 0]);
    }

    #[track_caller]
    fn fails(config: Value, exchange: &mut Exchange, message: &str, challenge: &str) {
        let before = exchange.fields();
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, message));
        assert_eq!(exchange.reply_fields(), [format!("WWW-Authenticate: {challenge}")]);
        assert_eq!((exchange.fields(), exchange.identity.clone()), (before, Identity::default()));
    }

    #[test]
    fn a_known_key_makes_the_request_its_consumers() {
        for (lines, kept) in [
            (["GET /p", "apikey: k1"], &["apikey: k1"][..]),
            (["GET /p", "ApiKey: k1"], &["ApiKey: k1"]),
            (["GET /p?apikey=k1&z=1", ""], &[]),
            (["GET /p?z&%61pikey=%6b1", ""], &[]),
        ] {
            let mut exchange = Exchange::new(&lines);
            passes(json!({}), &mut exchange, &[kept, ALICE]);
            let expected = identity(1, Some(0x11));
            assert_eq!(exchange.identity, expected);
            assert_eq!(exchange.edited_query(), None);
        }
    }

    #[test]
    fn a_request_without_a_valid_key_is_refused() {
        let cases: [(&[&str], &str); 9] = [
            (&["GET /p"], "No API key found in request"),
            (&["OPTIONS /p"], "No API key found in request"),
            (&["GET /p?apikey"], "No API key found in request"),
            (&["GET /p", "apikey:"], "No API key found in request"),
            (&["GET /p?apikey=k1", "apikey:"], "No API key found in request"),
            (&["GET /p", "apikey: zz"], "Unauthorized"),
            (&["GET /p", "apikey: expired"], "Unauthorized"),
            (&["GET /p", "apikey: k1", "apikey: k2"], "Duplicate API key found"),
            (&["GET /p?apikey=k1&apikey=k2"], "Duplicate API key found"),
        ];
        for (lines, message) in cases {
            fails(json!({}), &mut Exchange::new(lines), message, "Key");
        }
        let realm = json!({"realm": "my-realm"});
        fails(realm, &mut Exchange::new(&["GET /p"]), "No API key found in request", r#"Key realm="my-realm""#);
    }

    #[test]
    fn a_place_that_is_switched_off_is_not_searched() {
        let none = "No API key found in request";
        fails(json!({"key_in_header": false}), &mut Exchange::new(&["GET /p", "apikey: k1"]), none, "Key");
        fails(json!({"key_in_query": false}), &mut Exchange::new(&["GET /p?apikey=k1"]), none, "Key");
        let mut form = Exchange::new(&["POST /p", FORM]).with_body("apikey=k1");
        fails(json!({}), &mut form, none, "Key");
        assert!(plugin(&KIND, hiding()).reads_body() && !plugin(&KIND, json!({})).reads_body());
    }

    #[test]
    fn the_client_cannot_speak_for_a_consumer() {
        let spoofed =
            ["GET /p", "apikey: k2", "X-Consumer-ID: x", "X-Consumer-Custom-ID: x", "X-Anonymous-Consumer: true"];
        let want: &[&str] = &[
            "apikey: k2",
            "X-Consumer-ID: 00000000-0000-0000-0000-000000000002",
            "X-Consumer-Username: bob",
            "X-Credential-Identifier: 00000000-0000-0000-0000-000000000012",
        ];
        passes(json!({}), &mut Exchange::new(&spoofed), &[want]);
        let spoofed = ["GET /p", "X-Credential-Identifier: y", "X-Consumer-Username: y"];
        let want: &[&str] = &[
            "X-Consumer-Username: anon",
            "X-Consumer-ID: 00000000-0000-0000-0000-000000000003",
            "X-Anonymous-Consumer: true",
        ];
        passes(json!({"anonymous": "anon"}), &mut Exchange::new(&spoofed), &[want]);
    }

    #[test]
    fn a_hidden_key_reaches_no_upstream() {
        passes(hiding(), &mut Exchange::new(&["GET /p", "apikey: k1"]), &[ALICE]);
        passes(hiding(), &mut Exchange::new(&["GET /p", "x-k: k1"]), &[ALICE]);

        let mut query = Exchange::new(&["GET /p?apikey=k1&z=1"]);
        passes(hiding(), &mut query, &[ALICE]);
        assert_eq!(query.edited_query(), Some("z=1"));

        let mut everywhere = Exchange::new(&["POST /p?apikey=zz", "apikey: k1", FORM]).with_body("apikey=zz&z=1");
        passes(hiding(), &mut everywhere, &[&[FORM], ALICE]);
        assert_eq!((everywhere.edited_query(), everywhere.edited_body()), (Some(""), Some("z=1")));

        let mut unknown = Exchange::new(&["GET /p", "apikey: zz"]);
        let mut config = hiding();
        config["anonymous"] = "anon".into();
        passes(config, &mut unknown, &[ANONYMOUS]);
    }

    #[test]
    fn a_key_in_the_body_is_found_and_hidden() {
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"apikey\"\r\n\r\nk1\r\n--b--\r\n";
        let cases = [
            (FORM, "apikey=k1&z=1", "z=1"),
            ("Content-Type: application/json", r#"{"apikey":"k1","z":1}"#, r#"{"z":1}"#),
            ("Content-Type: multipart/form-data; boundary=b", multipart, "--b--\r\n"),
        ];
        for (content_type, body, rest) in cases {
            let mut exchange = Exchange::new(&["POST /p", content_type]).with_body(body);
            passes(hiding(), &mut exchange, &[&[content_type], ALICE]);
            assert_eq!(exchange.edited_body(), Some(rest));
        }
        let mut list = Exchange::new(&["POST /p", "Content-Type: application/json"]).with_body(r#"{"apikey":["k1"]}"#);
        fails(hiding(), &mut list, "Duplicate API key found", "Key");
        let mut plain = Exchange::new(&["POST /p", "Content-Type: text/plain"]).with_body("apikey=k1");
        fails(hiding(), &mut plain, "No API key found in request", "Key");
        fails(hiding(), &mut Exchange::new(&["POST /p", FORM]), "No API key found in request", "Key");
    }

    #[test]
    fn a_preflight_is_let_through_if_so_configured() {
        passes(hiding(), &mut Exchange::new(&["OPTIONS /p"]), &[]);
    }

    #[test]
    fn without_a_valid_key_the_request_is_the_anonymous_consumers() {
        for anonymous in ["anon", "00000000-0000-0000-0000-000000000003"] {
            let config = json!({"anonymous": anonymous});
            passes(config.clone(), &mut Exchange::new(&["GET /p"]), &[ANONYMOUS]);
            passes(config.clone(), &mut Exchange::new(&["GET /p", "apikey: zz"]), &[&["apikey: zz"], ANONYMOUS]);
            passes(config.clone(), &mut Exchange::new(&["GET /p", "apikey: k1"]), &[&["apikey: k1"], ALICE]);
            let mut exchange = Exchange::new(&["GET /p"]);
            passes(config, &mut exchange, &[ANONYMOUS]);
            let expected = identity(3, None);
            assert_eq!(exchange.identity, expected);
        }
    }

    #[test]
    fn who_is_known_already_stays_if_there_is_an_anonymous_consumer() {
        let known = identity(2, Some(0x12));
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.identity = known.clone();
        passes(json!({"anonymous": "anon"}), &mut exchange, &[]);
        assert_eq!(exchange.identity, known);
        assert_eq!(exchange.access(&*plugin(&KIND, json!({}))), Verdict::Reply);
    }

    #[test]
    fn an_anonymous_consumer_that_is_gone_is_an_error() {
        let mut exchange = Exchange::new(&["GET /p"]);
        assert_eq!(exchange.access(&*plugin(&KIND, json!({"anonymous": "nobody"}))), Verdict::Reply);
        assert_eq!(exchange.reply.status, 500);
        assert_eq!(exchange.reply_text(), "anonymous consumer nobody is configured but doesn't exist");
    }
}
