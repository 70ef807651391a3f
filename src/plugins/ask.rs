//! Questions of plugins to the world outside, and the answers.
//! Owns: the vocabulary; who asks is a plugin, who answers is on the control plane. Never: does I/O.
//! Always: every question is answered or fails after the asker's patience; an answer is plain data.

use std::sync::Arc;

use crate::plugins::ldap::LdapBind;
use crate::plugins::redis::RedisCounting;
use crate::plugins::rows::RowWrite;
use crate::plugins::syncing::Syncing;
use crate::stdx::secret::Hidden;

/// What a plugin wants to know or to have done. A new one is a variant and an answerer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Counts in Redis; [`Answer::Counted`].
    Count(RedisCounting),
    /// Brings counters together with those in Redis from now on; [`Answer::Done`].
    Synchronise(Arc<Syncing>),
    /// Asks an LDAP server whether name and password belong together; [`Answer::Proved`].
    Bind(LdapBind),
    /// Whether that is the secret that was hashed, which takes long by design; [`Answer::Proved`].
    Verify { hash: Box<str>, secret: Hidden },
    /// Writes rows, all or none; [`Answer::Done`] when every core knows them, or [`Answer::Gone`].
    Write(Vec<RowWrite>),
    /// Writes a line to the log of the node; [`Answer::Done`].
    Note(Box<str>),
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The counters as they stand now, in the order asked.
    Counted(Vec<i64>),
    /// Whether what was shown is what it has to be.
    Proved(bool),
    /// What was to be taken is there no more.
    Gone,
    Done,
    /// Nobody could answer, or not in time; the reason, for the log.
    Failed(Arc<str>),
}

/// A question on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub question: Question,
    /// How long the request waits.
    pub patience_ms: u64,
}
