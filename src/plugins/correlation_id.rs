//! HOT: an id is written on the stack.
//! correlation-id: a header that names the request on its whole way (spec/plugins.md C.8).

use std::io::Cursor;
use std::io::Write;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::http::fields::is_token;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::settings;
use crate::plugins::view::ConnFacts;
use crate::plugins::view::CoreFacts;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::strs;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "correlation-id",
        &[
            Field::string("header_name").default_str("Kong-Request-ID"),
            Field::string("generator").required().default_str("uuid#counter").one_of(strs![
                "uuid",
                "uuid#counter",
                "tracker"
            ]),
            Field::boolean("echo_downstream").required().default_bool(false),
        ],
    ),
    priority: 100_001,
    build,
};

#[derive(Clone, Copy)]
enum Generator {
    /// A new UUID.
    Uuid,
    /// The UUID of the core and a count.
    UuidCounter,
    /// Address, port, process, connection, request and time.
    Tracker,
}

struct CorrelationId {
    header: Box<str>,
    generator: Generator,
    echo: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    // Kong stores any text here and fails when a request comes.
    let header = settings::text(config, "header_name").unwrap_or_default();
    if !is_token(header.as_bytes()) {
        return Err(ConfigError {
            field: "header_name".to_string(),
            message: format!("bad header name '{header}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"),
        });
    }
    let generator = match settings::text(config, "generator") {
        Some("uuid") => Generator::Uuid,
        Some("tracker") => Generator::Tracker,
        _ => Generator::UuidCounter,
    };
    Ok(Box::new(CorrelationId { header: header.into(), generator, echo: settings::flag(config, "echo_downstream") }))
}

impl Plugin for CorrelationId {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let name = self.header.as_bytes();
        if view.header(name).is_none_or(<[u8]>::is_empty) {
            let id = self.generate(view.core, &view.conn, view.now_unix_ms);
            view.fields.set_by_name(view.source, name, id.as_bytes());
        }
        Verdict::Continue
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        if !self.echo {
            return;
        }
        let name = self.header.as_bytes();
        match view.request_fields.get_by_name(view.request_source, name) {
            Some(id) if !id.is_empty() => view.fields.set_by_name(view.source, name, id),
            // The access phase did not run: no route, or an earlier plugin answered.
            _ => {
                let id = self.generate(view.core, &view.conn, view.now_unix_ms);
                view.fields.set_by_name(view.source, name, id.as_bytes())
            }
        };
    }
}

impl CorrelationId {
    fn generate(&self, core: &CoreFacts, conn: &ConnFacts, now_unix_ms: u64) -> IdText {
        let mut id = IdText(Cursor::new([0; ID_BYTES_MAX]));
        // A text that did not fit would be cut; the bound is the sum of the longest parts.
        let written = match self.generator {
            Generator::Uuid => {
                let random = (u128::from((core.random)()) << 64) | u128::from((core.random)());
                let uuid = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
                write!(id.0, "{}", uuid.as_hyphenated())
            }
            Generator::UuidCounter => {
                let count = core.serial.get() + 1;
                core.serial.set(count);
                write!(id.0, "{}#{count}", core.worker_id)
            }
            Generator::Tracker => write!(
                id.0,
                "{}-{}-{}-{}-{}-{}.{:03}",
                conn.local.ip().to_canonical(),
                conn.local.port(),
                core.pid,
                conn.serial,
                conn.requests,
                now_unix_ms / 1000,
                now_unix_ms % 1000
            ),
        };
        debug_assert!(written.is_ok(), "ID_BYTES_MAX holds every id");
        id
    }
}

/// The longest IPv6 address, six numbers of at most 20 digits, and the signs between.
const ID_BYTES_MAX: usize = 39 + 6 * 20 + 8;

struct IdText(Cursor<[u8; ID_BYTES_MAX]>);

impl IdText {
    fn as_bytes(&self) -> &[u8] {
        &self.0.get_ref()[..self.0.position() as usize]
    }
}
