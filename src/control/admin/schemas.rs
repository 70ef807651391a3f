//! Declarations shown, and inputs checked without being stored (spec/admin-api.md sections 7.5 and 7.6).

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use crate::control::store::unix_now_ms;
use crate::entity::Entity;
use crate::entity::coerce;
use crate::entity::complete::Moment;
use crate::entity::document;
use crate::entity::in_flavor;
use crate::entity::plugin;
use crate::entity::schema::Auto;
use crate::entity::schema::Field;
use crate::entity::schema::Record;
use crate::entity::vault;
use crate::entity::violation::Violations;
use crate::router::expressions::check;
use crate::strs;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// Tags are computed, but have a schema document like entities.
static TAGS: Record = Record::of(&[
    Field::string("tag").required(),
    Field::string("entity_name").required(),
    Field::string("entity_id").required().uuid().auto(Auto::Uuid),
]);

/// There is one workspace, and no way to it but this document.
static WORKSPACES: Record = Record::of(&[
    Field::id(),
    Field::string("name").required().unique().len_min(1).not_one_of(strs![
        "workspaces",
        "consumers",
        "certificates",
        "services",
        "routes",
        "snis",
        "upstreams",
        "targets",
        "plugins",
        "tags",
        "ca_certificates",
        "clustering_data_planes",
        "parameters",
        "vaults",
        "key_sets",
        "keys",
        "filter_chains",
    ]),
    Field::string("comment"),
    Field::created_at(),
    Field::updated_at(),
    Field::record("meta", &Record::of(&[])).required(),
    Field::record("config", &Record::of(&[])).required(),
]);

/// There are no filters.
pub(super) fn filter_schema(call: &Call) -> Result<Reply, Problem> {
    let name = crud::variable(call, 0)?;
    let text = name.decoded.as_deref().unwrap_or(&name.raw);
    Err(Problem::Plain(StatusCode::NOT_FOUND, format!("Filter '{text}' not found")))
}

impl<P: Publish> Admin<P> {
    fn entity(&self, call: &Call) -> Result<&'static Entity, Problem> {
        let name = crud::variable(call, 0)?;
        let text = name.decoded.as_deref().unwrap_or(&name.raw);
        let loaded = |entity: &&Entity| entity.needs_plugin.is_none_or(|plugin| self.plugin(plugin).is_some());
        let missing = || Problem::Plain(StatusCode::NOT_FOUND, format!("No entity named '{text}'"));
        crate::entity::find(text).map(|entity| in_flavor(entity, self.routes)).filter(loaded).ok_or_else(missing)
    }

    fn plugin_of(&self, call: &Call) -> Result<&'static crate::entity::PluginSchema, Problem> {
        let name = crud::variable(call, 0)?;
        let text = name.decoded.as_deref().unwrap_or(&name.raw);
        let missing = || Problem::Plain(StatusCode::NOT_FOUND, format!("No plugin named '{text}'"));
        self.plugin(text).ok_or_else(missing)
    }

    pub(super) fn entity_schema(&self, call: &Call) -> Result<Reply, Problem> {
        let name = crud::variable(call, 0)?;
        let record = match name.raw.as_str() {
            "tags" => &TAGS,
            "workspaces" => &WORKSPACES,
            _ => self.entity(call)?.record,
        };
        Ok(Reply::json(StatusCode::OK, &document::document(record.fields.iter(), record.checks.iter())))
    }

    pub(super) fn vault_schema(&self, call: &Call) -> Result<Reply, Problem> {
        let name = crud::variable(call, 0)?;
        let text = name.decoded.as_deref().unwrap_or(&name.raw);
        let Some(kind) = vault::find(text) else {
            return Err(Problem::Plain(StatusCode::NOT_FOUND, format!("No vault named '{text}'")));
        };
        let fields = vault::overrides(kind);
        Ok(Reply::json(StatusCode::OK, &document::document(fields.iter(), std::iter::empty())))
    }

    pub(super) fn plugin_schema(&self, call: &Call) -> Result<Reply, Problem> {
        let schema = self.plugin_of(call)?;
        let fields = plugin::overrides(schema);
        Ok(Reply::json(StatusCode::OK, &document::document(fields.iter(), schema.checks.iter())))
    }

    pub(super) fn plugin_config_schema(&self, call: &Call) -> Result<Reply, Problem> {
        let schema = self.plugin_of(call)?;
        Ok(Reply::json(StatusCode::OK, &document::record_document(&schema.config, &[])))
    }

    pub(super) fn validate_entity(&self, call: Call) -> Result<Reply, Problem> {
        let entity = self.entity(&call)?;
        self.validate(entity, call)
    }

    pub(super) fn validate_plugin(&self, call: Call) -> Result<Reply, Problem> {
        self.validate(&plugin::PLUGINS, call)
    }

    /// As an insert that looks nothing up and stores nothing.
    pub(super) fn validate(&self, entity: &Entity, call: Call) -> Result<Reply, Problem> {
        let mut fields = call.input.fields;
        if call.input.untyped
            && let Value::Object(typed) = coerce::infer_blindly(Value::Object(std::mem::take(&mut fields)))
        {
            fields = typed;
        }
        if entity.ttl {
            fields.remove("ttl");
        }
        let moment = Moment { now_ms: unix_now_ms() };
        let row = entity.create(fields, moment, &|name| self.plugin(name)).map_err(Problem::Schema)?;
        if entity.name == self.routes.name {
            expression_of(&row)?;
        }
        Ok(Reply::json(StatusCode::OK, &json!({ "message": "schema validation successful" })))
    }
}

/// The schema engine does not know the language of expressions; the router does.
fn expression_of(row: &Map<String, Value>) -> Result<(), Problem> {
    let Some(text) = row.get("expression").and_then(Value::as_str) else { return Ok(()) };
    check::check(text).map_err(|reason| {
        let entity = vec![format!("{}{reason}", check::REFUSED)];
        Problem::Schema(Violations { entity, ..Violations::default() })
    })
}
