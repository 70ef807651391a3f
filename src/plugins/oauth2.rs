//! oauth2: who asks is told by a token that this gateway has given out (RFC 6749, RFC 6750; spec/plugins.md B.6, A.6).
//! Owns: calls that bring a token, and the way of a question that [`oauth2_grants`](super::oauth2_grants) needs answered.
//! Always: a token is durable and every core knows it before the client does.

use std::borrow::Cow;

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::entity::PluginSchema;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::http::head::Method;
use crate::http::known::Known;
use crate::limits;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::Proof;
use crate::plugins::body::Format;
use crate::plugins::grants::Grant;
use crate::plugins::oauth2_grants::Grants;
use crate::plugins::oauth2_grants::Outcome;
use crate::plugins::oauth2_grants::Pkce;
use crate::plugins::oauth2_said::Said;
use crate::plugins::query;
use crate::plugins::query::Found;
use crate::plugins::settings;
use crate::plugins::view::Reply;
use crate::plugins::view::View;
use crate::strs;

const SCOPE: Field = Field::string("");
const FLOWS: [&str; 4] =
    ["enable_authorization_code", "enable_implicit_grant", "enable_client_credentials", "enable_password_grant"];

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "oauth2",
        &[
            Field::array("scopes", &SCOPE),
            Field::boolean("mandatory_scope").required().default_bool(false),
            Field::string("provision_key").required().unique().auto(Auto::RandomText).encrypted(),
            Field::number("token_expiration").required().default_int(7200),
            Field::boolean("enable_authorization_code").required().default_bool(false),
            Field::boolean("enable_implicit_grant").required().default_bool(false),
            Field::boolean("enable_client_credentials").required().default_bool(false),
            Field::boolean("enable_password_grant").required().default_bool(false),
            Field::boolean("hide_credentials").required().default_bool(false),
            Field::boolean("accept_http_if_already_terminated").required().default_bool(false),
            Field::string("anonymous"),
            Field::boolean("global_credentials").required().default_bool(false),
            Field::string("auth_header_name").default_str("authorization"),
            Field::number("refresh_token_ttl").required().default_int(1_209_600).between(0, 100_000_000),
            Field::boolean("reuse_refresh_token").required().default_bool(false),
            Field::string("pkce").optional().default_str("lax").one_of(strs!["none", "lax", "strict"]),
            Field::string("realm").optional(),
        ],
    )
    .config_rule(some_flow_is_on)
    .checks(&[EntityCheck::conditional(
        "config.mandatory_scope",
        Match::Eq(Literal::Bool(true)),
        "config.scopes",
        Match::Required,
    )])
    .no_consumer(),
    priority: 1400,
    build,
};

fn some_flow_is_on(config: &Map<String, Value>) -> Result<(), String> {
    match FLOWS.iter().any(|flow| settings::flag(config, flow)) {
        true => Ok(()),
        false => Err(format!("at least one of these fields must be true: {}", FLOWS.join(", "))),
    }
}

struct Oauth2 {
    grants: Grants,
    policy: Policy,
    header: Box<str>,
    hide_credentials: bool,
    is_global: bool,
    accepts_terminated: bool,
    /// Values of `WWW-Authenticate`: without a token, with a bad one.
    challenge: Box<str>,
    challenge_of_bad: Box<str>,
}

const SCOPE_HEADER: &[u8] = b"X-Authenticated-Scope";
const USER_HEADER: &[u8] = b"X-Authenticated-UserId";
const BAD_TOKEN: &str = "The access token is invalid or has expired";

/// What a request waits for, in the first number of the notes. What is said after it stands in the bytes.
const VERIFYING: u64 = 1;
const WRITING: u64 = 2;

/// Why a call has no token that counts. All are 401.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NoToken,
    Bad,
}

/// The two endpoints, which stand below every path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Token,
    Authorize,
}

impl Endpoint {
    fn of(path: &[u8]) -> Option<Self> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        if path.ends_with(b"/oauth2/token") {
            return Some(Self::Token);
        }
        path.ends_with(b"/oauth2/authorize").then_some(Self::Authorize)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Authorize => "authorization",
        }
    }
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let flag = |name: &str| settings::flag(config, name);
    let seconds = |name: &str| settings::number(config, name).map_or(0, |seconds| seconds.max(0.0) as u64);
    let realm = settings::text(config, "realm").map(|realm| format!("realm=\"{realm}\""));
    let bad = format!("error=\"invalid_token\", error_description=\"{BAD_TOKEN}\"");
    let (challenge, challenge_of_bad) = match realm {
        Some(realm) => (format!("Bearer {realm}"), format!("Bearer {realm}, {bad}")),
        None => ("Bearer".to_owned(), format!("Bearer {bad}")),
    };
    let grants = Grants {
        scopes: config
            .get("scopes")
            .and_then(Value::as_array)
            .map(|_| settings::texts(config, "scopes").map(Box::from).collect()),
        mandatory_scope: flag("mandatory_scope"),
        provision_key: settings::text(config, "provision_key").unwrap_or_default().into(),
        token_expiration_s: seconds("token_expiration"),
        refresh_token_ttl_s: seconds("refresh_token_ttl"),
        authorization_code: flag("enable_authorization_code"),
        implicit: flag("enable_implicit_grant"),
        client_credentials: flag("enable_client_credentials"),
        password: flag("enable_password_grant"),
        is_global: flag("global_credentials"),
        reuse_refresh_token: flag("reuse_refresh_token"),
        pkce: match settings::text(config, "pkce") {
            Some("none") => Pkce::None,
            Some("strict") => Pkce::Strict,
            _ => Pkce::Lax,
        },
        header: settings::text(config, "auth_header_name").unwrap_or("authorization").into(),
    };
    Ok(Box::new(Oauth2 {
        header: grants.header.clone(),
        is_global: grants.is_global,
        grants,
        policy: Policy::of(config),
        hide_credentials: flag("hide_credentials"),
        accepts_terminated: flag("accept_http_if_already_terminated"),
        challenge: challenge.into(),
        challenge_of_bad: challenge_of_bad.into(),
    }))
}

impl Plugin for Oauth2 {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if self.policy.is_settled(view) {
            return Verdict::Continue;
        }
        let Some(endpoint) = Endpoint::of(view.path) else { return self.protect(view) };
        if view.method != Method::Post {
            let method = String::from_utf8_lossy(view.method_text);
            let text = format!("The HTTP method {method} is invalid for the {} endpoint", endpoint.name());
            return say(view.reply, Said::error(405, "invalid_method", &text));
        }
        let outcome = if !self.is_secret(view) {
            Outcome::Say(Said::error(400, "access_denied", "You must use HTTPS").with_state(view))
        } else {
            match endpoint {
                Endpoint::Token => self.grants.token(view, None),
                Endpoint::Authorize => self.grants.authorize(view),
            }
        };
        self.follow(view, outcome)
    }

    fn answered(&self, view: &mut View<'_>, answer: Answer) -> Verdict {
        match (view.notes.numbers[0], answer) {
            (VERIFYING, Answer::Proved(is_good)) => {
                let outcome = self.grants.token(view, Some(is_good));
                self.follow(view, outcome)
            }
            (WRITING, Answer::Done) => {
                let body = std::mem::take(&mut view.notes.bytes);
                say(view.reply, Said { status: 200, body, challenges_basic: false })
            }
            // Somebody else has used the code or the refresh token in the meantime.
            (WRITING, Answer::Gone) => say(view.reply, Grants::used_up(view)),
            _ => {
                view.reply.gateway(500, "An unexpected error occurred");
                Verdict::Reply
            }
        }
    }

    fn reads_body(&self) -> bool {
        true
    }
}

fn say(reply: &mut Reply, said: Said) -> Verdict {
    reply.raw(said.status, "application/json; charset=utf-8", &said.body);
    reply.fields.set(Known::CacheControl, b"no-store");
    reply.fields.set(Known::Pragma, b"no-cache");
    if said.challenges_basic {
        reply.fields.set(Known::WwwAuthenticate, b"Basic realm=\"OAuth2.0\"");
    }
    Verdict::Reply
}

impl Oauth2 {
    /// Whether nobody between the client and the first trusted peer can read the request.
    fn is_secret(&self, view: &View<'_>) -> bool {
        let forwarded = || view.fields.get(view.source, Known::XForwardedProto) == Some(b"https");
        view.scheme == "https" || (self.accepts_terminated && view.peer_is_trusted && forwarded())
    }

    fn follow(&self, view: &mut View<'_>, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Say(said) => say(view.reply, said),
            Outcome::Verify { hash, secret } => {
                view.notes.numbers[0] = VERIFYING;
                view.ask(Question::Verify { hash, secret }, limits::SECRET_VERIFIED_MS)
            }
            Outcome::Write { rows, body } => {
                view.notes.numbers[0] = WRITING;
                view.notes.bytes = body;
                view.ask(Question::Write(rows), limits::TOKEN_WRITE_MS)
            }
        }
    }

    /// A call that is no question to an endpoint.
    fn protect(&self, view: &mut View<'_>) -> Verdict {
        view.fields.remove_by_name(view.source, SCOPE_HEADER);
        view.fields.remove_by_name(view.source, USER_HEADER);
        self.policy.decide(
            view,
            |view| self.authenticate(view),
            |reply, failure| {
                let (error, text, challenge) = match failure {
                    Failure::NoToken => ("invalid_request", "The access token is missing", &self.challenge),
                    Failure::Bad => ("invalid_token", BAD_TOKEN, &self.challenge_of_bad),
                };
                let said = Said::error(401, error, text);
                reply.raw(401, "application/json; charset=utf-8", &said.body);
                reply.fields.set(Known::WwwAuthenticate, challenge.as_bytes());
            },
        )
    }

    fn authenticate<'a>(&self, view: &mut View<'a>) -> Result<Proof<'a>, Failure> {
        let directory = view.directory;
        let is_in_header = view.header(self.header.as_bytes()).is_some();
        let found = {
            let token = match view.header(self.header.as_bytes()) {
                Some(header) => Some(Cow::Borrowed(bearer(header))),
                None => parameter(view, b"access_token"),
            };
            let token = token.filter(|token| !token.is_empty()).ok_or(Failure::NoToken)?;
            directory.oauth2_tokens.find_access(&token, view.now_unix_ms)
        };
        let token = found.map(|row| &*row.secret).filter(|token| token.is_fresh(view.now_unix_ms / 1000));
        let token = token.filter(|token| self.counts_here(&token.grant, view));
        if self.hide_credentials {
            self.hide(view, is_in_header);
        }
        let grant = &token.ok_or(Failure::Bad)?.grant;
        let app = directory.apps.get(grant.app).ok_or(Failure::Bad)?;
        let proof = Proof::of(view, app).ok_or(Failure::Bad)?;
        for (name, text) in [(SCOPE_HEADER, &grant.scope), (USER_HEADER, &grant.user)] {
            if let Some(text) = text {
                view.fields.set_by_name(view.source, name, text.as_bytes());
            }
        }
        Ok(proof)
    }

    /// A grant for one service counts there; one for all where that is allowed.
    fn counts_here(&self, grant: &Grant, view: &View<'_>) -> bool {
        match grant.service {
            Some(service) => service_of(view) == Some(service),
            None => self.is_global,
        }
    }

    fn hide(&self, view: &mut View<'_>, is_in_header: bool) {
        const NAME: &[u8] = b"access_token";
        if is_in_header {
            view.fields.remove_by_name(view.source, self.header.as_bytes());
            return;
        }
        if let Some(rest) = query::without(view.query.get(), NAME) {
            view.query.set(rest);
        }
        let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
        if let (Some(format), Some(body)) = (format, &mut view.body)
            && let Some(rest) = format.without(body.get(), NAME)
        {
            body.set(rest);
        }
    }
}

/// The service that the request goes to.
pub(super) fn service_of(view: &View<'_>) -> Option<Uuid> {
    view.service.map(|service| service.id)
}

/// What stands behind `Bearer` or `token`; otherwise all of it.
fn bearer(header: &[u8]) -> &[u8] {
    let mut words = header.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    match (words.next(), words.next(), words.next()) {
        (Some(scheme), Some(token), None)
            if scheme.eq_ignore_ascii_case(b"bearer") || scheme.eq_ignore_ascii_case(b"token") =>
        {
            token
        }
        _ => header,
    }
}

/// A parameter of the body of a request that changes something, or of the query.
pub(super) fn found<'v>(view: &'v View<'_>, name: &[u8]) -> Found<'v> {
    if matches!(view.method, Method::Post | Method::Put | Method::Patch) {
        let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
        let body = view.body.as_ref().zip(format);
        let found = body.map_or(Found::Nothing, |(body, format)| format.find(body.get(), name));
        if found != Found::Nothing {
            return found;
        }
    }
    query::find(view.query.get(), name)
}

/// As `found`, if it is one text.
pub(super) fn parameter<'v>(view: &'v View<'_>, name: &[u8]) -> Option<Cow<'v, [u8]>> {
    match found(view, name) {
        Found::Text(text) => Some(text),
        _ => None,
    }
}
