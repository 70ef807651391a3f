//! The five ways in which the transformers change named values (spec/plugins.md D).

use crate::entity::validators::Check;
use serde_json::Value;

/// What is done under a name. In this order, of all entries of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Remove,
    /// The value is the new name.
    Rename,
    /// Only what is there.
    Replace,
    /// Only what is not there.
    Add,
    /// One more value.
    Append,
}

impl Action {
    pub const ALL: [Self; 5] = [Self::Remove, Self::Rename, Self::Replace, Self::Add, Self::Append];

    /// As configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Replace => "replace",
            Self::Add => "add",
            Self::Append => "append",
        }
    }

    /// Does it to a member of a JSON object; `value` may be of any type but for a rename.
    pub fn apply_to(self, object: &mut serde_json::Map<String, Value>, name: &str, value: Value) {
        // As in Lua, false counts as absent.
        let is_there = !matches!(object.get(name), None | Some(Value::Bool(false)));
        match self {
            Self::Remove => drop(object.shift_remove(name)),
            Self::Rename => {
                if let Value::String(new) = value
                    && let Some(old) = object.shift_remove(name)
                {
                    object.insert(new, old);
                }
            }
            Self::Replace if is_there => drop(object.insert(name.to_string(), value)),
            Self::Add if !is_there => drop(object.insert(name.to_string(), value)),
            Self::Append => match object.get_mut(name) {
                Some(Value::Array(list)) => list.push(value),
                Some(old @ Value::String(_)) => {
                    let first = old.take();
                    *old = Value::Array(vec![first, value]);
                }
                _ => drop(object.insert(name.to_string(), Value::Array(vec![value]))),
            },
            Self::Replace | Self::Add => {}
        }
    }
}

/// A check of an entry `NAME:VALUE` that names a header.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    check_header_name(text.split(':').next().unwrap_or_default())
}

/// A check of an entry `OLD:NEW` that renames a header.
pub(super) fn check_two_names(text: &str) -> Result<(), String> {
    let (old, new) = text.split_once(':').unwrap_or((text, ""));
    check_header_name(old)?;
    check_header_name(new)
}

fn check_header_name(name: &str) -> Result<(), String> {
    Check::HeaderName.test(name).map_err(|_| format!("'{name}' is not a valid header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_of_json_objects() {
        let check = |action: Action, name: &str, value: Value, want: Value| {
            let mut object = json!({ "s": "v", "l": [1], "n": 1, "f": false }).as_object().cloned().unwrap();
            action.apply_to(&mut object, name, value);
            let changed = object.get(name).cloned().unwrap_or_default();
            assert_eq!(changed, want, "{action:?} {name}");
        };
        check(Action::Remove, "s", Value::Null, Value::Null);
        check(Action::Replace, "s", json!("w"), json!("w"));
        check(Action::Replace, "none", json!("w"), Value::Null);
        check(Action::Add, "s", json!("w"), json!("v"));
        check(Action::Add, "none", json!(2), json!(2));
        check(Action::Append, "s", json!("w"), json!(["v", "w"]));
        check(Action::Append, "l", json!("w"), json!([1, "w"]));
        check(Action::Append, "n", json!("w"), json!(["w"]));
        check(Action::Append, "none", json!("w"), json!(["w"]));
        let mut object = json!({ "a": 1, "b": 2 }).as_object().cloned().unwrap();
        Action::Rename.apply_to(&mut object, "a", json!("c"));
        Action::Rename.apply_to(&mut object, "none", json!("d"));
        assert_eq!(Value::Object(object), json!({ "b": 2, "c": 1 }));
    }
}
