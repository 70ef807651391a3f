//! The way of one write through the schema: what was sent, expanded, filled, checked, in stored form.
//! Owns: the order of these steps, the same for every entity. Never: looks up another row.
//! Always: what it returns is valid and canonical; what it refuses carries every violation at once.

use crate::entity::Entity;
use crate::entity::PluginLookup;
use crate::entity::Variant;
use crate::entity::coerce;
use crate::entity::complete;
use crate::entity::complete::Moment;
use crate::entity::schema::Field;
use crate::entity::schema::Kind;
use crate::entity::validate;
use crate::entity::validate::Write;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use serde_json::Map;
use serde_json::Value;

impl Entity {
    /// The fields of one variant, in declaration order.
    pub fn fields(&self, variant: &Variant) -> Vec<Field> {
        let own = self.record.fields.iter();
        let chosen = own.map(|field| variant.overrides.iter().find(|other| other.name == field.name).unwrap_or(field));
        chosen.copied().collect()
    }

    fn variant_of(&self, row: &Map<String, Value>, plugins: PluginLookup<'_>) -> Result<Variant, Violations> {
        self.variant.map_or(Ok(Variant::default()), |decide| decide(row, plugins))
    }

    /// Types the strings of a form. `stored` is the row a PATCH is for, which may decide the variant.
    pub fn infer(
        &self,
        input: &mut Map<String, Value>,
        stored: Option<&Map<String, Value>>,
        plugins: PluginLookup<'_>,
    ) {
        let shorthands: Vec<Field> = self.record.shorthands.iter().map(|shorthand| shorthand.field).collect();
        coerce::infer(self.record.fields.iter().chain(&shorthands).filter(|field| !abstract_field(field)), input);
        let mut chooser = stored.cloned().unwrap_or_default();
        chooser.extend(input.clone());
        if let Ok(variant) = self.variant_of(&chooser, plugins) {
            let chosen = self.fields(&variant);
            let late = |field: &&Field| self.field(field.name).is_some_and(abstract_field);
            coerce::infer(chosen.iter().filter(late), input);
        }
    }

    /// A new or wholly replaced row.
    pub fn create(
        &self,
        input: Map<String, Value>,
        moment: Moment,
        plugins: PluginLookup<'_>,
    ) -> Result<Map<String, Value>, Violations> {
        let whole = self.transform.is_some().then(|| input.clone());
        let made = self.create_as_is(input, moment, plugins);
        let (Some(transform), Some(sent)) = (self.transform, whole) else {
            return made;
        };
        match made {
            Ok(mut row) => {
                (transform.run)(&mut row);
                Ok(row)
            }
            Err(mut found) => {
                found.entity.extend(transform.missing(self, &sent));
                Err(found)
            }
        }
    }

    /// As `create`, with values that are in their stored form already.
    pub fn create_as_is(
        &self,
        mut input: Map<String, Value>,
        moment: Moment,
        plugins: PluginLookup<'_>,
    ) -> Result<Map<String, Value>, Violations> {
        self.expand(&mut input)?;
        if let Some(normalise) = self.normalise {
            normalise(&mut input);
        }
        let variant = self.variant_of(&input, plugins)?;
        let fields = self.fields(&variant);
        complete::stamp(fields.iter(), &mut input, true, moment);
        complete::fill(fields.iter(), &mut input);
        self.check(&variant, &fields, input, Write::Whole)
    }

    /// A stored row with a patch merged into it.
    pub fn update(
        &self,
        stored: &Map<String, Value>,
        mut patch: Map<String, Value>,
        moment: Moment,
        plugins: PluginLookup<'_>,
    ) -> Result<Map<String, Value>, Violations> {
        self.expand(&mut patch)?;
        let mut chooser = stored.clone();
        chooser.extend(patch.clone());
        let variant = self.variant_of(&chooser, plugins)?;
        let fields = self.fields(&variant);
        let due = self.transform.map_or(Ok(false), |transform| transform.is_due(stored, &patch));
        let mut row = stored.clone();
        complete::merge(fields.iter(), &mut row, patch);
        if let Some(normalise) = self.normalise {
            normalise(&mut row);
        }
        complete::stamp(fields.iter(), &mut row, false, moment);
        complete::fill(fields.iter(), &mut row);
        let checked = self.check(&variant, &fields, row, Write::Partial);
        match (checked, due, self.transform) {
            (Ok(mut row), Ok(true), Some(transform)) => {
                (transform.run)(&mut row);
                Ok(row)
            }
            (Ok(_), Err(text), _) => Err(Violations { entity: vec![text], ..Violations::default() }),
            (Err(mut found), Err(text), _) => {
                found.entity.push(text);
                Err(found)
            }
            (checked, ..) => checked,
        }
    }

    /// A badly typed shorthand is the only thing reported: what it stands for cannot be judged.
    fn expand(&self, input: &mut Map<String, Value>) -> Result<(), Violations> {
        complete::expand(self.record.shorthands, input);
        let mut found = Violations::default();
        for shorthand in self.record.shorthands {
            let Some(value) = input.get(shorthand.field.name) else {
                continue;
            };
            if let Err(violation) = validate::check_field(&shorthand.field, value, Write::Whole) {
                found.set(shorthand.field.name, violation);
            }
        }
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn check(
        &self,
        variant: &Variant,
        fields: &[Field],
        mut row: Map<String, Value>,
        write: Write,
    ) -> Result<Map<String, Value>, Violations> {
        let checks = self.record.checks.iter().chain(variant.checks);
        let found = validate::check_record(fields.iter(), checks, &row, write);
        if !found.is_empty() {
            return Err(found);
        }
        // Once more, now that defaults stand where nothing was sent.
        if let Some(normalise) = self.normalise {
            normalise(&mut row);
        }
        Ok(complete::canonical(fields.iter(), row))
    }

    /// Checks a value of the path key by its field's rules; the error is the text to show.
    pub fn check_path_key(&self, value: &str) -> Result<(), String> {
        let Some(field) = self.field(self.path_key) else {
            return Ok(());
        };
        match validate::check_field(field, &Value::from(value), Write::Whole) {
            Err(Violation::Text(text)) => Err(text),
            _ => Ok(()),
        }
    }
}

fn abstract_field(field: &Field) -> bool {
    matches!(field.kind, Kind::Abstract)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::PluginSchema;
    use crate::entity::plugin::PLUGINS;
    use crate::entity::route::ROUTES;
    use crate::entity::schema::Meaning;
    use crate::entity::schema::Record;
    use crate::entity::schema::Shorthand;
    use serde_json::json;

    const NOW: Moment = Moment { now_ms: 1_735_689_600_123 };

    static REDIS: Record =
        Record::of(&[Field::string("host"), Field::integer("port").default_int(6379).between(0, 65535)]);
    static LIMIT: Record = Record::of(&[Field::number("minute").gt(0)]);
    const LIMIT_NAME: Field = Field::string("");
    const LIMITS: Field = Field::record("", &LIMIT);
    static LIMITER: PluginSchema = PluginSchema::new(
        "limiter",
        &[Field::map("limits", &LIMIT_NAME, &LIMITS), Field::record("redis", &REDIS).required()],
    )
    .aliases(&[Shorthand {
        field: Field::integer("redis_port"),
        meaning: Meaning::Alias {
            path: &["redis", "port"],
            message: "config.redis_port is deprecated",
            removal_in_version: "4.0",
        },
    }]);

    fn plugins(name: &str) -> Option<&'static PluginSchema> {
        (name == "limiter").then_some(&LIMITER)
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn config(row: &Map<String, Value>) -> Value {
        row["config"].clone()
    }

    #[test]
    fn a_deprecated_name_is_accepted_and_shown_with_the_current_value() {
        let sent = json!({ "name": "limiter", "config": { "redis_port": 1, "limits": { "a": {} } } });
        let row = PLUGINS.create(map(sent), NOW, &plugins).unwrap();
        let limits = json!({ "a": { "minute": null } });
        let redis = json!({ "host": null, "port": 1 });
        assert_eq!(config(&row), json!({ "limits": limits, "redis": redis, "redis_port": 1 }));

        let patch = map(json!({ "config": { "redis": { "port": 2 } } }));
        let row = PLUGINS.update(&row, patch, NOW, &plugins).unwrap();
        let redis = json!({ "host": null, "port": 2 });
        assert_eq!(config(&row), json!({ "limits": limits, "redis": redis, "redis_port": 2 }));

        let patch = map(json!({ "config": { "redis_port": 3 } }));
        let row = PLUGINS.update(&row, patch, NOW, &plugins).unwrap();
        assert_eq!((&row["config"]["redis"]["port"], &row["config"]["redis_port"]), (&json!(3), &json!(3)));

        let bad = map(json!({ "name": "limiter", "config": { "redis_port": 70000 } }));
        let found = PLUGINS.create(bad, NOW, &plugins).unwrap_err();
        assert_eq!(
            found.message(),
            "schema violation (config.redis: {\n  port = \"value should be between 0 and 65535\"\n})"
        );
    }

    #[test]
    fn forms_are_typed_by_the_stored_plugin_too() {
        let stored = map(json!({ "name": "limiter" }));
        let mut input = map(json!({ "config": { "limits": { "a": { "minute": "5" } }, "redis_port": "7" } }));
        PLUGINS.infer(&mut input, Some(&stored), &plugins);
        assert_eq!(input["config"], json!({ "limits": { "a": { "minute": 5 } }, "redis_port": 7 }));
    }

    #[test]
    fn sets_lose_duplicates_and_nested_records_are_completed() {
        let sent = json!({ "protocols": ["tcp"], "sources": [{ "ip": "1.2.3.4" }, { "ip": "1.2.3.4", "port": null }] });
        let row = ROUTES.create(map(sent), NOW, &plugins).unwrap();
        assert_eq!(row["sources"], json!([{ "ip": "1.2.3.4", "port": null }]));
        assert_eq!(row["created_at"], json!(1_735_689_600));
        assert_eq!(row.keys().next().map(String::as_str), Some("id"));
    }

    #[test]
    fn a_route_for_grpc_does_not_strip_unless_asked_to_and_then_is_refused() {
        let sent = json!({ "protocols": ["grpc"], "paths": ["/a"] });
        let row = ROUTES.create(map(sent), NOW, &plugins).unwrap();
        assert_eq!(row["strip_path"], json!(false));
        let http = ROUTES.create(map(json!({ "paths": ["/a"] })), NOW, &plugins).unwrap();
        let found = ROUTES.update(&http, map(json!({ "protocols": ["grpc"] })), NOW, &plugins).unwrap_err();
        assert!(found.fields.contains_key("strip_path"), "{}", found.message());
    }
}
