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
        let mut row = stored.clone();
        complete::merge(fields.iter(), &mut row, patch);
        if let Some(normalise) = self.normalise {
            normalise(&mut row);
        }
        complete::stamp(fields.iter(), &mut row, false, moment);
        complete::fill(fields.iter(), &mut row);
        self.check(&variant, &fields, row, Write::Partial)
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
        row: Map<String, Value>,
        write: Write,
    ) -> Result<Map<String, Value>, Violations> {
        let checks = self.record.checks.iter().chain(variant.checks);
        let found = validate::check_record(fields.iter(), checks, &row, write);
        if !found.is_empty() {
            return Err(found);
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
