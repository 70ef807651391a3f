//! HOT: an identifier is borrowed, or written on the stack.
//! Who or what a limit is for (spec/plugins.md C.1).
//! Always: what a request does not have falls back to the client's address.

use std::io::Cursor;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;

use crate::plugins::settings;
use crate::plugins::view::View;

/// What tells one user of a limit from another.
pub enum LimitBy {
    Consumer,
    Credential,
    Ip,
    Service,
    /// Value of that header field.
    Header(Box<str>),
    /// One counter for that very path.
    Path(Box<str>),
}

/// Room for an identifier that is not borrowed: the text of an id or an address.
pub struct Identifier {
    text: Cursor<[u8; Self::BYTES_MAX]>,
}

impl Default for Identifier {
    fn default() -> Self {
        Self { text: Cursor::new([0; Self::BYTES_MAX]) }
    }
}

impl Identifier {
    /// The longest text of an IPv6 address is 45 bytes.
    const BYTES_MAX: usize = 48;

    fn write(&mut self, what: impl std::fmt::Display) -> &[u8] {
        self.text.set_position(0);
        let written = write!(self.text, "{what}");
        debug_assert!(written.is_ok(), "BYTES_MAX holds every id and address");
        &self.text.get_ref()[..self.text.position() as usize]
    }
}

impl LimitBy {
    /// As configured; by consumer unless it says otherwise.
    pub fn of(config: &Map<String, Value>) -> Self {
        let text = |name: &str| settings::text(config, name).unwrap_or_default().into();
        match settings::text(config, "limit_by") {
            Some("credential") => Self::Credential,
            Some("ip") => Self::Ip,
            Some("service") => Self::Service,
            Some("header") => Self::Header(text("header_name")),
            Some("path") => Self::Path(text("path")),
            _ => Self::Consumer,
        }
    }

    /// The identifier of a request.
    pub fn of_request<'v>(&'v self, view: &'v View<'_>, room: &'v mut Identifier) -> &'v [u8] {
        let id = match self {
            Self::Consumer => view.identity.consumer.or(view.identity.credential),
            Self::Credential => view.identity.credential,
            Self::Service => view.service.map(|service| service.id),
            Self::Ip => None,
            Self::Header(name) => match view.header(name.as_bytes()) {
                Some(value) if !value.is_empty() => return value,
                _ => None,
            },
            Self::Path(path) if view.path == path.as_bytes() => return view.path,
            Self::Path(_) => None,
        };
        match id {
            Some(id) => room.write(id.as_hyphenated()),
            None => room.write(view.client_ip.to_canonical()),
        }
    }
}
