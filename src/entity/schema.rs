//! The vocabulary in which entities and plugins declare their fields: one `Field` is one line of static data.
//! Owns: what a field may be (type, default, rules, reference) and the const builders that say so.
//! Never: looks at a value; reading the table is done by `validate`, `complete`, `coerce` and `document`.
//! Always: a declaration is `const`, so a table costs nothing at start and cannot fail.

use crate::entity::checks::EntityCheck;
use crate::entity::validators::Check;

/// One field of an entity, of a record, or (nameless) the element of a list or map.
///
/// Every rule is optional and absent by default; the order in which rules are applied is spec/admin-api.md section 5.5.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// `Some(true)`: null and absence are refused. `Some(false)` behaves as `None` and is shown in schema documents.
    pub required: Option<bool>,
    pub default: Option<Literal>,
    /// The server makes the value when it is absent on creation.
    pub auto: Option<Auto>,
    /// No two rows share a non-null value; such a field can also name the row in a reference.
    pub unique: bool,
    /// Shown in schema documents only: there is one workspace.
    pub across_workspaces: bool,
    /// Taken on writes, but no part of the stored row.
    pub transient: bool,
    pub uuid: bool,
    pub timestamp: bool,
    pub eq: Option<Literal>,
    pub ne: Option<Literal>,
    pub one_of: &'static [Literal],
    pub not_one_of: &'static [Literal],
    pub gt: Option<i64>,
    pub between: Option<(i64, i64)>,
    /// As `between`, where a bound has a fraction.
    pub between_numbers: Option<(f64, f64)>,
    pub len_eq: Option<usize>,
    pub len_min: Option<usize>,
    pub len_max: Option<usize>,
    pub starts_with: Option<&'static str>,
    pub match_none: &'static [Pattern],
    /// A Lua pattern, as Kong's schema documents show it.
    pub matches: Option<&'static str>,
    pub match_all: &'static [Pattern],
    pub match_any: Option<MatchAny>,
    pub contains: Option<&'static str>,
    pub check: Option<Check>,
    /// A text that is a regular expression.
    pub regex: bool,
    pub exclusive_subsets: &'static [&'static [&'static str]],
    /// Replaces the text of whatever rule fails.
    pub err: Option<&'static str>,
    /// A `{vault://...}` reference may stand for the value.
    pub referenceable: bool,
    /// Shown in schema documents only.
    pub encrypted: bool,
    /// The field is still taken, and what to say of that.
    pub deprecation: Option<&'static Deprecation>,
}

/// What schema documents say of a field that is on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Deprecation {
    pub message: &'static str,
    pub removal_in_version: &'static str,
    /// What the field was when it was absent; this value means nothing now.
    pub old_default: i64,
}

/// The type of a field.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    /// Keeps duplicates.
    Array(&'static Field),
    /// Drops duplicates, first kept.
    Set(&'static Field),
    Map {
        keys: &'static Field,
        values: &'static Field,
    },
    Record(&'static Record),
    Foreign {
        entity: &'static str,
        on_delete: OnDelete,
    },
    /// Any JSON value, stored as sent.
    Json,
    /// A record whose fields are chosen by another field of the entity (`plugins.config` by `name`).
    Abstract,
}

/// Fixed keys, unknown ones refused.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub fields: &'static [Field],
    pub checks: &'static [EntityCheck],
    pub shorthands: &'static [Shorthand],
    /// A last rule on a record that is otherwise good; its error stands for the record as a whole.
    pub custom: Option<RecordRule>,
}

/// A rule on a whole record; the error is the text to show.
pub type RecordRule = fn(&serde_json::Map<String, serde_json::Value>) -> Result<(), String>;

/// What happens to a row when the row it refers to is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    Restrict,
    Cascade,
    /// As `Cascade`, though schema documents do not say so.
    TacitCascade,
}

/// A value the server makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auto {
    Uuid,
    /// Seconds, set on creation unless the client gives a value.
    CreatedAt,
    /// Seconds, set on every write.
    UpdatedAt,
    /// 32 random alphanumeric characters.
    RandomText,
}

/// A constant JSON value.
#[derive(Clone, Copy, Debug)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Str(&'static str),
    Strs(&'static [&'static str]),
    Ints(&'static [i64]),
    List(&'static [Literal]),
    Map(&'static [(&'static str, Literal)]),
    /// The record made of the defaults of its own fields.
    OfFields,
}

/// A Lua pattern and the error text of its violation.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    pub lua: &'static str,
    pub err: &'static str,
}

/// At least one of these Lua patterns must match.
#[derive(Clone, Copy, Debug)]
pub struct MatchAny {
    pub lua: &'static [&'static str],
    pub err: &'static str,
}

/// An input-only or second name for other fields of the same record.
#[derive(Clone, Copy, Debug)]
pub struct Shorthand {
    pub field: Field,
    pub meaning: Meaning,
}

#[derive(Clone, Copy, Debug)]
pub enum Meaning {
    /// Replaced by the fields that the function returns; never shown (`services.url`).
    Expands(fn(&serde_json::Value) -> serde_json::Map<String, serde_json::Value>),
    /// A deprecated name for the field at `path`; accepted, and shown with the current value.
    Alias { path: &'static [&'static str], message: &'static str, removal_in_version: &'static str },
}

impl Field {
    const fn new(name: &'static str, kind: Kind) -> Field {
        Field {
            name,
            kind,
            required: None,
            default: None,
            auto: None,
            unique: false,
            across_workspaces: false,
            transient: false,
            uuid: false,
            timestamp: false,
            eq: None,
            ne: None,
            one_of: &[],
            not_one_of: &[],
            gt: None,
            between: None,
            between_numbers: None,
            len_eq: None,
            len_min: None,
            len_max: None,
            starts_with: None,
            match_none: &[],
            matches: None,
            match_all: &[],
            match_any: None,
            contains: None,
            check: None,
            regex: false,
            exclusive_subsets: &[],
            err: None,
            referenceable: false,
            encrypted: false,
            deprecation: None,
        }
    }

    pub const fn string(name: &'static str) -> Field {
        Field::new(name, Kind::String)
    }
    pub const fn integer(name: &'static str) -> Field {
        Field::new(name, Kind::Integer)
    }
    pub const fn number(name: &'static str) -> Field {
        Field::new(name, Kind::Number)
    }
    pub const fn boolean(name: &'static str) -> Field {
        Field::new(name, Kind::Boolean)
    }
    pub const fn array(name: &'static str, element: &'static Field) -> Field {
        Field::new(name, Kind::Array(element))
    }
    pub const fn set(name: &'static str, element: &'static Field) -> Field {
        Field::new(name, Kind::Set(element))
    }
    pub const fn map(name: &'static str, keys: &'static Field, values: &'static Field) -> Field {
        Field::new(name, Kind::Map { keys, values })
    }
    pub const fn record(name: &'static str, record: &'static Record) -> Field {
        Field::new(name, Kind::Record(record))
    }
    /// A reference that forbids deleting what it refers to.
    pub const fn foreign(name: &'static str, entity: &'static str) -> Field {
        Field::new(name, Kind::Foreign { entity, on_delete: OnDelete::Restrict })
    }
    /// A reference whose row goes when what it refers to goes.
    pub const fn owned_by(name: &'static str, entity: &'static str) -> Field {
        Field::new(name, Kind::Foreign { entity, on_delete: OnDelete::Cascade })
    }
    /// As `owned_by`, though schema documents do not say so.
    pub const fn tacitly_owned_by(name: &'static str, entity: &'static str) -> Field {
        Field::new(name, Kind::Foreign { entity, on_delete: OnDelete::TacitCascade })
    }
    pub const fn json(name: &'static str) -> Field {
        Field::new(name, Kind::Json)
    }
    pub const fn chosen_by_variant(name: &'static str) -> Field {
        Field::new(name, Kind::Abstract)
    }

    /// The `id` of every entity.
    pub const fn id() -> Field {
        let mut field = Field::string("id").uuid();
        field.auto = Some(Auto::Uuid);
        field
    }
    pub const fn created_at() -> Field {
        Field::integer("created_at").stamped(Auto::CreatedAt)
    }
    pub const fn updated_at() -> Field {
        Field::integer("updated_at").stamped(Auto::UpdatedAt)
    }
    /// The `tags` of every taggable entity.
    pub const fn tags() -> Field {
        const TAG: Field = Field::string("").required().check(Check::Tag);
        Field::set("tags", &TAG)
    }

    pub const fn stamped(mut self, auto: Auto) -> Field {
        self.timestamp = true;
        self.auto = Some(auto);
        self
    }
    pub const fn required(mut self) -> Field {
        self.required = Some(true);
        self
    }
    pub const fn optional(mut self) -> Field {
        self.required = Some(false);
        self
    }
    pub const fn unique(mut self) -> Field {
        self.unique = true;
        self
    }
    pub const fn across_workspaces(mut self) -> Field {
        self.across_workspaces = true;
        self
    }
    pub const fn transient(mut self) -> Field {
        self.transient = true;
        self
    }
    pub const fn auto(mut self, auto: Auto) -> Field {
        self.auto = Some(auto);
        self
    }
    pub const fn uuid(mut self) -> Field {
        self.uuid = true;
        self
    }
    pub const fn default(mut self, value: Literal) -> Field {
        self.default = Some(value);
        self
    }
    pub const fn default_str(self, value: &'static str) -> Field {
        self.default(Literal::Str(value))
    }
    pub const fn default_int(self, value: i64) -> Field {
        self.default(Literal::Int(value))
    }
    pub const fn default_bool(self, value: bool) -> Field {
        self.default(Literal::Bool(value))
    }
    pub const fn default_strs(self, values: &'static [&'static str]) -> Field {
        self.default(Literal::Strs(values))
    }
    pub const fn default_ints(self, values: &'static [i64]) -> Field {
        self.default(Literal::Ints(values))
    }
    pub const fn eq(mut self, value: Literal) -> Field {
        self.eq = Some(value);
        self
    }
    pub const fn ne(mut self, value: Literal) -> Field {
        self.ne = Some(value);
        self
    }
    pub const fn one_of(mut self, values: &'static [Literal]) -> Field {
        self.one_of = values;
        self
    }
    pub const fn not_one_of(mut self, values: &'static [Literal]) -> Field {
        self.not_one_of = values;
        self
    }
    pub const fn gt(mut self, bound: i64) -> Field {
        self.gt = Some(bound);
        self
    }
    /// Inclusive on both sides.
    pub const fn between(mut self, low: i64, high: i64) -> Field {
        self.between = Some((low, high));
        self
    }
    /// Inclusive on both sides.
    pub const fn between_numbers(mut self, low: f64, high: f64) -> Field {
        self.between_numbers = Some((low, high));
        self
    }
    pub const fn len_eq(mut self, len: usize) -> Field {
        self.len_eq = Some(len);
        self
    }
    /// Strings have at least one byte unless this says 0.
    pub const fn len_min(mut self, len: usize) -> Field {
        self.len_min = Some(len);
        self
    }
    pub const fn len_max(mut self, len: usize) -> Field {
        self.len_max = Some(len);
        self
    }
    pub const fn starts_with(mut self, prefix: &'static str) -> Field {
        self.starts_with = Some(prefix);
        self
    }
    pub const fn match_none(mut self, patterns: &'static [Pattern]) -> Field {
        self.match_none = patterns;
        self
    }
    pub const fn matches(mut self, lua: &'static str) -> Field {
        self.matches = Some(lua);
        self
    }
    pub const fn match_all(mut self, patterns: &'static [Pattern]) -> Field {
        self.match_all = patterns;
        self
    }
    pub const fn match_any(mut self, lua: &'static [&'static str], err: &'static str) -> Field {
        self.match_any = Some(MatchAny { lua, err });
        self
    }
    pub const fn contains(mut self, value: &'static str) -> Field {
        self.contains = Some(value);
        self
    }
    pub const fn check(mut self, check: Check) -> Field {
        self.check = Some(check);
        self
    }
    pub const fn regex(mut self) -> Field {
        self.regex = true;
        self
    }
    pub const fn exclusive_subsets(mut self, subsets: &'static [&'static [&'static str]]) -> Field {
        self.exclusive_subsets = subsets;
        self
    }
    pub const fn err(mut self, text: &'static str) -> Field {
        self.err = Some(text);
        self
    }
    pub const fn referenceable(mut self) -> Field {
        self.referenceable = true;
        self
    }
    pub const fn encrypted(mut self) -> Field {
        self.encrypted = true;
        self
    }

    pub const fn deprecated(mut self, deprecation: &'static Deprecation) -> Field {
        self.deprecation = Some(deprecation);
        self
    }

    /// Whether null and absence are refused.
    pub fn is_required(&self) -> bool {
        self.required == Some(true)
    }
}

impl Record {
    pub const fn of(fields: &'static [Field]) -> Record {
        Record { fields, checks: &[], shorthands: &[], custom: None }
    }
    pub const fn checks(mut self, checks: &'static [EntityCheck]) -> Record {
        self.checks = checks;
        self
    }
    pub const fn shorthands(mut self, shorthands: &'static [Shorthand]) -> Record {
        self.shorthands = shorthands;
        self
    }
    pub const fn custom(mut self, run: RecordRule) -> Record {
        self.custom = Some(run);
        self
    }
}

impl Literal {
    /// The literal as JSON; `OfFields` is only known by the field that carries it and gives null here.
    pub fn to_value(self) -> serde_json::Value {
        use serde_json::Value;
        match self {
            Literal::Null | Literal::OfFields => Value::Null,
            Literal::Bool(value) => value.into(),
            Literal::Int(value) => value.into(),
            Literal::Number(value) => value.into(),
            Literal::Str(value) => value.into(),
            Literal::Strs(values) => values.to_vec().into(),
            Literal::Ints(values) => values.to_vec().into(),
            Literal::List(values) => values.iter().map(|value| value.to_value()).collect(),
            Literal::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.to_string(), value.to_value())).collect())
            }
        }
    }
}

/// String literals for `one_of`: `strs!["http", "https"]`.
#[macro_export]
macro_rules! strs {
    ($($text:expr),* $(,)?) => { &[$($crate::entity::schema::Literal::Str($text)),*] };
}
