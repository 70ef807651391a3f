//! The truth of one node: rows in memory, journalled to disk, published to the cores.
//! Owns: the order of a write (work, prepare, commit, swap, post, acknowledge) and the version it gets.
//! Never: validates fields or speaks HTTP. Always: a reader takes a view without waiting for a write, and a write
//! that was begun is finished even when whoever asked for it is gone.

mod index;
pub mod journal;
pub mod replace;
pub mod tables;
pub mod transaction;

#[cfg(test)]
mod tests;

use crate::control::store::journal::Change;
use crate::control::store::journal::Journal;
use crate::control::store::journal::OpenError;
use crate::control::store::replace::Declared;
use crate::control::store::tables::Conflict;
use crate::control::store::tables::Tables;
use crate::control::store::transaction::Transaction;
use crate::entity::RowChange;
use crate::state::compile::Refusal;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::RwLock;
use std::time::Duration;
use std::time::SystemTime;
use tokio::sync::Mutex;
use tokio::sync::Notify;

/// Takes accepted changes to the data plane.
pub trait Publish: Send + Sync + 'static {
    type Prepared: Send + 'static;
    type Acks: Send + 'static;

    /// Compiles the changes of one version, without effect.
    ///
    /// # Errors
    /// Every reason why the data plane cannot serve the result; then nothing is stored.
    fn prepare(&self, version: u64, changes: &[RowChange]) -> Result<Self::Prepared, Vec<Refusal>>;

    /// Sends to every core, before it returns. Called in order of version, after the change is durable.
    fn post(&self, prepared: Self::Prepared) -> Self::Acks;

    /// Waits until every core has applied the change, within bounds of time.
    fn wait(acks: Self::Acks) -> impl Future<Output = Applied> + Send;
}

/// How far a change has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    pub version: u64,
    /// Cores that have not said in time that they serve it.
    pub late: Vec<usize>,
}

/// An opened store, before there is anybody to publish to.
pub struct Opened {
    tables: Tables,
    keeping: Keeping,
}

/// What a change is written to before it counts.
enum Keeping {
    File(Journal),
    /// Nothing: the rows come from a document that is loaded whole.
    Memory,
    Closed,
}

/// Everything the control plane knows.
pub struct Store<P: Publish> {
    current: RwLock<Tables>,
    /// Held by the write in progress.
    keeping: Arc<Mutex<Keeping>>,
    in_memory: bool,
    publisher: P,
    /// Rung when a row with an expiry has been written.
    expiry: Notify,
}

/// A write that is durable and was posted.
#[derive(Debug)]
pub struct Written<T> {
    pub value: T,
    pub applied: Applied,
}

/// Why nothing was written.
#[derive(Debug)]
pub enum WriteError<E> {
    /// The work itself refused.
    Refused(E),
    /// The data plane cannot serve it.
    Uncompilable(Vec<Refusal>),
    /// The disk did not take it.
    Unsaved(String),
}

impl Opened {
    /// Opens the store file and reads every row.
    ///
    /// # Errors
    /// See [`OpenError`]; its text says what to do.
    pub async fn open(path: &Path) -> Result<Opened, OpenError> {
        let (journal, version, rows) = Journal::open(path).await?;
        let corrupt = |reason: String| OpenError {
            path: path.to_path_buf(),
            reason,
            advice: "it was written by another version of ringway, or damaged: start that version, or restore a backup",
        };
        let mut tables = Tables::new(version);
        for row in rows {
            let entity = crate::entity::find(&row.kind)
                .ok_or_else(|| corrupt(format!("it has rows of the unknown kind '{}'", row.kind)))?;
            let body = serde_json::from_str(&row.body)
                .map_err(|error| corrupt(format!("row {} of {} is not JSON ({error})", row.id, row.kind)))?;
            tables.put(entity, row.id, &body, row.expires_at_ms);
        }
        Ok(Opened { tables, keeping: Keeping::File(journal) })
    }

    /// A store that keeps nothing, with these rows to begin with.
    ///
    /// # Errors
    /// Two rows share an id or a unique value, or a reference dangles.
    pub fn in_memory(rows: Vec<Declared>) -> Result<Opened, Conflict> {
        let mut tables = Tables::new(0);
        tables.now_ms = unix_now_ms();
        let mut transaction = Transaction::begin(tables);
        transaction.replace_all(rows)?;
        Ok(Opened { tables: transaction.tables, keeping: Keeping::Memory })
    }

    /// All rows as they are.
    #[cfg(any(test, fuzzing))]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.tables.version
    }

    /// Every row, parents before children, for the initial compile.
    pub fn rows(&self) -> impl Iterator<Item = RowChange> {
        let rows = self.tables.all();
        rows.map(|(entity, id, entry)| RowChange {
            entity: entity.name,
            id,
            row: None,
            text: Some(entry.body.clone()),
            expires_at_ms: entry.expires_at_ms,
        })
    }

    /// Opens for writing: from now on every change goes to the publisher.
    pub fn into_store<P: Publish>(self, publisher: P) -> Arc<Store<P>> {
        Arc::new(Store {
            current: RwLock::new(self.tables),
            in_memory: matches!(self.keeping, Keeping::Memory),
            keeping: Arc::new(Mutex::new(self.keeping)),
            publisher,
            expiry: Notify::new(),
        })
    }
}

impl<P: Publish> Store<P> {
    /// All rows as they are now. Never waits for a write in progress.
    pub fn view(&self) -> Tables {
        let mut tables = self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        tables.now_ms = unix_now_ms();
        tables
    }

    pub fn publisher(&self) -> &P {
        &self.publisher
    }

    /// Whether rows are in memory alone and come from whole documents: then single rows are not changed.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Does `work` without any effect; says whether it would have changed something.
    ///
    /// # Errors
    /// What the work itself refuses.
    pub fn judge<T, E>(&self, work: impl FnOnce(&mut Transaction) -> Result<T, E>) -> Result<(T, bool), E> {
        let mut transaction = Transaction::begin(self.view());
        let before = transaction.touched();
        let value = work(&mut transaction)?;
        Ok((value, transaction.touched() > before))
    }

    /// Does `work` in a transaction: whole or not at all. Returns when the change is durable and every core has
    /// applied it or is late.
    ///
    /// # Errors
    /// See [`WriteError`]; then nothing has changed.
    pub async fn write<T, E>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<Written<T>, WriteError<E>> {
        let keeping = self.keeping.clone().lock_owned().await;
        let mut transaction = Transaction::begin(self.view());
        let value = work(&mut transaction).map_err(WriteError::Refused)?;
        let (mut tables, changes) = transaction.finish();
        if changes.is_empty() {
            return Ok(Written { value, applied: Applied { version: tables.version, late: Vec::new() } });
        }
        tables.version += 1;
        let prepared = self.publisher.prepare(tables.version, &changes).map_err(WriteError::Uncompilable)?;
        // On its own task: from here on memory, disk and cores must agree, whether or not the asker still waits.
        let store = self.clone();
        let finished = tokio::spawn(async move { store.finish(keeping, tables, changes, prepared).await });
        let acks = match finished.await {
            Ok(outcome) => outcome.map_err(WriteError::Unsaved)?,
            Err(error) => return Err(WriteError::Unsaved(error.to_string())),
        };
        Ok(Written { value, applied: P::wait(acks).await })
    }

    /// Does `work` as `write` does, up to the point where something would change, and undoes it.
    ///
    /// # Errors
    /// Those of the same write.
    pub async fn rehearse<T, E>(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, WriteError<E>> {
        let _writes_wait = self.keeping.lock().await;
        let mut transaction = Transaction::begin(self.view());
        let value = work(&mut transaction).map_err(WriteError::Refused)?;
        let (tables, changes) = transaction.finish();
        self.publisher.prepare(tables.version + 1, &changes).map_err(WriteError::Uncompilable)?;
        Ok(value)
    }

    async fn finish(
        &self,
        mut keeping: tokio::sync::OwnedMutexGuard<Keeping>,
        tables: Tables,
        changes: Vec<RowChange>,
        prepared: P::Prepared,
    ) -> Result<P::Acks, String> {
        match &mut *keeping {
            Keeping::File(journal) => {
                let stored: Vec<Change> = changes.iter().map(|change| stored_change(&tables, change)).collect();
                journal.commit(tables.version, tables.now_ms, &stored).await?;
            }
            Keeping::Memory => {}
            Keeping::Closed => return Err("the store is closed".to_string()),
        }
        let expiring = changes.iter().any(|change| change.expires_at_ms.is_some());
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = tables;
        let acks = self.publisher.post(prepared);
        drop(keeping);
        if expiring {
            self.expiry.notify_one();
        }
        Ok(acks)
    }

    /// Deletes rows as their time comes; runs until dropped.
    pub async fn purge(self: Arc<Self>) {
        loop {
            let due = self.view();
            match due.next_expiry_ms() {
                None => self.expiry.notified().await,
                Some(at_ms) if at_ms > due.now_ms => {
                    let sleep = tokio::time::sleep(Duration::from_millis(at_ms - due.now_ms));
                    tokio::select! {
                        () = sleep => {}
                        () = self.expiry.notified() => {}
                    }
                }
                Some(_) => {
                    // Every transaction begins by deleting what has expired.
                    let purged = self.write(|_| Ok::<(), std::convert::Infallible>(())).await;
                    if let Err(error) = purged {
                        tracing::error!("expired rows could not be deleted: {error:?}");
                        tokio::time::sleep(PURGE_RETRY).await;
                    }
                }
            }
        }
    }

    /// Waits for the write in progress and closes the file; later writes fail.
    pub async fn close(&self) {
        let keeping = std::mem::replace(&mut *self.keeping.lock().await, Keeping::Closed);
        if let Keeping::File(journal) = keeping {
            journal.close().await;
        }
    }
}

const PURGE_RETRY: Duration = Duration::from_secs(1);

fn stored_change(tables: &Tables, change: &RowChange) -> Change {
    let entity = crate::entity::find(change.entity);
    let entry = entity.filter(|_| change.row.is_some()).and_then(|entity| tables.get(entity, change.id));
    let (body, expires_at_ms) = entry.map_or((None, None), |entry| (Some(entry.body.clone()), entry.expires_at_ms));
    Change { kind: change.entity, id: change.id, body, expires_at_ms }
}

/// Unix time in milliseconds.
pub fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_millis() as u64)
}
