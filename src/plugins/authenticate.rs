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

    /// Authenticates, unless another plugin has; `refuse` writes the answer to a failure that is not forgiven.
    pub fn decide<'a, F>(
        &self,
        view: &mut View<'a>,
        authenticate: impl FnOnce(&mut View<'a>) -> Result<Proof<'a>, F>,
        refuse: impl FnOnce(&mut Reply, F),
    ) -> Verdict {
        if self.anonymous.is_some() && view.identity.credential.is_some() {
            return Verdict::Continue;
        }
        let failure = match authenticate(view) {
            Ok(proof) => {
                identify(view, proof.consumer, Some((proof.credential, proof.identifier)));
                return Verdict::Continue;
            }
            Err(failure) => failure,
        };
        let Some(anonymous) = &self.anonymous else {
            refuse(view.reply, failure);
            return Verdict::Reply;
        };
        let Some(consumer) = view.directory.consumer_named(anonymous) else {
            let message = format!("anonymous consumer {anonymous} is configured but doesn't exist");
            view.reply.gateway(500, &message);
            return Verdict::Reply;
        };
        identify(view, consumer, None);
        Verdict::Continue
    }
}

/// Makes the request that consumer's and tells the upstream. Every field is set or removed, so that none comes from the
/// client.
pub(super) fn identify(view: &mut View<'_>, consumer: &Consumer, credential: Option<(Uuid, Option<&str>)>) {
    view.identity.consumer = Some(consumer.id);
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
    tell(Known::XConsumerId, Some(&consumer.id_text));
    tell(Known::XConsumerCustomId, consumer.custom_id.as_deref());
    tell(Known::XConsumerUsername, consumer.username.as_deref());
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
