//! HOT: telling the upstream who asks copies a few texts into memory that the exchange keeps.
//! What all plugins that authenticate have in common: alternatives, the anonymous consumer, what the upstream is told
//! (spec/plugins.md A.6). Always: what the client says about who it is is overwritten or removed.

use serde_json::Map;
use serde_json::Value;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::http::known::Known;
use crate::plugins::Verdict;
use crate::plugins::directory::Consumer;
use crate::plugins::directory::Credential;
use crate::plugins::settings;
use crate::plugins::view::Reply;
use crate::plugins::view::View;

/// Who a request is from.
pub(super) struct Proof<'a> {
    pub consumer: &'a Consumer,
    pub credential: Uuid,
    /// What `X-Credential-Identifier` says; `None`: the id of the credential.
    pub identifier: Option<&'a str>,
}

impl<'a> Proof<'a> {
    /// The owner of a credential, if it is still there; the upstream is told the credential's key.
    pub fn of<S>(view: &View<'a>, credential: &'a Credential<S>) -> Option<Self> {
        let consumer = view.directory.consumer(credential.consumer)?;
        Some(Self { consumer, credential: credential.id, identifier: Some(&credential.key) })
    }
}

/// What follows from a request that proves nothing.
pub(super) struct Policy {
    /// Id or username of the consumer that such a request belongs to; with one, several plugins are alternatives.
    anonymous: Option<Box<str>>,
}

impl Policy {
    pub fn of(config: &Map<String, Value>) -> Self {
        Self { anonymous: settings::text(config, "anonymous").map(Box::from) }
    }

    /// Whether another plugin has authenticated already, so that this one has nothing to do.
    pub fn is_settled(&self, view: &View<'_>) -> bool {
        self.anonymous.is_some() && view.identity.credential.is_some()
    }

    /// Authenticates, unless another plugin has; `refuse` writes the answer to a failure that is not forgiven.
    pub fn decide<'a, F>(
        &self,
        view: &mut View<'a>,
        authenticate: impl FnOnce(&mut View<'a>) -> Result<Proof<'a>, F>,
        refuse: impl FnOnce(&mut Reply, F),
    ) -> Verdict {
        if self.is_settled(view) {
            return Verdict::Continue;
        }
        match authenticate(view) {
            Ok(proof) => {
                identify(view, Some(proof.consumer), Some((proof.credential, proof.identifier)));
                Verdict::Continue
            }
            Err(failure) => self.fail(view, |reply| refuse(reply, failure)),
        }
    }

    /// What follows from a request that proves nothing: it is the anonymous consumer's, or `refuse` writes the answer.
    pub fn fail(&self, view: &mut View<'_>, refuse: impl FnOnce(&mut Reply)) -> Verdict {
        let Some(anonymous) = &self.anonymous else {
            refuse(view.reply);
            return Verdict::Reply;
        };
        let Some(consumer) = view.directory.consumer_named(anonymous) else {
            let message = format!("anonymous consumer {anonymous} is configured but doesn't exist");
            view.reply.gateway(500, &message);
            return Verdict::Reply;
        };
        identify(view, Some(consumer), None);
        Verdict::Continue
    }
}

/// Makes the request that consumer's and tells the upstream; `None`: it is known who asks, but that is no consumer. Every
/// field is set or removed, so that none comes from the client.
pub(super) fn identify(view: &mut View<'_>, consumer: Option<&Consumer>, credential: Option<(Uuid, Option<&str>)>) {
    view.identity.consumer = consumer.map(|consumer| consumer.id);
    view.identity.credential = credential.map(|(id, _)| id);
    let fields = &mut *view.fields;
    let mut tell = |name: Known, value: Option<&str>| {
        match value {
            Some(value) => fields.set(name, value.as_bytes()),
            None => drop(fields.remove(name)),
        };
    };
    let mut id_text = [0; Hyphenated::LENGTH];
    let identifier = credential.map(|(id, text)| match text {
        Some(text) => text,
        None => &*id.as_hyphenated().encode_lower(&mut id_text),
    });
    tell(Known::XConsumerId, consumer.map(|consumer| &*consumer.id_text));
    tell(Known::XConsumerCustomId, consumer.and_then(|consumer| consumer.custom_id.as_deref()));
    tell(Known::XConsumerUsername, consumer.and_then(|consumer| consumer.username.as_deref()));
    tell(Known::XCredentialIdentifier, identifier);
    tell(Known::XAnonymousConsumer, if credential.is_some() { None } else { Some("true") });
}

/// A challenge: the scheme, and the realm if there is one.
pub(super) fn challenge(scheme: &str, config: &Map<String, Value>) -> Box<str> {
    match settings::text(config, "realm") {
        Some(realm) => format!("{scheme} realm=\"{realm}\"").into(),
        None => scheme.into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::plugins::Plugin;
    use crate::plugins::Verdict;
    use crate::plugins::basic_auth;
    use crate::plugins::hmac_auth;
    use crate::plugins::jwt;
    use crate::plugins::key_auth;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use serde_json::json;

    /// Whose the request is: the consumer, and what the upstream is told of the credential.
    type Whose = Option<(&'static str, &'static str)>;

    const BOB: Whose = Some(("bob", "00000000-0000-0000-0000-000000000012"));
    const ALICE: Whose = Some(("alice", "u1"));
    const ANON: Whose = Some(("anon", ""));

    fn told(exchange: &Exchange) -> Vec<String> {
        let is_told = |line: &String| {
            line.starts_with("X-Consumer-Username")
                || line.starts_with("X-Credential")
                || line.starts_with("X-Anonymous")
        };
        let mut told: Vec<String> = exchange.fields().into_iter().filter(is_told).collect();
        told.sort();
        told
    }

    /// key-auth knows bob, basic-auth knows alice; each with `anonymous` or not, with a good credential or not.
    fn run(anonymous: [bool; 2], good: [bool; 2]) -> (Verdict, Exchange) {
        let configs = anonymous.map(|is_set| if is_set { json!({ "anonymous": "anon" }) } else { json!({}) });
        let [key, basic] = configs;
        let plugins: [Box<dyn Plugin>; 2] = [plugin(&key_auth::KIND, key), plugin(&basic_auth::KIND, basic)];
        let key = if good[0] { "apikey: k2" } else { "apikey: wrong" };
        let basic = if good[1] { "Authorization: Basic dTE6cDE=" } else { "Authorization: Basic dTE6cDI=" };
        let mut exchange =
            Exchange::new(&["GET /p", key, basic, "X-Consumer-Username: forged", "X-Anonymous-Consumer: true"]);
        let refused = plugins.iter().any(|plugin| exchange.access(&**plugin) == Verdict::Reply);
        (if refused { Verdict::Reply } else { Verdict::Continue }, exchange)
    }

    #[test]
    fn several_plugins_are_all_demanded_or_are_alternatives() {
        let (and, or) = ([false, false], [true, true]);
        // Which have `anonymous`, which credentials are good, whose the request is; none: it is refused.
        let cases: [([bool; 2], [bool; 2], Whose); 16] = [
            (and, [true, true], ALICE),
            (and, [true, false], None),
            (and, [false, true], None),
            (and, [false, false], None),
            (or, [true, true], BOB),
            (or, [true, false], BOB),
            (or, [false, true], ALICE),
            (or, [false, false], ANON),
            // The first may fail, the second may not.
            ([true, false], [true, true], ALICE),
            ([true, false], [true, false], None),
            ([true, false], [false, true], ALICE),
            ([true, false], [false, false], None),
            // The first must pass, and then the second is not asked.
            ([false, true], [true, true], BOB),
            ([false, true], [true, false], BOB),
            ([false, true], [false, true], None),
            ([false, true], [false, false], None),
        ];
        for (anonymous, good, whose) in cases {
            let (verdict, exchange) = run(anonymous, good);
            let case = format!("{anonymous:?} {good:?}");
            let Some((name, credential)) = whose else {
                assert_eq!((verdict, exchange.reply.status), (Verdict::Reply, 401), "{case}");
                continue;
            };
            assert_eq!(verdict, Verdict::Continue, "{case}");
            let last = match credential {
                "" => "X-Anonymous-Consumer: true".to_owned(),
                text => format!("X-Credential-Identifier: {text}"),
            };
            let mut want = vec![format!("X-Consumer-Username: {name}"), last];
            want.sort();
            assert_eq!(told(&exchange), want, "{case}");
            assert_eq!(exchange.identity.credential.is_none(), credential.is_empty(), "{case}");
        }
    }

    #[test]
    fn an_anonymous_consumer_that_is_not_there_is_the_operators_mistake() {
        for kind in [&key_auth::KIND, &basic_auth::KIND, &hmac_auth::KIND, &jwt::KIND] {
            let mut exchange = Exchange::new(&["GET /p"]);
            assert_eq!(exchange.access(&*plugin(kind, json!({ "anonymous": "nobody" }))), Verdict::Reply);
            let said = (exchange.reply.status, exchange.reply_text());
            assert_eq!(said, (500, "anonymous consumer nobody is configured but doesn't exist".to_owned()));
        }
    }
}
