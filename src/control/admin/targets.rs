//! Targets below their upstream: named by address, listed newest first (spec/admin-api.md section 7.10).

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::deed::Deed;
use crate::control::admin::page;
use crate::control::admin::page::Wanted;
use crate::control::admin::paths::Link;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::rows;
use crate::control::admin::rows::Name;
use crate::control::admin::rows::Writer;
use crate::control::store::Publish;
use crate::control::store::tables::Entry;
use crate::control::store::tables::Tables;
use crate::entity::target;
use crate::entity::violation::Violations;
use crate::limits::PAGE_ROWS_DEFAULT;
use crate::limits::PAGE_ROWS_MAX;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

impl<P: Publish> Admin<P> {
    pub(super) async fn targets(&self, link: Link, call: Call) -> Result<Reply, Problem> {
        if call.method == Method::POST {
            let name = Name::read(link.parent, crud::variable(&call, 0)?)?;
            let plugins = |name: &str| self.plugin(name);
            let writer = Writer { entity: link.child, plugins: &plugins };
            return self
                .change(StatusCode::CREATED, Deed::create(link.child), |tx| {
                    let upstream = name.find(link.parent, &tx.tables).ok_or_else(Problem::not_found)?;
                    check_address(&call.input.fields)?;
                    let id = writer.create(tx, call.input, &[(link.field, crud::reference(upstream))])?;
                    rows::show_id(link.child, &tx.tables, id).map(Some)
                })
                .await;
        }
        let tables = self.store.view();
        let upstream = upstream_of(link, &call, &tables)?;
        let found = page_of(link, &call, &tables, upstream)?;
        let next = found.next.map(|offset| (page::nested_next(&crud::nested_path(link, &call), &offset), offset));
        let body = page::body(&rows::show_all(link.child, &tables, &found.rows), next);
        Ok(Reply::rendered(StatusCode::OK, body))
    }

    /// The list as it is stored: in order of id.
    pub(super) fn targets_all(&self, link: Link, call: &Call) -> Result<Reply, Problem> {
        let tables = self.store.view();
        let upstream = upstream_of(link, call, &tables)?;
        let wanted = Wanted::read(&call.query, true)?;
        let after = wanted.after_id(&call.query)?;
        let found = tables.children(link.child, link.field, upstream, after, wanted.size);
        let path = format!("{}/all", crud::nested_path(link, call));
        Ok(crud::page_reply(link.child, &tables, &found, |token| page::nested_next(&path, token)))
    }

    /// PUT does what PATCH does: neither creates.
    pub(super) async fn target(&self, link: Link, call: Call) -> Result<Reply, Problem> {
        let entity = link.child;
        let segment = crud::variable(&call, 1)?.decoded.clone().map_err(|_| Problem::not_found())?;
        let parent_name = Name::read(link.parent, crud::variable(&call, 0)?)?;
        let find = |tables: &Tables| -> Result<Uuid, Problem> {
            let upstream = parent_name.find(link.parent, tables).ok_or_else(Problem::not_found)?;
            by_id_or_address(link, tables, upstream, &segment).ok_or_else(Problem::not_found)
        };
        let plugins = |name: &str| self.plugin(name);
        let writer = Writer { entity, plugins: &plugins };
        match call.method {
            Method::PATCH | Method::PUT => {
                self.change(StatusCode::OK, Deed::update(entity, &crud::BY_ID), |tx| {
                    let id = find(&tx.tables)?;
                    check_address(&call.input.fields)?;
                    writer.patch(tx, &Name::Id(id), id, call.input)?;
                    rows::show_id(entity, &tx.tables, id).map(Some)
                })
                .await
            }
            Method::DELETE => {
                self.change(StatusCode::NO_CONTENT, Deed::remove(entity, &crud::BY_ID), |tx| {
                    let id = find(&tx.tables)?;
                    tx.delete(entity, id).map_err(Problem::Conflict)?;
                    Ok(None)
                })
                .await
            }
            _ => {
                let tables = self.store.view();
                let id = find(&tables)?;
                Ok(Reply::rendered(StatusCode::OK, rows::show_id(entity, &tables, id)?))
            }
        }
    }
}

/// Targets of a page, newest first, and the offset of the next page.
pub(super) struct TargetPage {
    pub rows: Vec<Arc<Entry>>,
    pub next: Option<String>,
}

/// The page that a call asks for.
pub(super) fn page_of(link: Link, call: &Call, tables: &Tables, upstream: Uuid) -> Result<TargetPage, Problem> {
    // Larger sizes are capped here, not refused as elsewhere.
    let size = match page::size(&call.query)? {
        None => PAGE_ROWS_DEFAULT,
        Some(size) if size >= 1.0 => (size as usize).min(PAGE_ROWS_MAX),
        Some(_) => {
            return Err(Problem::BadSize("size must be an integer between 1 and 1000"));
        }
    };
    let skip = match page::argument(&call.query, "offset") {
        None => 0,
        Some(given) => {
            let skip = given.as_deref().and_then(|given| given.parse::<usize>().ok());
            skip.ok_or_else(|| page::foreign_token(&call.query))?
        }
    };
    let mut all = tables.children(link.child, link.field, upstream, None, usize::MAX).rows;
    all.sort_by_cached_key(|entry| {
        let row = entry.row();
        let created_ms = row.get("created_at").and_then(Value::as_f64).map_or(0, |seconds| (seconds * 1000.0) as i64);
        std::cmp::Reverse((created_ms, row.get("id").map(Value::to_string)))
    });
    let shown: Vec<_> = all.iter().skip(skip).take(size).cloned().collect();
    let end = skip.saturating_add(shown.len());
    let next = (end < all.len()).then(|| end.to_string());
    Ok(TargetPage { rows: shown, next })
}

pub(super) fn upstream_of(link: Link, call: &Call, tables: &Tables) -> Result<Uuid, Problem> {
    let name = Name::read(link.parent, crud::variable(call, 0)?)?;
    name.find(link.parent, tables).ok_or_else(Problem::not_found)
}

/// Addresses match only in the form in which they are stored.
pub(super) fn by_id_or_address(link: Link, tables: &Tables, upstream: Uuid, segment: &str) -> Option<Uuid> {
    if crate::entity::validate::is_uuid(segment) {
        let id = Uuid::try_parse(segment).ok()?;
        return (crud::linked(link, tables, id) == Some(upstream)).then_some(id);
    }
    let key = [(link.field, crud::reference(upstream)), (link.child.path_key, segment.into())];
    let row: Map<String, Value> = key.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
    tables.find_together(link.child, 0, &row)
}

/// A malformed address is reported before and instead of everything else, without repeating it.
fn check_address(fields: &Map<String, Value>) -> Result<(), Problem> {
    match fields.get("target") {
        Some(Value::String(text)) if target::normal_form(text).is_none() => {
            let text = "Invalid target; not a valid hostname or ip address";
            Err(Problem::Schema(Violations::of("target", text)))
        }
        _ => Ok(()),
    }
}
