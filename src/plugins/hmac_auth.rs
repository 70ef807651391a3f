//! HOT: what was signed is fed to the hash piece by piece; nothing is allocated.
//! hmac-auth: who asks is told by a name and a signature over chosen header fields (spec/plugins.md B.4, A.6).
//! Always: signatures are compared in constant time, and before the body is looked at.

use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::hmac;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::head::Version;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::Proof;
use crate::plugins::authenticate::challenge;
use crate::plugins::settings;
use crate::plugins::view::View;
use crate::stdx::secret::equal;
use crate::strs;

const NAME: Field = Field::string("");
const ALGORITHM: Field = Field::string("").one_of(strs!["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "hmac-auth",
        &[
            Field::boolean("hide_credentials").required().default_bool(false),
            Field::number("clock_skew").default_int(300).gt(0),
            Field::string("anonymous"),
            Field::boolean("validate_request_body").required().default_bool(false),
            Field::array("enforce_headers", &NAME).default_strs(&[]),
            Field::array("algorithms", &ALGORITHM).default_strs(&[
                "hmac-sha1",
                "hmac-sha256",
                "hmac-sha384",
                "hmac-sha512",
            ]),
            Field::string("realm").optional(),
        ],
    )
    .no_consumer(),
    priority: 1030,
    build,
};

struct HmacAuth {
    hide_credentials: bool,
    /// How far the clocks of client and gateway may be apart.
    clock_skew_ms: u64,
    validate_body: bool,
    /// Names that must have been signed, as they must be written.
    enforced: Box<[Box<str>]>,
    algorithms: Box<[Box<str>]>,
    policy: Policy,
    /// Value of `WWW-Authenticate`.
    challenge: Box<str>,
}

/// Why a request has no credential. All are 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoHeader,
    NoDate,
    Unverifiable,
    Mismatch,
}

impl Failure {
    fn message(self) -> &'static str {
        match self {
            Self::NoHeader => "Unauthorized",
            Self::NoDate => {
                "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication"
            }
            Self::Unverifiable => "HMAC signature cannot be verified",
            Self::Mismatch => "HMAC signature does not match",
        }
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let names = |field: &str| settings::texts(config, field).map(Box::from).collect();
    Ok(Box::new(HmacAuth {
        hide_credentials: settings::flag(config, "hide_credentials"),
        clock_skew_ms: (settings::number(config, "clock_skew").unwrap_or(300.0) * 1000.0) as u64,
        validate_body: settings::flag(config, "validate_request_body"),
        enforced: names("enforce_headers"),
        algorithms: names("algorithms"),
        policy: Policy::of(config),
        challenge: challenge("hmac", config),
    }))
}

impl Plugin for HmacAuth {
    fn access(&self, view: &mut View<'_>) -> Verdict {
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
        self.validate_body
    }
}

impl HmacAuth {
    fn authenticate<'a>(&self, view: &mut View<'a>) -> Result<Proof<'a>, Failure> {
        let is_there = |name| view.fields.has(name);
        if !is_there(Known::Authorization) && !is_there(Known::ProxyAuthorization) {
            return Err(Failure::NoHeader);
        }
        if !self.is_now(view, b"x-date") && !self.is_now(view, b"date") {
            return Err(Failure::NoDate);
        }
        let found = [Known::ProxyAuthorization, Known::Authorization]
            .into_iter()
            .find_map(|name| Some((name, Signature::read(view.fields.get(view.source, name)?)?)));
        let Some((header, signature)) = found else { return Err(Failure::Unverifiable) };
        let proof = self.verify(view, &signature);
        if self.hide_credentials {
            view.fields.remove(header);
        }
        proof
    }

    fn verify<'a>(&self, view: &View<'a>, signature: &Signature<'_>) -> Result<Proof<'a>, Failure> {
        let is_signed = |wanted: &str| signature.names().any(|name| name == wanted.as_bytes());
        let is_allowed = self.algorithms.iter().any(|name| name.as_bytes() == signature.algorithm);
        let Some(algorithm) = algorithm(signature.algorithm).filter(|_| is_allowed) else {
            return Err(Failure::Unverifiable);
        };
        if !self.enforced.iter().all(|wanted| is_signed(wanted)) {
            return Err(Failure::Unverifiable);
        }
        let credential = view.directory.signers.find(signature.username, view.now_unix_ms);
        let credential = credential.ok_or(Failure::Unverifiable)?;
        let mut hash = hmac::Context::with_key(&hmac::Key::new(algorithm, credential.secret.as_bytes()));
        feed(&mut hash, view, signature);
        let mut room = [0; SIGNATURE_BYTES_MAX];
        let given = STANDARD.decode_slice(signature.text, &mut room).unwrap_or(0);
        if !equal(room.get(..given).unwrap_or_default(), hash.sign().as_ref()) {
            return Err(Failure::Mismatch);
        }
        if self.validate_body && !is_body_signed(view) {
            return Err(Failure::Mismatch);
        }
        Proof::of(view, credential).ok_or(Failure::Unverifiable)
    }

    /// Whether that header says a time that is not too far from now.
    fn is_now(&self, view: &View<'_>, name: &[u8]) -> bool {
        let Some(text) = view.header(name).and_then(|text| std::str::from_utf8(text).ok()) else { return false };
        let Ok(date) = httpdate::parse_http_date(text) else { return false };
        let Ok(since) = date.duration_since(UNIX_EPOCH) else { return false };
        // A date has no fraction of a second, so neither has the time that it is compared with.
        (since.as_secs() * 1000).abs_diff(view.now_unix_ms / 1000 * 1000) <= self.clock_skew_ms
    }
}

/// The longest signature as base64 decodes it: 64 bytes, in whole groups.
const SIGNATURE_BYTES_MAX: usize = 66;

fn algorithm(name: &[u8]) -> Option<hmac::Algorithm> {
    match name {
        b"hmac-sha1" => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        b"hmac-sha256" => Some(hmac::HMAC_SHA256),
        b"hmac-sha384" => Some(hmac::HMAC_SHA384),
        b"hmac-sha512" => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

/// Gives the hash what the client has to have signed: a line for each name.
fn feed(hash: &mut hmac::Context, view: &View<'_>, signature: &Signature<'_>) {
    for (at, name) in signature.names().enumerate() {
        if at > 0 {
            hash.update(b"\n");
        }
        match (view.header(name), name) {
            (Some(value), _) => [name, b": ", value].iter().for_each(|piece| hash.update(piece)),
            (None, b"@request-target") => {
                hash.update(b"@request-target: ");
                view.method_text.iter().for_each(|byte| hash.update(&[byte.to_ascii_lowercase()]));
                hash.update(b" ");
                feed_target(hash, view);
            }
            (None, b"request-line") => {
                hash.update(view.method_text);
                hash.update(b" ");
                feed_target(hash, view);
                hash.update(match view.version {
                    Version::Http10 => b" HTTP/1.0",
                    Version::Http11 => b" HTTP/1.1",
                });
            }
            (None, _) => [name, b":"].iter().for_each(|piece| hash.update(piece)),
        }
    }
}

fn feed_target(hash: &mut hmac::Context, view: &View<'_>) {
    hash.update(view.path);
    let query = view.query.get();
    if !query.is_empty() {
        hash.update(b"?");
        hash.update(query);
    }
}

/// Whether the body is the one that `Digest` is of; without that header, whether there is none.
fn is_body_signed(view: &View<'_>) -> bool {
    // A body that does not fit in memory cannot be looked at.
    let Some(body) = &view.body else { return false };
    let Some(given) = view.header(b"digest") else { return body.get().is_empty() };
    let mut room = [0; 44];
    let hash = digest::digest(&digest::SHA256, body.get());
    let length = STANDARD.encode_slice(hash, &mut room).unwrap_or(0);
    let given = given.strip_prefix(b"SHA-256=").unwrap_or_default();
    length > 0 && equal(given, room.get(..length).unwrap_or_default())
}

/// What an `Authorization` header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature<'a> {
    username: &'a [u8],
    algorithm: &'a [u8],
    /// Names of what was signed, between spaces.
    names: &'a [u8],
    /// In base64.
    text: &'a [u8],
}

impl<'a> Signature<'a> {
    /// `hmac username="...", algorithm="...", headers="...", signature="..."`, in this order.
    fn read(header: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = header.trim_ascii_start().split_at_checked(4)?;
        if !scheme.eq_ignore_ascii_case(b"hmac") {
            return None;
        }
        let (username, rest) = parameter(rest, b"username=\"")?;
        let (algorithm, rest) = parameter(rest.strip_prefix(b",")?, b"algorithm=\"")?;
        let (names, rest) = parameter(rest.strip_prefix(b",")?, b"headers=\"")?;
        let (text, _) = parameter(rest.strip_prefix(b",")?, b"signature=\"")?;
        Some(Self { username, algorithm, names, text })
    }

    fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.names.split(|&byte| byte == b' ')
    }
}

/// The value behind that beginning, and what follows its quote. No value is empty.
fn parameter<'a>(text: &'a [u8], beginning: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let value = text.trim_ascii_start().strip_prefix(beginning)?;
    let end = value.iter().position(|&byte| byte == b'"').filter(|end| *end > 0)?;
    Some((value.get(..end)?, value.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::NOW_UNIX_MS;
    use crate::plugins::testing::plugin;
    use serde_json::json;
    use std::time::Duration;

    const ALICE: &[&str] = &[
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000001",
        "X-Consumer-Custom-ID: a1",
        "X-Consumer-Username: alice",
        "X-Credential-Identifier: h1",
    ];

    /// The time that lies so many seconds from now.
    fn date(seconds: i64) -> String {
        let now_s = (NOW_UNIX_MS / 1000) as i64;
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs((now_s + seconds) as u64))
    }

    fn sign(algorithm: hmac::Algorithm, text: &str) -> String {
        STANDARD.encode(hmac::sign(&hmac::Key::new(algorithm, b"s1"), text.as_bytes()))
    }

    fn authorization(algorithm: &str, names: &str, signature: &str) -> String {
        format!(
            r#"Authorization: hmac username="h1", algorithm="{algorithm}", headers="{names}", signature="{signature}""#
        )
    }

    /// A good header over the date alone.
    fn good() -> [String; 2] {
        let date = format!("Date: {}", date(0));
        let signature = sign(hmac::HMAC_SHA256, &date.replace("Date", "date"));
        [authorization("hmac-sha256", "date", &signature), date]
    }

    fn exchange(request: &str, lines: &[String]) -> Exchange {
        let lines: Vec<&str> = [request].into_iter().chain(lines.iter().map(String::as_str)).collect();
        Exchange::new(&lines)
    }

    #[track_caller]
    fn passes(config: Value, exchange: &mut Exchange) {
        let verdict = exchange.access(&*plugin(&KIND, config));
        assert_eq!(verdict, Verdict::Continue, "{}", exchange.reply_text());
        assert!(exchange.fields().ends_with(&ALICE.map_to_strings()), "{:?}", exchange.fields());
    }

    trait Strings {
        fn map_to_strings(&self) -> Vec<String>;
    }

    impl Strings for &[&str] {
        fn map_to_strings(&self) -> Vec<String> {
            self.iter().map(|text| (*text).to_string()).collect()
        }
    }

    #[track_caller]
    fn fails(config: Value, exchange: &mut Exchange, failure: Failure) {
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, failure.message()));
        assert_eq!(exchange.reply_fields(), ["WWW-Authenticate: hmac"]);
    }

    #[test]
    fn every_algorithm_signs_every_kind_of_line() {
        let algorithms = [
            ("hmac-sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            ("hmac-sha256", hmac::HMAC_SHA256),
            ("hmac-sha384", hmac::HMAC_SHA384),
            ("hmac-sha512", hmac::HMAC_SHA512),
        ];
        let date = date(-300);
        let cases = [
            ("x-date", format!("x-date: {date}")),
            ("X-Date request-line", format!("X-Date: {date}\nPOST /p/q?a=%20b HTTP/1.1")),
            ("@request-target x-date", format!("@request-target: post /p/q?a=%20b\nx-date: {date}")),
            ("x-none x-a X-A", "x-none:\nx-a: 1\nX-A: 1".to_string()),
        ];
        for (name, algorithm) in algorithms {
            for (names, signed) in &cases {
                let header = authorization(name, names, &sign(algorithm, signed));
                let lines = [header, format!("X-Date: {date}"), "x-a: 1".to_string(), "x-a: 2".to_string()];
                passes(json!({}), &mut exchange("POST /p/q?a=%20b", &lines));
            }
        }
    }

    #[test]
    fn the_header_may_be_written_in_several_ways() {
        let [header, date] = good();
        let tight = header.replace("\", ", "\",").replace("hmac username", "Hmac  username");
        passes(json!({}), &mut exchange("GET /p", &[tight, date.clone()]));
        let proxy = header.replace("Authorization", "Proxy-Authorization");
        let other = "Authorization: Basic x".to_string();
        passes(json!({}), &mut exchange("GET /p", &[other.clone(), proxy, date.clone()]));
        let mut hidden = exchange("GET /p", &[header.clone(), date.clone()]);
        passes(json!({ "hide_credentials": true }), &mut hidden);
        assert!(!hidden.fields().iter().any(|line| line.starts_with("Authorization")));
        // Proxy-Authorization comes first, whatever Authorization says.
        let wrong = header.replace("Authorization", "Proxy-Authorization").replace("h1", "h2");
        fails(json!({}), &mut exchange("GET /p", &[header, wrong, date]), Failure::Unverifiable);
    }

    #[test]
    fn the_date_must_be_near() {
        let [header, _] = good();
        let with = |line: &str| exchange("GET /p", &[header.clone(), line.to_string()]);
        fails(json!({}), &mut with("X: y"), Failure::NoDate);
        fails(json!({}), &mut with("Date: yesterday"), Failure::NoDate);
        for seconds in [-301, 301] {
            fails(json!({}), &mut with(&format!("Date: {}", date(seconds))), Failure::NoDate);
            fails(json!({ "clock_skew": 301 }), &mut with(&format!("Date: {}", date(seconds))), Failure::Mismatch);
        }
        fails(json!({ "clock_skew": 0.5 }), &mut with(&format!("Date: {}", date(1))), Failure::NoDate);
        fails(json!({}), &mut exchange("GET /p", &[]), Failure::NoHeader);
        // One good date of the two is enough.
        let [header, good_date] = good();
        passes(json!({}), &mut exchange("GET /p", &[header, "X-Date: z".to_string(), good_date]));
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        let [header, date] = good();
        let with = |header: String| exchange("GET /p", &[header, date.clone()]);
        let unverifiable = [
            header.replace("hmac username", "Basic username"),
            header.replace("username=\"h1\"", "username=\"\""),
            header.replace("username=\"h1\"", "username=\"nobody\""),
            header.replace("hmac-sha256", "hmac-md5"),
            header.replace("algorithm", "algo"),
            header.replace("headers=", "names="),
            "Authorization: hmac".to_string(),
            "Authorization: \u{e9}\u{e9}\u{e9}".to_string(),
        ];
        for header in unverifiable {
            fails(json!({}), &mut with(header), Failure::Unverifiable);
        }
        fails(json!({ "algorithms": ["hmac-sha1"] }), &mut with(header.clone()), Failure::Unverifiable);
        fails(json!({ "enforce_headers": ["date", "x-a"] }), &mut with(header.clone()), Failure::Unverifiable);
        fails(json!({ "enforce_headers": ["Date"] }), &mut with(header.clone()), Failure::Unverifiable);
        passes(json!({ "enforce_headers": ["date"] }), &mut with(header.clone()));
        for signature in ["!!", "AAAA", &"A".repeat(2000), &sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &date)] {
            fails(json!({}), &mut with(authorization("hmac-sha256", "date", signature)), Failure::Mismatch);
        }
        let mut anonymous = with("Authorization: hmac".to_string());
        assert_eq!(anonymous.access(&*plugin(&KIND, json!({ "anonymous": "anon" }))), Verdict::Continue);
        let mut realm = exchange("GET /p", &[]);
        assert_eq!(realm.access(&*plugin(&KIND, json!({ "realm": "r" }))), Verdict::Reply);
        assert_eq!(realm.reply_fields(), ["WWW-Authenticate: hmac realm=\"r\""]);
    }

    #[test]
    fn a_body_is_checked_if_asked_for() {
        let [header, date] = good();
        let config = || json!({ "validate_request_body": true });
        assert!(plugin(&KIND, config()).reads_body() && !plugin(&KIND, json!({})).reads_body());
        let digest = |body: &str| {
            format!("Digest: SHA-256={}", STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes())))
        };
        let with = |line: String| exchange("POST /p", &[header.clone(), date.clone(), line]);
        passes(config(), &mut with(digest("abc")).with_body("abc"));
        passes(config(), &mut with("X: y".to_string()).with_body(""));
        passes(config(), &mut with(digest("")).with_body(""));
        fails(config(), &mut with(digest("abd")).with_body("abc"), Failure::Mismatch);
        fails(config(), &mut with("X: y".to_string()).with_body("abc"), Failure::Mismatch);
        fails(config(), &mut with("Digest: MD5=x".to_string()).with_body("abc"), Failure::Mismatch);
        fails(config(), &mut with(digest("abc")), Failure::Mismatch);
        passes(json!({}), &mut with(digest("abd")).with_body("abc"));
    }
}
