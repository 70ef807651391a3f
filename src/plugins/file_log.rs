//! file-log: one line of JSON per request, appended to a file (spec/plugins.md F.3).

use std::path::PathBuf;

use serde_json::Map;
use serde_json::Value;

use crate::entity::PROTOCOLS_ANY;
use crate::entity::PluginSchema;
use crate::entity::schema::Field;
use crate::plugins::ConfigError;
use crate::plugins::Kind;
use crate::plugins::Plugin;
use crate::plugins::queue;
use crate::plugins::settings;
use crate::plugins::shipping::Shipping;
use crate::plugins::shipping::Ships;

pub static KIND: Kind = Kind {
    schema: PluginSchema::new(
        "file-log",
        &[
            Field::string("path")
                .required()
                .matches("^[^%s*&%%\\`][^*&%%\\`]*[^%s*&%%\\`]$")
                .err("not a valid filename"),
            Field::boolean("reopen").required().default_bool(false),
            queue::CUSTOM_FIELDS,
        ],
    )
    .protocols(PROTOCOLS_ANY),
    priority: 9,
    build,
};

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLog {
    pub path: PathBuf,
    /// The file is opened anew for what is written next, so that one that was moved away is left alone.
    pub reopen: bool,
}

fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    queue::refuse_custom_fields(config)?;
    let path = settings::text(config, "path").unwrap_or_default();
    Ok(Box::new(Ships(Shipping::File(FileLog { path: path.into(), reopen: settings::flag(config, "reopen") }))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::refusal;
    use serde_json::json;

    #[test]
    fn functions_in_lua_are_refused_by_name() {
        let (field, message) = refusal(&KIND, json!({ "path": "/x", "custom_fields_by_lua": { "a": "return 1" } }));
        assert_eq!(field, "custom_fields_by_lua");
        assert!(message.contains("no scripting engine"), "{message}");
    }
}
