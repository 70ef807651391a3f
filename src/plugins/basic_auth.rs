//! HOT: a name and a password are decoded on the stack.
//! basic-auth: who asks is told by a name and a password (RFC 7617; spec/plugins.md B.2, A.6).
//! Always: hashes are compared in constant time, and a name that does not exist costs a hash too.

use ring::digest;
use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::known::Known;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::authenticate::Policy;
use crate::plugins::authenticate::Proof;
use crate::plugins::authenticate::challenge;
use crate::plugins::name_and_password::Room;
use crate::plugins::name_and_password::after_scheme;
use crate::plugins::settings;
use crate::plugins::view::View;
use crate::stdx::secret::equal;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "basic-auth",
        &[
            Field::string("anonymous"),
            Field::boolean("hide_credentials").required().default_bool(false),
            Field::string("realm").required().default_str("service"),
        ],
    )
    .no_consumer(),
    priority: 1100,
    build,
};

struct BasicAuth {
    hide_credentials: bool,
    policy: Policy,
    /// Value of `WWW-Authenticate`.
    challenge: Box<str>,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    Ok(Box::new(BasicAuth {
        hide_credentials: settings::flag(config, "hide_credentials"),
        policy: Policy::of(config),
        challenge: challenge("Basic", config),
    }))
}

impl Plugin for BasicAuth {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        self.policy.decide(
            view,
            |view| self.authenticate(view).ok_or(()),
            |reply, ()| {
                reply.gateway(401, "Unauthorized");
                reply.fields.set(Known::WwwAuthenticate, self.challenge.as_bytes());
            },
        )
    }
}

impl BasicAuth {
    fn authenticate<'a>(&self, view: &mut View<'a>) -> Option<Proof<'a>> {
        [Known::ProxyAuthorization, Known::Authorization].into_iter().find_map(|name| self.try_header(view, name))
    }

    fn try_header<'a>(&self, view: &mut View<'a>, name: Known) -> Option<Proof<'a>> {
        let encoded = after_scheme(view.fields.get(view.source, name)?, "basic")?;
        let mut room = Room::default();
        let (username, password) = room.decode(encoded)?;
        let credential = view.directory.passwords.find(username, view.now_unix_ms);
        let proof = credential.and_then(|credential| Some((Proof::of(view, credential)?, &*credential.secret)));
        let owner = proof.as_ref().map_or("", |(proof, _)| &proof.consumer.id_text);
        let matches = equal(&hash(password, owner), proof.as_ref().map_or(b"", |(_, stored)| stored.as_bytes()));
        if self.hide_credentials {
            view.fields.remove(name);
        }
        proof.filter(|_| matches).map(|(proof, _)| proof)
    }
}

/// As `basicauth_credentials` stores it: lower-case hex SHA-1 of the password followed by the id of the consumer.
fn hash(password: &[u8], consumer: &str) -> [u8; 40] {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(password);
    hash.update(consumer.as_bytes());
    let mut text = [0; 40];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash.finish().as_ref()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::basicauth_credential::password_hash;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use base64::Engine;
    use base64::engine::general_purpose;
    use serde_json::json;

    const ALICE: &[&str] = &[
        "X-Consumer-ID: 00000000-0000-0000-0000-000000000001",
        "X-Consumer-Custom-ID: a1",
        "X-Consumer-Username: alice",
        "X-Credential-Identifier: u1",
    ];

    fn header(name: &str, scheme: &str, text: &str) -> String {
        format!("{name}: {scheme} {}", general_purpose::STANDARD.encode(text))
    }

    #[test]
    fn the_hash_is_the_one_that_is_stored() {
        assert_eq!(hash(b"p", "id"), password_hash(b"p", "id").as_bytes());
    }

    #[test]
    fn a_name_and_its_password_make_the_request_its_consumers() {
        let good = "u1:p1";
        let cases = [
            (header("Authorization", "Basic", good), header("X", "", "")),
            (header("Authorization", "basic", good), header("X", "", "")),
            (header("Authorization", "Basic  ", good), header("X", "", "")),
            (header("Proxy-Authorization", "Basic", good), header("Authorization", "Basic", "u1:zz")),
            (header("Proxy-Authorization", "Basic", "u1:zz"), header("Authorization", "Basic", good)),
        ];
        for (first, second) in cases {
            let mut exchange = Exchange::new(&["GET /p", &first, &second]);
            assert_eq!(exchange.access(&*plugin(&KIND, json!({}))), Verdict::Continue, "{first} {second}");
            assert_eq!(exchange.fields()[2..], *ALICE);
        }
        let mut hidden = Exchange::new(&["GET /p", &header("Authorization", "Basic", good)]);
        assert_eq!(hidden.access(&*plugin(&KIND, json!({ "hide_credentials": true }))), Verdict::Continue);
        assert_eq!(hidden.fields(), ALICE);
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "x".repeat(6000);
        let wrong = ["u1:zz", "zz:p1", "u1", ":p1", "", "u1:", "u1:p1 ", &long];
        let mut headers: Vec<String> = wrong.map(|text| header("Authorization", "Basic", text)).to_vec();
        headers.extend(
            ["Authorization: Basic !!!", "Authorization: Bearer x", "Authorization:", "X: y"].map(String::from),
        );
        headers.extend(["Authorization: Basic", "Authorization: BasicdTE6cDE="].map(String::from));
        for line in headers {
            let mut exchange = Exchange::new(&["GET /p", &line]);
            assert_eq!(exchange.access(&*plugin(&KIND, json!({}))), Verdict::Reply, "{line}");
            assert_eq!((exchange.reply.status, exchange.reply_text().as_str()), (401, "Unauthorized"));
            assert_eq!(exchange.reply_fields(), ["WWW-Authenticate: Basic realm=\"service\""]);
            assert_eq!(exchange.access(&*plugin(&KIND, json!({ "anonymous": "anon" }))), Verdict::Continue);
        }
    }
}
