//! jwt: who asks is told by a signed token (RFC 7519; spec/plugins.md B.3, A.6).
//! Always: nothing of a token counts before its signature does, except what says whose key to verify it with.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::Proof;
use crate::plugins::cookie;
use crate::plugins::query;
use crate::plugins::settings;
use crate::plugins::token_key::ALGORITHMS;
use crate::plugins::token_key::Rejected;
use crate::plugins::view::Reply;
use crate::plugins::view::View;
use crate::strs;

const NAME: Field = Field::string("");
const CLAIM: Field = Field::string("").one_of(strs!["exp", "nbf"]);

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "jwt",
        &[
            Field::set("uri_param_names", &NAME).default_strs(&["jwt"]),
            Field::set("cookie_names", &NAME).default_strs(&[]),
            Field::string("key_claim_name").default_str("iss"),
            Field::boolean("secret_is_base64").required().default_bool(false),
            Field::set("claims_to_verify", &CLAIM),
            Field::string("anonymous"),
            Field::boolean("run_on_preflight").required().default_bool(true),
            Field::number("maximum_expiration").default_int(0).between(0, 31_536_000),
            Field::set("header_names", &NAME).default_strs(&["authorization"]),
            Field::string("realm").optional(),
        ],
    )
    .checks(&[EntityCheck::conditional(
        "config.maximum_expiration",
        Match::Gt(0),
        "config.claims_to_verify",
        Match::Contains("exp"),
    )])
    .no_consumer(),
    priority: 1450,
    build,
};

struct Jwt {
    arguments: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
    headers: Box<[Box<str>]>,
    key_claim: Box<str>,
    secret_is_base64: bool,
    verifies_exp: bool,
    verifies_nbf: bool,
    /// 0: none.
    maximum_expiration_s: f64,
    policy: Policy,
    run_on_preflight: bool,
    /// Values of `WWW-Authenticate`: without a token, with a bad one.
    challenge: Box<str>,
    challenge_of_bad: Box<str>,
}

/// Why a request has no credential. All are 401.
#[derive(Debug, PartialEq)]
enum Failure {
    NoToken,
    Bad(Cow<'static, str>),
    /// What is wrong with which claim.
    Claims(Value),
}

impl From<&'static str> for Failure {
    fn from(text: &'static str) -> Self {
        Self::Bad(Cow::Borrowed(text))
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let names = |field: &str| settings::texts(config, field).map(Box::from).collect();
    let verifies = |claim: &str| settings::texts(config, "claims_to_verify").any(|name| name == claim);
    let (challenge, challenge_of_bad) = match settings::text(config, "realm") {
        Some(realm) => {
            (format!("Bearer realm=\"{realm}\""), format!("Bearer realm=\"{realm}\", error=\"invalid_token\""))
        }
        None => ("Bearer".to_string(), "Bearer error=\"invalid_token\"".to_string()),
    };
    Ok(Box::new(Jwt {
        arguments: names("uri_param_names"),
        cookies: names("cookie_names"),
        headers: names("header_names"),
        key_claim: settings::text(config, "key_claim_name").unwrap_or("iss").into(),
        secret_is_base64: settings::flag(config, "secret_is_base64"),
        verifies_exp: verifies("exp"),
        verifies_nbf: verifies("nbf"),
        maximum_expiration_s: config.get("maximum_expiration").and_then(Value::as_f64).unwrap_or(0.0),
        policy: Policy::of(config),
        run_on_preflight: settings::flag(config, "run_on_preflight"),
        challenge: challenge.into(),
        challenge_of_bad: challenge_of_bad.into(),
    }))
}

impl Plugin for Jwt {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if !self.run_on_preflight && view.method == Method::Options {
            return Verdict::Continue;
        }
        self.policy.decide(view, |view| self.authenticate(view), |reply, failure| self.refuse(reply, failure))
    }
}

impl Jwt {
    fn refuse(&self, reply: &mut Reply, failure: Failure) {
        let challenge = match failure {
            Failure::NoToken => &self.challenge,
            _ => &self.challenge_of_bad,
        };
        match failure {
            Failure::NoToken => reply.exit(401, "Unauthorized"),
            Failure::Bad(message) => reply.exit(401, &message),
            Failure::Claims(wrong) => {
                reply.raw(401, "application/json; charset=utf-8", wrong.to_string().as_bytes());
            }
        }
        reply.fields.set(Known::WwwAuthenticate, challenge.as_bytes());
    }

    fn authenticate<'a>(&self, view: &View<'a>) -> Result<Proof<'a>, Failure> {
        let tokens = self.tokens(view);
        let text = match &*tokens {
            [] => return Err(Failure::NoToken),
            [token] => &**token,
            _ => return Err("Multiple tokens provided".into()),
        };
        let token = Token::read(text)?;
        let name = &self.key_claim;
        let key = match token.claims.get(&**name).or_else(|| token.header.get(&**name)) {
            None | Some(Value::Null) => return Err(Failure::Bad(format!("No mandatory '{name}' in claims").into())),
            Some(Value::String(key)) if key.is_empty() => {
                return Err(Failure::Bad(format!("Invalid '{name}' in claims").into()));
            }
            Some(Value::String(key)) => key.clone(),
            Some(other) => other.to_string(),
        };
        let credential = view.directory.tokens.find(key.as_bytes(), view.now_unix_ms);
        let credential =
            credential.ok_or_else(|| Failure::Bad(format!("No credentials found for given '{name}'").into()))?;
        if *credential.secret.algorithm != *token.algorithm {
            return Err("Invalid algorithm".into());
        }
        credential.secret.verify(token.signed, &token.signature, self.secret_is_base64).map_err(|why| match why {
            Rejected::NoKey => Failure::from("Invalid key/secret"),
            Rejected::BadSignature => Failure::from("Invalid signature"),
        })?;
        self.verify_claims(&token.claims, view.now_unix_ms / 1000)?;
        Proof::of(view, credential)
            .ok_or_else(|| Failure::Bad(format!("Could not find consumer for '{name}={key}'").into()))
    }

    /// The tokens of the request, each once.
    fn tokens<'v>(&self, view: &'v View<'_>) -> Vec<Cow<'v, [u8]>> {
        let mut found: Vec<Cow<'v, [u8]>> = Vec::new();
        let mut add = |token: Cow<'v, [u8]>| {
            if !token.is_empty() && !found.contains(&token) {
                found.push(token);
            }
        };
        for argument in query::arguments(view.query.get()) {
            let name = query::decoded(argument.name);
            if let Some(value) = argument.value
                && self.arguments.iter().any(|wanted| wanted.as_bytes() == &*name)
            {
                add(query::decoded(value));
            }
        }
        if !self.cookies.is_empty() {
            for (name, value) in cookie::pairs(view.fields, view.source) {
                if self.cookies.iter().any(|wanted| wanted.as_bytes() == name) {
                    add(Cow::Borrowed(value));
                }
            }
        }
        for name in &self.headers {
            if let Some(token) = view.fields.get_by_name(view.source, name.as_bytes()).and_then(bearer) {
                add(Cow::Borrowed(token));
            }
        }
        found
    }

    fn verify_claims(&self, claims: &Map<String, Value>, now_s: u64) -> Result<(), Failure> {
        let now_s = now_s as f64;
        let mut wrong = Map::new();
        let number = |claim: &str| claims.get(claim).and_then(Value::as_f64);
        let mut check = |claim: &str, text: &str, is_good: fn(f64, f64) -> bool| {
            let text = match number(claim) {
                None => "must be a number",
                Some(at_s) if is_good(at_s, now_s) => return,
                Some(_) => text,
            };
            wrong.insert(claim.to_string(), text.into());
        };
        if self.verifies_nbf {
            check("nbf", "token not valid yet", |at_s, now_s| at_s <= now_s);
        }
        if self.verifies_exp {
            check("exp", "token expired", |at_s, now_s| at_s > now_s);
        }
        let most = self.maximum_expiration_s;
        if wrong.is_empty() && most > 0.0 && number("exp").is_none_or(|at_s| at_s - now_s > most) {
            return Err(Failure::Claims(json!({ "exp": "exceeds maximum allowed expiration" })));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::Claims(Value::Object(wrong))) }
    }
}

/// What stands behind `Bearer` or `bearer`.
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let rest = header.strip_prefix(b"Bearer").or_else(|| header.strip_prefix(b"bearer"))?;
    rest.first().is_some_and(u8::is_ascii_whitespace).then(|| rest.trim_ascii())
}

/// A token taken apart.
struct Token<'t> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    algorithm: String,
    /// What the signature is over.
    signed: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    fn read(text: &'t [u8]) -> Result<Self, Failure> {
        const NO_JSON: &str = "Bad token; invalid JSON";
        let decode = |part: &[u8]| URL_SAFE_NO_PAD.decode(part.trim_ascii_end()).ok();
        let object = |part: &[u8]| serde_json::from_slice::<Value>(&decode(part)?).ok();
        let mut parts = text.splitn(3, |&byte| byte == b'.');
        let (header, claims) = (parts.next().and_then(object), parts.next().and_then(object));
        let (Some(Value::Object(header)), Some(claims)) = (header, claims) else { return Err(NO_JSON.into()) };
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            Some(name) if ALGORITHMS.contains(&name) => name.to_string(),
            _ => return Err("Bad token; invalid alg".into()),
        };
        let Value::Object(claims) = claims else { return Err("Bad token; invalid claims".into()) };
        let Some((last, signature)) = parts.next().and_then(|last| Some((last, decode(last)?))) else {
            return Err("Bad token; invalid signature".into());
        };
        let signed = text.get(..text.len().saturating_sub(last.len() + 1)).unwrap_or_default();
        Ok(Self { header, claims, algorithm, signed, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::NOW_UNIX_MS;
    use crate::plugins::testing::plugin;
    use ring::hmac;

    /// Signed with the secret of the credential `iss1`.
    fn token(header: Value, claims: Value) -> String {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"sec1"), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn good() -> String {
        token(json!({ "alg": "HS256" }), json!({ "iss": "iss1" }))
    }

    #[track_caller]
    fn passes(config: Value, lines: &[&str]) {
        let mut exchange = Exchange::new(lines);
        let verdict = exchange.access(&*plugin(&KIND, config));
        assert_eq!(verdict, Verdict::Continue, "{lines:?} {}", exchange.reply_text());
        assert!(exchange.fields().contains(&"X-Credential-Identifier: iss1".to_string()), "{:?}", exchange.fields());
    }

    #[track_caller]
    fn fails(config: Value, lines: &[&str], text: &str, challenge: &str) {
        let mut exchange = Exchange::new(lines);
        assert_eq!(exchange.access(&*plugin(&KIND, config)), Verdict::Reply, "{lines:?}");
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, text));
        assert_eq!(exchange.reply_fields(), [format!("WWW-Authenticate: {challenge}")]);
    }

    #[test]
    fn a_token_is_found_wherever_it_may_stand() {
        let token = good();
        passes(json!({}), &["GET /p", &format!("Authorization: Bearer {token}")]);
        passes(json!({}), &["GET /p", &format!("authorization: bearer {token}")]);
        passes(json!({}), &[&format!("GET /p?jwt={token}")]);
        passes(json!({}), &[&format!("GET /p?jwt={token}&jwt={token}"), &format!("Authorization: Bearer {token}")]);
        passes(json!({ "cookie_names": ["c"] }), &["GET /p", &format!("Cookie: a=b; c={token}")]);
        passes(json!({ "header_names": ["x-t"] }), &["GET /p", &format!("X-T: Bearer {token}")]);
        let by_kid = super::tests::token(json!({ "alg": "HS256", "kid": "iss1" }), json!({}));
        passes(json!({ "key_claim_name": "kid" }), &[&format!("GET /p?jwt={by_kid}")]);
    }

    #[test]
    fn a_request_without_a_token_is_challenged() {
        fails(json!({}), &["GET /p"], "Unauthorized", "Bearer");
        fails(json!({}), &["GET /p", "Authorization: Basic x"], "Unauthorized", "Bearer");
        fails(json!({ "realm": "r" }), &["GET /p?jwt="], "Unauthorized", "Bearer realm=\"r\"");
        let mut preflight = Exchange::new(&["OPTIONS /p"]);
        let config = json!({ "run_on_preflight": false });
        assert_eq!(preflight.access(&*plugin(&KIND, config)), Verdict::Continue);
        let mut anonymous = Exchange::new(&["GET /p"]);
        assert_eq!(anonymous.access(&*plugin(&KIND, json!({ "anonymous": "anon" }))), Verdict::Continue);
    }

    #[test]
    fn a_bad_token_is_refused_with_its_reason() {
        let hs256 = || json!({ "alg": "HS256" });
        let mut forged = good();
        forged.replace_range(0..1, "f");
        let undecodable = format!("{}!", good());
        let cases = [
            ("abc".to_string(), "Bad token; invalid JSON"),
            ("..".to_string(), "Bad token; invalid JSON"),
            (forged, "Bad token; invalid JSON"),
            (token(json!({ "alg": "none" }), json!({ "iss": "iss1" })), "Bad token; invalid alg"),
            (token(json!({ "alg": 1 }), json!({})), "Bad token; invalid alg"),
            (token(hs256(), json!([])), "Bad token; invalid claims"),
            (token(hs256(), json!({})), "No mandatory 'iss' in claims"),
            (token(hs256(), json!({ "iss": "" })), "Invalid 'iss' in claims"),
            (token(hs256(), json!({ "iss": "zz" })), "No credentials found for given 'iss'"),
            (token(hs256(), json!({ "iss": 1 })), "No credentials found for given 'iss'"),
            (token(json!({ "alg": "HS384" }), json!({ "iss": "iss1" })), "Invalid algorithm"),
            (undecodable, "Bad token; invalid signature"),
        ];
        for (token, text) in cases {
            fails(json!({}), &[&format!("GET /p?jwt={token}")], text, "Bearer error=\"invalid_token\"");
        }
        let mut unsigned = good();
        unsigned.truncate(unsigned.rfind('.').unwrap() + 1);
        let bad = "Bearer realm=\"r\", error=\"invalid_token\"";
        fails(json!({ "realm": "r" }), &[&format!("GET /p?jwt={unsigned}")], "Invalid signature", bad);
        let two = format!("GET /p?jwt={}&jwt={unsigned}", good());
        fails(json!({}), &[&two], "Multiple tokens provided", "Bearer error=\"invalid_token\"");
    }

    #[test]
    fn claims_about_time_are_verified_if_so_configured() {
        let now_s = NOW_UNIX_MS / 1000;
        let bad = "Bearer error=\"invalid_token\"";
        let config = json!({ "claims_to_verify": ["exp", "nbf"], "maximum_expiration": 100 });
        let line = |claims: Value| {
            let mut claims = claims;
            claims["iss"] = "iss1".into();
            format!("GET /p?jwt={}", token(json!({ "alg": "HS256" }), claims))
        };
        passes(config.clone(), &[&line(json!({ "exp": now_s + 1, "nbf": now_s }))]);
        let cases = [
            (json!({ "exp": now_s, "nbf": now_s }), r#"{"exp":"token expired"}"#),
            (json!({ "exp": now_s + 1, "nbf": now_s + 1 }), r#"{"nbf":"token not valid yet"}"#),
            (json!({ "exp": "x", "nbf": 1 }), r#"{"exp":"must be a number"}"#),
            (json!({}), r#"{"nbf":"must be a number","exp":"must be a number"}"#),
            (json!({ "exp": now_s + 101, "nbf": 1 }), r#"{"exp":"exceeds maximum allowed expiration"}"#),
        ];
        for (claims, text) in cases {
            fails(config.clone(), &[&line(claims.clone())], text, bad);
            passes(json!({}), &[&line(claims)]);
        }
    }
}
