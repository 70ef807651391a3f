//! Values that are stored in another form than they were sent in, such as hashed passwords.
//! Owns: when such a value is made, and what must be known for it. Always: a value is transformed once, when it is written.

use crate::entity::Entity;
use crate::entity::checks::at_path;
use crate::entity::rules::quoted;
use serde_json::Map;
use serde_json::Value;

/// A rewriting of fields of a row that is otherwise good.
#[derive(Debug)]
pub struct Transform {
    /// The fields (dotted paths) it reads, which have to be sent together; the first is the one that asks for it.
    pub sources: &'static [&'static str],
    /// Runs on the whole row.
    pub run: fn(&mut Map<String, Value>),
}

impl Transform {
    /// Whether what was sent for a new row lacks some of the fields that nothing else gives a value to; the text that
    /// says so.
    pub(super) fn missing(&self, entity: &Entity, sent: &Map<String, Value>) -> Option<String> {
        let has_default = |path: &str| entity.field(path).is_some_and(|f| f.default.is_some() || f.auto.is_some());
        let is_absent = |path: &&str| at_path(sent, path).is_null();
        let is_asked = self.sources.first().is_some_and(|path| !is_absent(path));
        (is_asked && self.sources.iter().any(|path| is_absent(path) && !has_default(path))).then(|| self.together())
    }

    /// Whether a patch changes any of the fields: then it has to say all of them, or the text is what is wrong.
    pub(super) fn is_due(&self, stored: &Map<String, Value>, patch: &Map<String, Value>) -> Result<bool, String> {
        let given = |path: &&&str| !at_path(patch, path).is_null();
        // A reference is always sent along below a parent; one that stays the same changes nothing.
        let changed =
            |path: &&&str| given(path) && !(path.contains('.') && at_path(patch, path) == at_path(stored, path));
        match self.sources.iter().filter(changed).count() {
            0 => Ok(false),
            _ if self.sources.iter().filter(given).count() == self.sources.len() => Ok(true),
            _ => Err(self.together()),
        }
    }

    fn together(&self) -> String {
        format!("all or none of these fields must be set: {}", quoted(self.sources))
    }
}
