//! What the endpoints of oauth2 say: errors, and where a client is to be sent (RFC 6749 sections 4.1.2, 5.2).

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::plugins::edit::Action;
use crate::plugins::oauth2::parameter;
use crate::plugins::query::List;
use crate::plugins::view::View;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub status: u16,
    /// JSON.
    pub body: Vec<u8>,
    /// Whether the client is to show its name and secret.
    pub challenges_basic: bool,
}

/// Why something is not granted: code and text.
pub(super) type Denial = (&'static str, String);

impl Said {
    /// An error as RFC 6749 has it.
    pub fn error(status: u16, error: &str, text: &str) -> Self {
        let body = json!({ "error": error, "error_description": text }).to_string().into_bytes();
        Self { status, body, challenges_basic: false }
    }

    /// With the `state` of the request, if it has one.
    pub fn with_state(mut self, view: &View<'_>) -> Self {
        let state = text(view, "state");
        if let (Some(state), Ok(mut body)) = (state, serde_json::from_slice::<Map<String, Value>>(&self.body)) {
            body.insert("state".to_owned(), state.into());
            self.body = Value::Object(body).to_string().into_bytes();
        }
        self
    }

    /// What is not granted, and why.
    pub fn denial((error, text): Denial, view: &View<'_>) -> Self {
        Self::error(400, error, &text).with_state(view)
    }
}

/// A parameter that is text.
pub(super) fn text(view: &View<'_>, name: &str) -> Option<String> {
    parameter(view, name.as_bytes()).and_then(|text| String::from_utf8(text.into_owned()).ok())
}

/// Where the user is to be sent, with what the application is to know behind `?` or `#`.
pub(super) fn redirect_body(uri: &str, in_fragment: bool, parameters: &[(&str, Option<&str>)]) -> Vec<u8> {
    let (base, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut list = List::of(if in_fragment { b"" } else { query.as_bytes() });
    for (name, value) in parameters {
        if let Some(value) = value {
            list.change(Action::Add, name.as_bytes(), value.as_bytes());
        }
    }
    let encoded = String::from_utf8_lossy(&list.encoded()).into_owned();
    let uri = if in_fragment { format!("{uri}#{encoded}") } else { format!("{base}?{encoded}") };
    json!({ "redirect_uri": uri }).to_string().into_bytes()
}
