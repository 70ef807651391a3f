//! What a request asks of the rows of one entity, and the refusal of it on a node whose rows come from whole documents
//! (spec/admin-api.md section 8).
//! Always: what is wrong with a request is said before it is refused for its kind.

use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::rows::Name;
use crate::control::store::Publish;
use crate::control::store::Store;
use crate::control::store::transaction::Transaction;
use crate::entity::Entity;

/// One kind of change to a row.
#[derive(Clone, Copy, Debug)]
pub struct Deed {
    verb: &'static str,
    entity: &'static Entity,
    /// The field that names the row, if it is not the id.
    by: Option<&'static str>,
}

impl Deed {
    pub fn create(entity: &'static Entity) -> Deed {
        Deed { verb: "create", entity, by: None }
    }

    pub fn update(entity: &'static Entity, name: &Name) -> Deed {
        Deed { verb: "update", entity, by: key_of(entity, name) }
    }

    pub fn replace(entity: &'static Entity, name: &Name) -> Deed {
        Deed { verb: "create or update", entity, by: key_of(entity, name) }
    }

    pub fn remove(entity: &'static Entity, name: &Name) -> Deed {
        Deed { verb: "remove", entity, by: key_of(entity, name) }
    }

    fn text(self) -> String {
        let by = self.by.map(|field| format!(" by '{field}'")).unwrap_or_default();
        format!("cannot {} '{}' entities{by} when not using a database", self.verb, self.entity.name)
    }

    /// Judges the work and refuses it, unless it would have changed nothing.
    ///
    /// # Errors
    /// What is wrong with the request, or that rows are not changed one by one here. Conflicts with other rows are not
    /// looked for: only a database would notice them.
    pub fn refuse<P: Publish>(
        self,
        store: &Store<P>,
        work: impl FnOnce(&mut Transaction) -> Result<Option<String>, Problem>,
    ) -> Result<Reply, Problem> {
        match store.judge(work) {
            Ok((None, false)) => Ok(Reply::empty()),
            Ok(_) | Err(Problem::Conflict(_)) => Err(Problem::Unsupported(self.text())),
            Err(problem) => Err(problem),
        }
    }
}

/// A row that another entity's key names was looked up by that, and is then changed by its id.
fn key_of(entity: &Entity, name: &Name) -> Option<&'static str> {
    (matches!(name, Name::Key(_)) && entity.named_by.is_none()).then_some(entity.path_key)
}
