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
