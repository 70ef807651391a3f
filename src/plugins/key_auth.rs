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
use crate::plugins::body::Format;
use crate::plugins::directory::Consumer;
use crate::plugins::directory::KeyCredential;
use crate::plugins::query;
use crate::plugins::query::Found;
use crate::plugins::settings;
use crate::plugins::view::Identity;
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
    /// Id or username of the consumer that a request without a valid key belongs to.
    anonymous: Option<Box<str>>,
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
        anonymous: settings::text(config, "anonymous").map(Box::from),
        run_on_preflight: settings::flag(config, "run_on_preflight"),
        challenge: match settings::text(config, "realm") {
            Some(realm) => format!("Key realm=\"{realm}\"").into(),
            None => "Key".into(),
        },
    }))
}

impl Plugin for KeyAuth {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        if !self.run_on_preflight && view.method == Method::Options {
            return Verdict::Continue;
        }
        // With an anonymous consumer, several authentication plugins are alternatives.
        if self.anonymous.is_some() && view.identity.credential.is_some() {
            return Verdict::Continue;
        }
        let failure = match self.authenticate(view) {
            Ok((consumer, credential)) => {
                identify(view, consumer, Some(credential));
                return Verdict::Continue;
            }
            Err(failure) => failure,
        };
        let Some(anonymous) = &self.anonymous else {
            view.reply.gateway(401, failure.message());
            view.reply.fields.set(Known::WwwAuthenticate, self.challenge.as_bytes());
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

    fn reads_body(&self) -> bool {
        self.in_body
    }
}

impl KeyAuth {
    fn authenticate<'a>(&self, view: &mut View<'a>) -> Result<(&'a Consumer, &'a KeyCredential), Failure> {
        let (name, key) = self.find_key(view)?;
        let credential = match &*key {
            b"" => Err(Failure::NoKey),
            key => view.directory.key(key, view.now_unix_ms).ok_or(Failure::Unknown),
        };
        if self.hide_credentials {
            self.hide(view, name.as_bytes());
        }
        let credential = credential?;
        let consumer = view.directory.consumer(credential.consumer).ok_or(Failure::Unknown)?;
        Ok((consumer, credential))
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

/// Makes the request that consumer's and tells the upstream. Every field is set or removed, so that none comes from the
/// client.
fn identify(view: &mut View<'_>, consumer: &Consumer, credential: Option<&KeyCredential>) {
    *view.identity = Identity { consumer: Some(consumer.id), credential: credential.map(|credential| credential.id) };
    let fields = &mut *view.fields;
    let mut tell = |name: Known, value: Option<&str>| {
        match value {
            Some(value) => fields.set(name, value.as_bytes()),
            None => drop(fields.remove(name)),
        };
    };
    tell(Known::XConsumerId, Some(&consumer.id_text));
    tell(Known::XConsumerCustomId, consumer.custom_id.as_deref());
    tell(Known::XConsumerUsername, consumer.username.as_deref());
    tell(Known::XCredentialIdentifier, credential.map(|credential| &*credential.id_text));
    tell(Known::XAnonymousConsumer, if credential.is_some() { None } else { Some("true") });
}
