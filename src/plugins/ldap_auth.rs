//! HOT: what the server said lately is found by a keyed hash, without an allocation.
//! ldap-auth: who asks is told by a name and a password that an LDAP server knows (spec/plugins.md B.7, A.6).
//! Never: keeps a password. Always: an empty password is refused here, since servers take it for no password at all
//! (RFC 4513 section 5.1.2).

use std::sync::Arc;

use ring::hmac;
use ring::rand::SystemRandom;
use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;

use crate::entity::PluginSchema;
use crate::entity::checks::Conditional;
use crate::entity::checks::EntityCheck;
use crate::entity::checks::Match;
use crate::entity::schema::Field;
use crate::entity::schema::Literal;
use crate::entity::validators::Check;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::challenge;
use crate::plugins::authenticate::identify;
use crate::plugins::ldap::LdapBind;
use crate::plugins::ldap::LdapServer;
use crate::plugins::ldap::LdapTls;
use crate::plugins::ldap::distinguished_name;
use crate::plugins::name_and_password::Room;
use crate::plugins::name_and_password::after_scheme;
use crate::plugins::recent::Key;
use crate::plugins::settings;
use crate::plugins::view::View;
use crate::stdx::secret::Hidden;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "ldap-auth",
        &[
            Field::string("ldap_host").required().check(Check::Host),
            Field::integer("ldap_port").required().between(0, 65_535).default_int(389),
            Field::boolean("ldaps").required().default_bool(false),
            Field::boolean("start_tls").required().default_bool(false),
            Field::boolean("verify_ldap_host").required().default_bool(false),
            Field::string("base_dn").required(),
            Field::string("attribute").required(),
            Field::number("cache_ttl").required().default_int(60),
            Field::boolean("hide_credentials").required().default_bool(false),
            Field::number("timeout").default_int(10_000),
            Field::number("keepalive").default_int(60_000),
            Field::string("anonymous"),
            Field::string("header_type").default_str("ldap"),
            Field::string("realm").optional(),
        ],
    )
    .checks(&[EntityCheck::Conditional(Conditional {
        if_field: "config.ldaps",
        if_match: Match::Eq(Literal::Bool(true)),
        then_field: "config.start_tls",
        then_match: Match::Eq(Literal::Bool(false)),
        then_err: Some("'ldaps' and 'start_tls' cannot be enabled simultaneously"),
    })])
    .no_consumer(),
    priority: 1200,
    build,
};

/// Where a name and a password may stand, in the order in which they are tried.
const HEADERS: [Known; 2] = [Known::ProxyAuthorization, Known::Authorization];

struct LdapAuth {
    server: Arc<LdapServer>,
    base_dn: Box<str>,
    attribute: Box<str>,
    scheme: Box<str>,
    hide_credentials: bool,
    /// How long the answer of the server counts; 0: for one request.
    cache_ttl_ms: u64,
    /// Hashes what is remembered; of this configuration and run only.
    key: hmac::Key,
    /// The ids of credentials are made in it, so that they are the same on every node.
    namespace: Uuid,
    policy: Policy,
    /// Value of `WWW-Authenticate`.
    challenge: Box<str>,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let text = |name: &str| settings::text(config, name).unwrap_or_default();
    let tls = match (settings::flag(config, "ldaps"), settings::flag(config, "start_tls")) {
        (true, _) => LdapTls::Ldaps,
        (false, true) => LdapTls::StartTls,
        (false, false) => LdapTls::Never,
    };
    let millis = |name: &str, absent_ms| settings::millis(config, name, absent_ms).as_millis().max(1) as u64;
    let server = LdapServer {
        host: text("ldap_host").into(),
        port: settings::port(config, "ldap_port"),
        tls,
        verify: settings::flag(config, "verify_ldap_host"),
        timeout_ms: millis("timeout", 10_000),
        keepalive_ms: millis("keepalive", 60_000),
    };
    let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
    let key =
        key.map_err(|_| ConfigError { field: String::new(), message: "the system has no randomness".to_owned() })?;
    let (base_dn, attribute) = (text("base_dn"), text("attribute"));
    let place = format!("ldap://{}:{}/{attribute},{base_dn}", server.host, server.port);
    // Only the usual scheme is written as schemes are.
    let scheme = settings::text(config, "header_type").unwrap_or("ldap");
    let shown = if scheme == "ldap" { "LDAP" } else { scheme };
    Ok(Box::new(LdapAuth {
        server: Arc::new(server),
        base_dn: base_dn.into(),
        attribute: attribute.into(),
        scheme: scheme.into(),
        hide_credentials: settings::flag(config, "hide_credentials"),
        cache_ttl_ms: (settings::number(config, "cache_ttl").unwrap_or(60.0) * 1000.0) as u64,
        key,
        namespace: Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_bytes()),
        policy: Policy::of(config),
        challenge: challenge(shown, config),
    }))
}

impl Plugin for LdapAuth {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if self.policy.is_settled(view) { Verdict::Continue } else { self.authenticate(view, 0) }
    }

    fn answered(&self, view: &mut View<'_>, answer: Answer) -> Verdict {
        let at = view.notes.numbers[0] as usize;
        let mut room = Room::default();
        let Some((username, password)) = self.given(view, at, &mut room) else { return Verdict::Continue };
        let Answer::Proved(is_good) = answer else {
            view.reply.gateway(500, "An unexpected error occurred");
            return Verdict::Reply;
        };
        if self.cache_ttl_ms > 0 {
            let until_ms = view.now_unix_ms.saturating_add(self.cache_ttl_ms);
            view.core.recent.borrow_mut().keep(self.hash(username, password), is_good, until_ms);
        }
        if is_good { self.accept(view, username) } else { self.authenticate(view, at + 1) }
    }
}

impl LdapAuth {
    /// Tries the headers from that one on.
    fn authenticate(&self, view: &mut View<'_>, from: usize) -> Verdict {
        for at in from..HEADERS.len() {
            let mut room = Room::default();
            let Some((username, password)) = self.given(view, at, &mut room) else { continue };
            let known = view.core.recent.borrow().find(&self.hash(username, password), view.now_unix_ms);
            match known {
                Some(true) => return self.accept(view, username),
                Some(false) => {}
                None => {
                    view.notes.numbers[0] = at as u64;
                    let name = distinguished_name(&self.attribute, username, &self.base_dn);
                    let bind = LdapBind { server: self.server.clone(), name, password: Hidden::new(password) };
                    return view.ask(Question::Bind(bind), self.server.patience_ms());
                }
            }
        }
        self.policy.fail(view, |reply| {
            reply.gateway(401, "Unauthorized");
            reply.fields.set(Known::WwwAuthenticate, self.challenge.as_bytes());
        })
    }

    /// Name and password that a header gives.
    fn given<'r>(&self, view: &View<'_>, at: usize, room: &'r mut Room) -> Option<(&'r str, &'r [u8])> {
        let header = view.fields.get(view.source, *HEADERS.get(at)?)?;
        let (username, password) = room.decode(after_scheme(header, &self.scheme)?)?;
        let username = std::str::from_utf8(username).ok()?;
        let is_fit = !password.is_empty() && !username.chars().any(char::is_control);
        is_fit.then_some((username, password))
    }

    fn hash(&self, username: &str, password: &[u8]) -> Key {
        let mut hash = hmac::Context::with_key(&self.key);
        hash.update(&(username.len() as u64).to_le_bytes());
        hash.update(username.as_bytes());
        hash.update(password);
        let mut key = Key::default();
        key.copy_from_slice(hash.sign().as_ref());
        key
    }

    fn accept(&self, view: &mut View<'_>, username: &str) -> Verdict {
        if self.hide_credentials {
            for name in HEADERS {
                view.fields.remove(name);
            }
        }
        let id = Uuid::new_v5(&self.namespace, username.as_bytes());
        identify(view, None, Some((id, Some(username))));
        Verdict::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    fn ldap(mut config: Value) -> Box<dyn Plugin> {
        for (name, value) in [("ldap_host", "ldap.test"), ("base_dn", "dc=x"), ("attribute", "uid")] {
            config[name] = value.into();
        }
        plugin(&KIND, config)
    }

    fn header(name: &str, scheme: &str, text: &str) -> String {
        format!("{name}: {scheme} {}", STANDARD.encode(text))
    }

    /// What the server is asked: name and password.
    fn asked(exchange: &mut Exchange) -> (String, String) {
        let Some(Question::Bind(bind)) = exchange.asking.take().map(|asking| asking.question) else {
            panic!("nothing is asked");
        };
        (bind.name.to_string(), String::from_utf8_lossy(bind.password.expose()).into_owned())
    }

    #[test]
    fn the_server_decides_and_is_not_asked_again_for_a_while() {
        let ldap = ldap(json!({}));
        let mut exchange =
            Exchange::new(&["GET /p", &header("Authorization", "ldap", "ann:p:1"), "X-Consumer-ID: forged"]);
        assert_eq!(exchange.access(&*ldap), Verdict::Ask);
        assert_eq!(asked(&mut exchange), ("uid=ann,dc=x".to_string(), "p:1".to_string()));
        assert_eq!(exchange.answered(&*ldap, Answer::Proved(true)), Verdict::Continue);
        assert_eq!(exchange.fields()[1..], ["X-Credential-Identifier: ann"]);
        assert_eq!(exchange.identity.consumer, None);
        let credential = exchange.identity.credential.expect("there is a credential");
        exchange.identity.credential = None;
        assert_eq!(exchange.access(&*ldap), Verdict::Continue);
        assert_eq!(exchange.identity.credential, Some(credential));
        // Another configuration knows nothing of it, and calls the credential the same.
        let other = super::tests::ldap(json!({}));
        assert_eq!(exchange.access(&*other), Verdict::Ask);
        assert_eq!(exchange.answered(&*other, Answer::Proved(true)), Verdict::Continue);
        assert_eq!(exchange.identity.credential, Some(credential));
    }

    #[test]
    fn what_the_server_refused_is_remembered_too() {
        let ldap = ldap(json!({ "realm": "r" }));
        let mut exchange = Exchange::new(&["GET /p", &header("Authorization", "LDAP", "ann:wrong")]);
        assert_eq!(exchange.access(&*ldap), Verdict::Ask);
        assert_eq!(exchange.answered(&*ldap, Answer::Proved(false)), Verdict::Reply);
        assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, "Unauthorized"));
        assert_eq!(exchange.reply_fields(), ["WWW-Authenticate: LDAP realm=\"r\""]);
        assert_eq!(exchange.access(&*ldap), Verdict::Reply);
    }

    #[test]
    fn without_a_cache_the_server_is_asked_each_time() {
        let ldap = ldap(json!({ "cache_ttl": 0, "hide_credentials": true }));
        for _ in 0..2 {
            let mut exchange = Exchange::new(&["GET /p", &header("Authorization", "ldap", "ann:p")]);
            assert_eq!(exchange.access(&*ldap), Verdict::Ask);
            assert_eq!(exchange.answered(&*ldap, Answer::Proved(true)), Verdict::Continue);
            assert_eq!(exchange.fields(), ["X-Credential-Identifier: ann"]);
        }
    }

    #[test]
    fn one_header_is_tried_after_the_other() {
        let ldap = ldap(json!({ "header_type": "Basic" }));
        let (first, second) = (header("Proxy-Authorization", "basic", "a:1"), header("Authorization", "Basic", "b:2"));
        let mut exchange = Exchange::new(&["GET /p", &second, &first]);
        assert_eq!(exchange.access(&*ldap), Verdict::Ask);
        assert_eq!(asked(&mut exchange).0, "uid=a,dc=x");
        assert_eq!(exchange.answered(&*ldap, Answer::Proved(false)), Verdict::Ask);
        assert_eq!(asked(&mut exchange).0, "uid=b,dc=x");
        assert_eq!(exchange.answered(&*ldap, Answer::Proved(false)), Verdict::Reply);
        assert_eq!(exchange.reply_fields(), ["WWW-Authenticate: Basic"]);
    }

    #[test]
    fn a_server_that_fails_is_no_refusal() {
        for config in [json!({}), json!({ "anonymous": "anon" })] {
            let ldap = ldap(config);
            let mut exchange = Exchange::new(&["GET /p", &header("Authorization", "ldap", "ann:p")]);
            assert_eq!(exchange.access(&*ldap), Verdict::Ask);
            assert_eq!(exchange.answered(&*ldap, Answer::Failed("down".into())), Verdict::Reply);
            assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (500, "An unexpected error occurred"));
            assert_eq!(exchange.access(&*ldap), Verdict::Ask);
        }
    }

    #[test]
    fn what_is_no_name_and_password_is_not_asked_about() {
        let wrong = ["ann:", ":p", "ann", "", "a\r\nX-Forged: 1:p", "a\u{0}:p"];
        let mut lines: Vec<String> = wrong.map(|text| header("Authorization", "ldap", text)).to_vec();
        lines.push(header("Authorization", "Basic", "ann:p"));
        lines.push("Authorization: ldap !!".to_string());
        lines.push(format!("Authorization: ldap {}", STANDARD.encode(b"\xff:p")));
        lines.push("X: y".to_string());
        for line in lines {
            let mut exchange = Exchange::new(&["GET /p", &line]);
            assert_eq!(exchange.access(&*ldap(json!({}))), Verdict::Reply, "{line}");
            assert_eq!(exchange.reply.status, 401);
            assert_eq!(exchange.access(&*ldap(json!({ "anonymous": "anon" }))), Verdict::Continue, "{line}");
            assert_eq!(exchange.fields().last().map(String::as_str), Some("X-Anonymous-Consumer: true"));
        }
    }
}
