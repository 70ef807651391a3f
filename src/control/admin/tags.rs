//! The tags of all rows (spec/admin-api.md section 7.7).

use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::crud;
use crate::control::admin::page;
use crate::control::admin::page::Wanted;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::store::Publish;
use crate::control::store::tables::Tagged;
use crate::entity::validators;
use crate::entity::violation::Violations;
use hyper::Method;
use hyper::StatusCode;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

impl<P: Publish> Admin<P> {
    pub(super) fn tags(&self, call: &Call) -> Result<Reply, Problem> {
        let wanted_tag = match call.found.variables.first() {
            None => None,
            Some(_) => Some(tag(call)?),
        };
        match call.method {
            Method::GET => {}
            Method::DELETE => return Ok(Reply::empty()),
            _ => {
                let text = "does not support insert/upsert/update/delete operations";
                return Err(Problem::Schema(Violations::of("tags", text)));
            }
        }
        let wanted = Wanted::read(&call.query, false)?;
        let after = match &wanted.after {
            None => None,
            Some(parts) => Some(position(parts).ok_or_else(|| page::foreign_token(&call.query))?),
        };
        let found = self.store.view().tagged(after.as_ref(), wanted_tag.as_deref(), wanted.size);
        let next = found.rows.last().filter(|_| found.more).map(|last| {
            let token = page::token(&json!([last.id.to_string(), last.entity, *last.tag]));
            let path = match call.found.variables.first() {
                None => wanted.next("/tags", &token),
                Some(variable) => page::nested_next(&format!("/tags/{}", variable.raw), &token),
            };
            (path, token)
        });
        let show = |row: &Tagged| {
            json!({ "tag": *row.tag, "entity_name": row.entity, "entity_id": row.id.to_string() }).to_string()
        };
        let rows: Vec<String> = found.rows.iter().map(show).collect();
        Ok(Reply::rendered(StatusCode::OK, page::body(&rows, next)))
    }
}

fn tag(call: &Call) -> Result<String, Problem> {
    let bad = |text| Problem::BadKey { field: "tag".to_string(), text };
    let decoded = crud::variable(call, 0)?.decoded.clone();
    let tag = decoded.map_err(|at| bad(format!("invalid utf-8 character sequence detected at position {at}")))?;
    validators::tag(&tag).map_err(bad)?;
    Ok(tag)
}

/// Where the last page ended.
fn position(parts: &[Value]) -> Option<Tagged> {
    let [id, entity, tag] = parts else {
        return None;
    };
    let id = Uuid::try_parse(id.as_str()?).ok()?;
    let entity = crate::entity::find(entity.as_str()?)?.name;
    Some(Tagged { id, entity, tag: Arc::from(tag.as_str()?) })
}
