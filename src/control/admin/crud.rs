//! The generic endpoints: collections, rows, children of a row, the parent of a row (spec/admin-api.md section 4).
//! Owns: what each method does there, for every entity alike. Always: a change happens inside one transaction.

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::deed::Deed;
use crate::control::admin::page;
use crate::control::admin::page::Wanted;
use crate::control::admin::paths::Link;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::rows;
use crate::control::admin::rows::Name;
use crate::control::admin::rows::Writer;
use crate::control::store::Applied;
use crate::control::store::Publish;
use crate::control::store::WriteError;
use crate::control::store::tables::Page;
use crate::control::store::tables::Tables;
use crate::control::store::tables::reference_id;
use crate::control::store::transaction::Transaction;
use crate::entity::Entity;
use crate::entity::validate::is_uuid;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

impl<P: Publish> Admin<P> {
    /// Does a change and answers when it is applied. `work` returns the body, or `None` for an empty answer.
    pub(super) async fn change(
        &self,
        status: StatusCode,
        deed: Deed,
        work: impl FnOnce(&mut Transaction) -> Result<Option<String>, Problem>,
    ) -> Result<Reply, Problem> {
        if self.store.is_in_memory() {
            return deed.refuse(&self.store, work);
        }
        match self.store.write(work).await {
            Ok(written) => {
                let reply = match written.value {
                    Some(body) => Reply::rendered(status, body),
                    None => Reply::empty(),
                };
                Ok(with_version(reply, &written.applied))
            }
            Err(WriteError::Refused(problem)) => Err(problem),
            Err(WriteError::Uncompilable(refusals)) => Err(Problem::uncompilable(refusals)),
            Err(WriteError::Unsaved(reason)) => Err(Problem::unsaved(&reason)),
        }
    }

    pub(super) async fn collection(&self, entity: &'static Entity, call: Call) -> Result<Reply, Problem> {
        if call.method == Method::POST {
            let plugins = |name: &str| self.plugin(name);
            let writer = Writer { entity, plugins: &plugins };
            return self
                .change(StatusCode::CREATED, Deed::create(entity), |tx| {
                    let id = writer.create(tx, call.input, &[])?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await;
        }
        let tables = self.store.view();
        if let Some(found) = by_custom_id(entity, &call, &tables)? {
            return Ok(Reply::rendered(StatusCode::OK, page::body(&found, None)));
        }
        let wanted = Wanted::read(&call.query, entity.has_tags())?;
        let after = wanted.after_id(&call.query)?;
        let found = tables.page(entity, after, wanted.size, wanted.tags.as_ref());
        let path = format!("/{}", entity.collection.unwrap_or(entity.name));
        Ok(page_reply(entity, &tables, &found, |token| wanted.next(&path, token)))
    }

    pub(super) async fn row(&self, entity: &'static Entity, call: Call) -> Result<Reply, Problem> {
        let name = Name::read(entity, variable(&call, 0)?)?;
        let plugins = |name: &str| self.plugin(name);
        let writer = Writer { entity, plugins: &plugins };
        match call.method {
            Method::PUT => {
                self.change(StatusCode::OK, Deed::replace(entity, &name), |tx| {
                    let id = writer.replace(tx, &name, call.input, &[])?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await
            }
            Method::PATCH => {
                self.change(StatusCode::OK, Deed::update(entity, &name), |tx| {
                    let id = name.find(entity, &tx.tables).ok_or_else(|| name.absent(entity))?;
                    writer.patch(tx, &name, id, call.input)?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await
            }
            Method::DELETE => {
                self.change(StatusCode::NO_CONTENT, Deed::remove(entity, &name), |tx| {
                    match name.find(entity, &tx.tables) {
                        Some(id) => tx.delete(entity, id).map(|_| None).map_err(Problem::Conflict),
                        // A name that is none of another entity's is noticed; a row that is gone already is not.
                        None if matches!(name, Name::Key(_)) && entity.named_by.is_some() => Err(name.absent(entity)),
                        None => Ok(None),
                    }
                })
                .await
            }
            _ => {
                let tables = self.store.view();
                let id = name.find(entity, &tables).ok_or_else(|| name.missing(entity))?;
                Ok(Reply::rendered(StatusCode::OK, rows::show_id(entity, &tables, id)?))
            }
        }
    }

    pub(super) async fn children(&self, link: Link, call: Call) -> Result<Reply, Problem> {
        let name = Name::read(link.parent, variable(&call, 0)?)?;
        if call.method == Method::POST {
            let plugins = |name: &str| self.plugin(name);
            let writer = Writer { entity: link.child, plugins: &plugins };
            return self
                .change(StatusCode::CREATED, Deed::create(link.child), |tx| {
                    let parent = name.find(link.parent, &tx.tables).ok_or_else(|| name.missing_parent(link.parent))?;
                    let id = writer.create(tx, call.input, &[(link.field, reference(parent))])?;
                    rows::show_id(link.child, &tx.tables, id).map(Some)
                })
                .await;
        }
        let tables = self.store.view();
        let parent = name.find(link.parent, &tables).ok_or_else(|| name.missing_parent(link.parent))?;
        let wanted = Wanted::read(&call.query, link.child.has_tags())?;
        let after = wanted.after_id(&call.query)?;
        let found = tables.children(link.child, link.field, parent, after, wanted.size);
        let path = nested_path(link, &call);
        Ok(page_reply(link.child, &tables, &found, |token| page::nested_next(&path, token)))
    }

    pub(super) async fn child(&self, link: Link, call: Call) -> Result<Reply, Problem> {
        let parent_name = Name::read(link.parent, variable(&call, 0)?)?;
        let entity = link.child;
        if let Some(key) = child_key(entity, variable(&call, 1)?)? {
            return self.keyed_child(link, &parent_name, key, call).await;
        }
        let name = Name::read(entity, variable(&call, 1)?)?;
        let plugins = |name: &str| self.plugin(name);
        let writer = Writer { entity, plugins: &plugins };
        let parent_of = |tables: &Tables| {
            parent_name.find(link.parent, tables).ok_or_else(|| parent_name.missing_parent(link.parent))
        };
        let own_child = |tables: &Tables| -> Result<Uuid, Problem> {
            let parent = parent_of(tables)?;
            let found = name.find(entity, tables).filter(|id| linked(link, tables, *id) == Some(parent));
            found.ok_or_else(Problem::not_found)
        };
        match call.method {
            Method::PUT => {
                self.change(StatusCode::OK, Deed::replace(entity, &name), |tx| {
                    let parent = parent_of(&tx.tables)?;
                    let id = writer.replace(tx, &name, call.input, &[(link.field, reference(parent))])?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await
            }
            Method::PATCH => {
                self.change(StatusCode::OK, Deed::update(entity, &name), |tx| {
                    let id = own_child(&tx.tables)?;
                    let mut input = call.input;
                    if !input.fields.contains_key(link.field) {
                        let parent = parent_of(&tx.tables)?;
                        input.fields.insert(link.field.to_string(), reference(parent));
                    }
                    writer.patch(tx, &name, id, input)?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await
            }
            Method::DELETE => {
                self.change(StatusCode::NO_CONTENT, Deed::remove(entity, &name), |tx| {
                    let id = own_child(&tx.tables)?;
                    tx.delete(entity, id).map_err(Problem::Conflict)?;
                    Ok(None)
                })
                .await
            }
            _ => {
                let tables = self.store.view();
                let id = own_child(&tables)?;
                Ok(Reply::rendered(StatusCode::OK, rows::show_id(entity, &tables, id)?))
            }
        }
    }

    /// `/consumers/{c}/acls/{group}`: a child whose key says which it is only below its parent.
    async fn keyed_child(&self, link: Link, parent_name: &Name, key: String, mut call: Call) -> Result<Reply, Problem> {
        let entity = link.child;
        let parent_of = |tables: &Tables| {
            parent_name.find(link.parent, tables).ok_or_else(|| parent_name.missing_parent(link.parent))
        };
        let find = |tables: &Tables| -> Result<Option<Uuid>, Problem> {
            let pair = [(link.field, reference(parent_of(tables)?)), (entity.child_key, Value::from(key.as_str()))];
            let row: Map<String, Value> = pair.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
            Ok(tables.find_together(entity, 0, &row))
        };
        if !matches!(call.method, Method::PUT | Method::PATCH | Method::DELETE) {
            let tables = self.store.view();
            let id = find(&tables)?.ok_or(Problem::NoSuchKey)?;
            return Ok(Reply::rendered(StatusCode::OK, rows::show_id(entity, &tables, id)?));
        }
        let plugins = |name: &str| self.plugin(name);
        let writer = Writer { entity, plugins: &plugins };
        let (status, deed) = match call.method {
            Method::DELETE => (StatusCode::NO_CONTENT, Deed::remove(entity, &BY_ID)),
            Method::PUT => (StatusCode::OK, Deed::replace(entity, &BY_ID)),
            _ => (StatusCode::OK, Deed::update(entity, &BY_ID)),
        };
        self.change(status, deed, |tx| {
            let found = find(&tx.tables)?;
            let id = match (&call.method, found) {
                (&Method::PUT, found) => {
                    call.input.fields.entry(entity.child_key).or_insert_with(|| key.clone().into());
                    let owner = [(link.field, reference(parent_of(&tx.tables)?))];
                    match found {
                        Some(id) => writer.replace(tx, &Name::Id(id), call.input, &owner)?,
                        None => writer.create(tx, call.input, &owner)?,
                    }
                }
                (_, None) => return Err(Problem::NoSuchKey),
                (&Method::DELETE, Some(id)) => {
                    tx.delete(entity, id).map_err(Problem::Conflict)?;
                    return Ok(None);
                }
                (_, Some(id)) => {
                    writer.patch(tx, &Name::Id(id), id, call.input)?;
                    id
                }
            };
            rows::show_id(entity, &tx.tables, id).map(Some)
        })
        .await
    }

    /// `/routes/{r}/service`: the row that a row refers to.
    pub(super) async fn parent(&self, link: Link, call: Call) -> Result<Reply, Problem> {
        let name = Name::read(link.child, variable(&call, 0)?)?;
        let plugins = |name: &str| self.plugin(name);
        let writer = Writer { entity: link.parent, plugins: &plugins };
        let child_of = |tables: &Tables| name.find(link.child, tables).ok_or_else(Problem::not_found);
        let set = |tables: &Tables| linked(link, tables, child_of(tables)?).ok_or_else(Problem::not_found);
        match call.method {
            Method::PATCH => {
                self.change(StatusCode::OK, Deed::update(link.parent, &BY_ID), |tx| {
                    let parent = set(&tx.tables)?;
                    writer.patch(tx, &Name::Id(parent), parent, call.input)?;
                    rows::show_id(link.parent, &tx.tables, parent).map(Some)
                })
                .await
            }
            Method::PUT => {
                self.change(StatusCode::OK, Deed::replace(link.parent, &BY_ID), |tx| {
                    let child = child_of(&tx.tables)?;
                    let standing = linked(link, &tx.tables, child);
                    let parent = standing.unwrap_or_else(Uuid::new_v4);
                    writer.replace(tx, &Name::Id(parent), call.input, &[])?;
                    if standing.is_none() {
                        let fields = Map::from_iter([(link.field.to_string(), reference(parent))]);
                        let input = crate::control::admin::decode::Input { fields, ..Default::default() };
                        let linker = Writer { entity: link.child, plugins: &plugins };
                        linker.patch(tx, &name, child, input)?;
                    }
                    rows::show_id(link.parent, &tx.tables, parent).map(Some)
                })
                .await
            }
            Method::DELETE => {
                set(&self.store.view())?;
                Err(Problem::Plain(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed".to_string()))
            }
            _ => {
                let tables = self.store.view();
                let parent = set(&tables)?;
                Ok(Reply::rendered(StatusCode::OK, rows::show_id(link.parent, &tables, parent)?))
            }
        }
    }
}

/// However a row was named, it is changed by its id.
pub(super) const BY_ID: Name = Name::Id(Uuid::nil());

/// Says which version of the configuration the answer belongs to, and which cores do not serve it yet.
pub(super) fn with_version(reply: Reply, applied: &Applied) -> Reply {
    let reply = reply.with("X-Ringway-Config-Version", applied.version);
    if applied.late.is_empty() {
        return reply;
    }
    let late: Vec<String> = applied.late.iter().map(usize::to_string).collect();
    tracing::warn!("version {} is not yet applied by cores {}", applied.version, late.join(", "));
    reply.with("X-Ringway-Late-Cores", late.join(","))
}

/// The segment as a value of the child key: the entity has one, and it is no id.
fn child_key(entity: &Entity, segment: &crate::control::admin::paths::Variable) -> Result<Option<String>, Problem> {
    match &segment.decoded {
        Ok(text) if !entity.child_key.is_empty() && !is_uuid(text) => Ok(Some(text.clone())),
        _ => Ok(None),
    }
}

/// A variable segment of the path; every pattern has as many as its handler asks for.
pub(super) fn variable(call: &Call, index: usize) -> Result<&crate::control::admin::paths::Variable, Problem> {
    call.found.variables.get(index).ok_or_else(Problem::not_found)
}

pub(super) fn reference(id: Uuid) -> Value {
    json!({ "id": id.to_string() })
}

/// The parent that a child refers to.
pub(super) fn linked(link: Link, tables: &Tables, child: Uuid) -> Option<Uuid> {
    tables.get(link.child, child)?.row().get(link.field).and_then(reference_id)
}

/// The path of a nested collection, its parent as written by the client.
pub(super) fn nested_path(link: Link, call: &Call) -> String {
    let parent = call.found.variables.first().map_or("", |variable| variable.raw.as_str());
    format!("/{}/{parent}/{}", link.parent.collection.unwrap_or(link.parent.name), link.child.segment)
}

pub(super) fn page_reply(
    entity: &Entity,
    tables: &Tables,
    found: &Page<std::sync::Arc<crate::control::store::tables::Entry>>,
    next: impl Fn(&str) -> String,
) -> Reply {
    let last = found.rows.last().filter(|_| found.more);
    let next = last.map(|last| {
        let token = page::token(&json!([rows::id_of(last)]));
        (next(&token), token)
    });
    Reply::rendered(StatusCode::OK, page::body(&rows::show_all(entity, tables, &found.rows), next))
}

/// `GET /consumers?custom_id=x`
fn by_custom_id(entity: &Entity, call: &Call, tables: &Tables) -> Result<Option<Vec<String>>, Problem> {
    if entity.name != "consumers" {
        return Ok(None);
    }
    match page::argument(&call.query, "custom_id") {
        None => Ok(None),
        Some(Some(custom_id)) if !custom_id.is_empty() => {
            let found = tables.find(entity, "custom_id", custom_id);
            let shown = found.map(|id| rows::show_id(entity, tables, id)).transpose()?;
            Ok(Some(shown.into_iter().collect()))
        }
        Some(_) => Err(Problem::bad_request("custom_id must be an unempty string")),
    }
}
