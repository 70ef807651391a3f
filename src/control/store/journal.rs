//! The rows on disk: one SQLite file, written before a change is answered, read once at start.
//! Owns: the file, its schema and migrations, the log of changes. Never: answers a query while the gateway runs.
//! Always: a commit is on stable storage when it returns (WAL, `synchronous=FULL`) and applies whole or not at all.

use crate::limits::CHANGE_LOG_VERSIONS_MAX;
use sqlx::ConnectOptions;
use sqlx::Connection;
use sqlx::QueryBuilder;
use sqlx::Row;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::sqlite::SqliteJournalMode;
use sqlx::sqlite::SqliteLockingMode;
use sqlx::sqlite::SqliteSynchronous;
use std::fmt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The open store file.
pub struct Journal {
    connection: SqliteConnection,
    path: PathBuf,
}

/// One row as it stands in the file.
pub struct StoredRow {
    pub kind: String,
    pub id: Uuid,
    pub body: String,
    pub expires_at_ms: Option<u64>,
}

/// One change to be written.
pub struct Change {
    pub kind: &'static str,
    pub id: Uuid,
    /// `None`: the row is deleted.
    pub body: Option<Arc<str>>,
    pub expires_at_ms: Option<u64>,
}

/// Why the store cannot be opened, and what to do about it.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub reason: String,
    pub advice: &'static str,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use the configuration store {}: {}; {}", self.path.display(), self.reason, self.advice)
    }
}

impl std::error::Error for OpenError {}

const CORRUPT_ADVICE: &str =
    "restore the file from a backup, or move it away together with its -wal file to start with an empty configuration";
const LOCKED_ADVICE: &str = "another process has it open: stop that one, or set another database_path";
const ACCESS_ADVICE: &str =
    "see that its directory exists and that both are writable for the user that runs ringway, or set database_path";

/// SQLite takes 32,766 values in one statement; a row has five.
const ROWS_PER_STATEMENT: usize = 500;

/// Each entry brings the file from the version that is its index to the next one.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE entities (
        kind TEXT NOT NULL, id BLOB NOT NULL, body TEXT NOT NULL, version INTEGER NOT NULL, expires_at_ms INTEGER,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
    CREATE TABLE changes (
        version INTEGER NOT NULL, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, id BLOB NOT NULL, what TEXT NOT NULL
    );
    CREATE INDEX changes_by_version ON changes (version);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('version', 0);
"];

impl Journal {
    /// Opens or creates the file, brings its schema up to date, reads everything.
    ///
    /// # Errors
    /// A file that is unreadable, unwritable, corrupt, in use, or written by a newer ringway, with advice.
    pub async fn open(path: &Path) -> Result<(Journal, u64, Vec<StoredRow>), OpenError> {
        let refuse = |error: sqlx::Error| explain(path, &error);
        create_private(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            // One gateway per file: the truth is in its memory, a second writer would go unseen.
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(1));
        let connection = options.connect().await.map_err(refuse)?;
        let mut journal = Journal { connection, path: path.to_path_buf() };
        journal.check().await?;
        journal.migrate().await?;
        let version = journal.version().await.map_err(refuse)?;
        let rows = journal.rows().await.map_err(refuse)?;
        Ok((journal, version, rows))
    }

    async fn check(&mut self) -> Result<(), OpenError> {
        let found = sqlx::query("PRAGMA quick_check(1)").fetch_one(&mut self.connection).await;
        let found: String = found.and_then(|row| row.try_get(0)).map_err(|error| explain(&self.path, &error))?;
        if found == "ok" {
            return Ok(());
        }
        Err(OpenError { path: self.path.clone(), reason: format!("it is corrupt ({found})"), advice: CORRUPT_ADVICE })
    }

    async fn migrate(&mut self) -> Result<(), OpenError> {
        let path = self.path.clone();
        let refuse = |error: sqlx::Error| explain(&path, &error);
        let row = sqlx::query("PRAGMA user_version").fetch_one(&mut self.connection).await.map_err(refuse)?;
        let from: i64 = row.try_get(0).map_err(refuse)?;
        let Some(due) = usize::try_from(from).ok().and_then(|from| MIGRATIONS.get(from..)) else {
            return Err(OpenError {
                path: self.path.clone(),
                reason: format!("its format {from} is newer than this version of ringway knows"),
                advice: "start the version that wrote it, or set another database_path",
            });
        };
        // Even with nothing to do the transaction writes, so that a read-only file is noticed now.
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(refuse)?;
        for migration in due {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(refuse)?;
        }
        const {
            assert!(MIGRATIONS.len() == 1, "the statement below names the number of migrations");
        }
        sqlx::raw_sql("PRAGMA user_version = 1; UPDATE meta SET value = value WHERE name = 'version'")
            .execute(&mut *transaction)
            .await
            .map_err(refuse)?;
        transaction.commit().await.map_err(refuse)
    }

    /// The version of the last change.
    async fn version(&mut self) -> Result<u64, sqlx::Error> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'version'").fetch_one(&mut self.connection).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    async fn rows(&mut self) -> Result<Vec<StoredRow>, sqlx::Error> {
        let query = sqlx::query("SELECT kind, id, body, expires_at_ms FROM entities");
        let mut rows = Vec::new();
        for row in query.fetch_all(&mut self.connection).await? {
            let id: Vec<u8> = row.try_get(1)?;
            let id = Uuid::from_slice(&id).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let expires_at_ms: Option<i64> = row.try_get(3)?;
            rows.push(StoredRow {
                kind: row.try_get(0)?,
                id,
                body: row.try_get(2)?,
                expires_at_ms: expires_at_ms.map(i64::unsigned_abs),
            });
        }
        Ok(rows)
    }

    /// Writes the changes of one version; on success they are on stable storage.
    ///
    /// # Errors
    /// The text of what failed; then nothing of the changes is stored.
    pub async fn commit(&mut self, version: u64, at_ms: u64, changes: &[Change]) -> Result<(), String> {
        let Err(error) = self.try_commit(version, at_ms, changes).await else {
            return Ok(());
        };
        // A COMMIT that reports an error may still have reached the disk; the file knows.
        match self.version().await {
            Ok(stored) if stored == version => Ok(()),
            _ => Err(error.to_string()),
        }
    }

    async fn try_commit(&mut self, version: u64, at_ms: u64, changes: &[Change]) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        // Many rows to a statement: each one costs a turn of the thread that runs SQLite.
        for some in changes.chunks(ROWS_PER_STATEMENT) {
            let (put, deleted): (Vec<&Change>, Vec<&Change>) = some.iter().partition(|change| change.body.is_some());
            if !put.is_empty() {
                let mut statement = QueryBuilder::new("INSERT INTO entities (kind, id, body, version, expires_at_ms) ");
                statement.push_values(put, |mut row, change| {
                    row.push_bind(change.kind)
                        .push_bind(change.id.as_bytes().as_slice())
                        .push_bind(change.body.as_deref())
                        .push_bind(version.cast_signed())
                        .push_bind(change.expires_at_ms.map(u64::cast_signed));
                });
                statement.push(
                    " ON CONFLICT (kind, id) DO UPDATE \
                     SET body = excluded.body, version = excluded.version, expires_at_ms = excluded.expires_at_ms",
                );
                statement.build().execute(&mut *transaction).await?;
            }
            if !deleted.is_empty() {
                let mut statement = QueryBuilder::new("DELETE FROM entities WHERE (kind, id) IN (");
                statement.push_values(deleted, |mut row, change| {
                    row.push_bind(change.kind).push_bind(change.id.as_bytes().as_slice());
                });
                statement.push(")").build().execute(&mut *transaction).await?;
            }
            let mut statement = QueryBuilder::new("INSERT INTO changes (version, at_ms, kind, id, what) ");
            statement.push_values(some, |mut row, change| {
                row.push_bind(version.cast_signed())
                    .push_bind(at_ms.cast_signed())
                    .push_bind(change.kind)
                    .push_bind(change.id.as_bytes().as_slice())
                    .push_bind(if change.body.is_some() { "put" } else { "delete" });
            });
            statement.build().execute(&mut *transaction).await?;
        }
        sqlx::query("DELETE FROM changes WHERE version <= ?1")
            .bind(version.saturating_sub(CHANGE_LOG_VERSIONS_MAX).cast_signed())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE meta SET value = ?1 WHERE name = 'version'")
            .bind(version.cast_signed())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Closes the file in order, folding the write-ahead log into it.
    pub async fn close(self) {
        // Nothing is lost when this fails: the log is read at the next start.
        let _ = self.connection.close().await;
    }
}

/// The file holds credentials: nobody but its owner may read it. SQLite gives its log the same mode.
fn create_private(path: &Path) -> Result<(), OpenError> {
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OpenError { path: path.to_path_buf(), reason: error.to_string(), advice: ACCESS_ADVICE }),
    }
}

fn explain(path: &Path, error: &sqlx::Error) -> OpenError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<u32>().ok());
    // Extended result codes carry the primary code in their low byte.
    let advice = match code.map(|code| code & 0xff) {
        Some(5 | 6) => LOCKED_ADVICE,
        Some(11 | 26) => CORRUPT_ADVICE,
        Some(3 | 8 | 10 | 13 | 14 | 23) => ACCESS_ADVICE,
        _ if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) => CORRUPT_ADVICE,
        _ => ACCESS_ADVICE,
    };
    let reason = match error.as_database_error() {
        Some(error) => error.message().to_string(),
        None => error.to_string(),
    };
    OpenError { path: path.to_path_buf(), reason, advice }
}
