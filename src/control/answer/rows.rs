//! Rows that plugins write (spec/plugins.md B.6, B.8).
//! Owns: that they go the way of every write: durable and served by every core before the answer. That writing fails, and
//! that it works again, is logged once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::publish::Publisher;
use crate::control::store::Store;
use crate::control::store::WriteError;
use crate::control::store::transaction::Transaction;
use crate::entity::Entity;
use crate::entity::complete::Moment;
use crate::plugins::ask::Answer;
use crate::plugins::rows::RowWrite;

/// Who writes.
pub struct Rows {
    store: Arc<Store<Publisher>>,
    fails: AtomicBool,
}

/// Why a transaction does nothing.
enum Refused {
    /// What it takes is not there.
    Gone,
    Wrong(String),
}

impl Rows {
    /// Into this store.
    pub fn new(store: Arc<Store<Publisher>>) -> Self {
        Self { store, fails: AtomicBool::new(false) }
    }

    /// Does all of it, or nothing.
    pub async fn write(&self, writes: Vec<RowWrite>) -> Answer {
        let work = |tx: &mut Transaction| writes.into_iter().try_for_each(|write| apply(tx, write));
        let why = match self.store.write(work).await {
            Ok(_) => {
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!("rows of plugins are written again");
                }
                return Answer::Done;
            }
            Err(WriteError::Refused(Refused::Gone)) => return Answer::Gone,
            Err(WriteError::Refused(Refused::Wrong(why)) | WriteError::Unsaved(why)) => why,
            Err(WriteError::Uncompilable(refusals)) => refusals.iter().map(|refusal| &*refusal.message).collect(),
        };
        if !self.fails.swap(true, Ordering::Relaxed) {
            tracing::error!("rows of plugins cannot be written: {why}");
        }
        Answer::Failed(why.into())
    }
}

fn apply(tx: &mut Transaction, write: RowWrite) -> Result<(), Refused> {
    let find = |name| crate::entity::find(name).ok_or_else(|| Refused::Wrong(format!("there are no {name}")));
    match write {
        RowWrite::Insert { entity, fields, ttl_s } => {
            let entity = find(entity)?;
            let moment = Moment { now_ms: tx.tables.now_ms };
            let row = entity.create(fields, moment, &|_| None).map_err(|found| Refused::Wrong(found.message()))?;
            let id = row.get("id").and_then(|id| id.as_str()?.parse().ok());
            let id = id.ok_or_else(|| Refused::Wrong(format!("a row of {} has no id", entity.name)))?;
            tx.insert(entity, id, row, expiry(tx, ttl_s)).map_err(conflict)
        }
        RowWrite::Take { entity, id } => match tx.delete(find(entity)?, id).map_err(conflict)? {
            true => Ok(()),
            false => Err(Refused::Gone),
        },
        RowWrite::Delete { entity, id } => tx.delete(find(entity)?, id).map(drop).map_err(conflict),
        RowWrite::Expire { entity, id, ttl_s } => {
            let entity: &'static Entity = find(entity)?;
            let Some(entry) = tx.tables.get(entity, id) else { return Ok(()) };
            tx.put(entity, id, entry.row(), expiry(tx, ttl_s)).map_err(conflict)
        }
    }
}

fn expiry(tx: &Transaction, ttl_s: u64) -> Option<u64> {
    let after = Duration::from_secs(ttl_s).as_millis() as u64;
    (ttl_s > 0).then(|| tx.tables.now_ms.saturating_add(after))
}

fn conflict(conflict: impl std::fmt::Debug) -> Refused {
    Refused::Wrong(format!("{conflict:?}"))
}
