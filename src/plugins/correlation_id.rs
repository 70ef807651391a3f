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
        view.told.correlation_id.clear();
        if let Some(id) = view.fields.get_by_name(view.source, name) {
            view.told.correlation_id.extend_from_slice(id);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Exchange;
    use crate::plugins::testing::plugin;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    const UUID: &str = "01234567-89ab-4def-8123-456789abcdef";

    #[track_caller]
    fn check(config: Value, lines: &[&str], upstream: &[&str], downstream: &[&str]) {
        let plugin = plugin(&KIND, config);
        let mut exchange = Exchange::new(lines);
        assert_eq!(exchange.access(&*plugin), Verdict::Continue);
        exchange.response_head(&*plugin);
        assert_eq!(exchange.fields(), upstream);
        assert_eq!(exchange.response_fields(), downstream);
    }

    #[test]
    fn a_request_without_an_id_gets_one() {
        let uuid = format!("Kong-Request-ID: {UUID}");
        let tracker = "Kong-Request-ID: 127.0.0.1-8000-77-12-3-1700000001.042";
        let get = ["GET /p"];
        check(json!({}), &get, &["Kong-Request-ID: worker#1"], &[]);
        check(json!({"generator": "uuid", "echo_downstream": true}), &get, &[&uuid], &[&uuid]);
        check(json!({"generator": "tracker", "echo_downstream": true}), &get, &[tracker], &[tracker]);
        let corr = ["X-Corr: worker#1"];
        check(json!({"header_name": "X-Corr", "echo_downstream": true}), &get, &corr, &corr);
        check(json!({}), &["GET /p", "Kong-Request-ID:"], &["Kong-Request-ID: worker#1"], &[]);
    }

    #[test]
    fn an_id_of_the_client_is_kept() {
        for (header, generator) in [("Kong-Request-ID", "uuid"), ("X-Corr", "uuid#counter"), ("X-Corr", "tracker")] {
            let config = json!({"header_name": header, "generator": generator, "echo_downstream": true});
            let mine = format!("{header}: mine");
            check(config, &["GET /p", &mine], &[&mine], &[&mine]);
        }
        check(json!({}), &["GET /p", "kong-request-id: mine"], &["kong-request-id: mine"], &[]);
    }

    #[test]
    fn the_count_goes_up_with_every_id_of_the_core() {
        let plugin = plugin(&KIND, json!({}));
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.core.serial.set(u64::MAX - 1);
        exchange.access(&*plugin);
        assert_eq!(exchange.fields(), [format!("Kong-Request-ID: worker#{}", u64::MAX)]);
        assert_eq!(exchange.core.serial.get(), u64::MAX);
    }

    #[test]
    fn a_response_whose_access_phase_did_not_run_is_named_too() {
        let mut exchange = Exchange::new(&["GET /p"]);
        exchange.response_head(&*plugin(&KIND, json!({"echo_downstream": true})));
        exchange.response_head(&*plugin(&KIND, json!({"header_name": "X-Quiet"})));
        assert_eq!(exchange.response_fields(), ["Kong-Request-ID: worker#1"]);
    }

    #[test]
    fn a_name_that_no_header_can_have_is_refused() {
        let (field, message) = refusal(&KIND, json!({"header_name": "a b"}));
        assert_eq!(field, "header_name");
        assert!(message.starts_with("bad header name 'a b'"), "{message}");
    }
}
