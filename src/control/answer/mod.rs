//! Answers to the questions of plugins.
//! Owns: the desk that takes questions of all cores; one module per kind of server that is asked.
//! Never: takes more than [`crate::limits::QUESTIONS_UNDER_WAY_MAX`] at a time.
//! Always: what is taken is answered, or has failed when the asker's patience ends; a core that asks never waits.

mod ldap;
mod redis;
mod rows;
mod syncing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc;

use crate::control::answer::ldap::Ldap;
use crate::control::answer::redis::Redis;
use crate::control::answer::rows::Rows;
use crate::control::publish::CoreEnd;
use crate::control::publish::Publisher;
use crate::control::reach::Reach;
use crate::control::store::Store;
use crate::entity::oauth2::is_secret_of;
use crate::limits;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::state::mailbox::Asked;
use crate::state::mailbox::Post;

/// Who answers.
pub struct Desk {
    cores: Arc<Vec<CoreEnd>>,
    redis: Arc<Redis>,
    ldap: Arc<Ldap>,
    rows: Rows,
    /// For each secret that may be looked at.
    verifying: Semaphore,
}

impl Desk {
    /// Opens the desk; what it returns takes a question, or says `false`. Must be called inside the control runtime.
    pub fn open(store: Arc<Store<Publisher>>, reach: Arc<Reach>) -> Arc<dyn Fn(Asked) -> bool + Send + Sync> {
        let (redis, ldap) = (Arc::new(Redis::new(reach.clone())), Arc::new(Ldap::new(reach)));
        let (cores, rows) = (store.publisher().cores().clone(), Rows::new(store));
        let verifying = Semaphore::new(limits::SECRETS_VERIFIED_AT_ONCE);
        let desk = Arc::new(Self { cores, redis, ldap, rows, verifying });
        let (taken, arriving) = mpsc::channel(limits::QUESTIONS_UNDER_WAY_MAX);
        tokio::spawn(desk.serve(arriving));
        Arc::new(move |asked| taken.try_send(asked).is_ok())
    }

    async fn serve(self: Arc<Self>, mut arriving: mpsc::Receiver<Asked>) {
        let turns = Arc::new(Semaphore::new(limits::QUESTIONS_UNDER_WAY_MAX));
        while let Some(asked) = arriving.recv().await {
            let turn = turns.clone().acquire_owned().await;
            let desk = self.clone();
            tokio::spawn(async move {
                desk.answer(asked).await;
                drop(turn);
            });
        }
    }

    async fn answer(&self, asked: Asked) {
        let Asked { core, ticket, question, patience_ms } = asked;
        let patience = Duration::from_millis(patience_ms);
        let answer = tokio::time::timeout(patience, self.find_answer(question)).await;
        let answer = answer.unwrap_or_else(|_| Answer::Failed("no answer in time".into()));
        if let Some(ticket) = ticket
            && let Some(end) = self.cores.get(core)
        {
            end.sender.post(Post::Answer(ticket, answer));
        }
    }

    async fn find_answer(&self, question: Question) -> Answer {
        match question {
            Question::Count(counting) => match self.redis.count(&counting.server, &counting.counters).await {
                Ok(counts) => Answer::Counted(counts),
                Err(why) => Answer::Failed(why),
            },
            Question::Write(rows) => self.rows.write(rows).await,
            Question::Verify { hash, secret } => {
                let _turn = self.verifying.acquire().await;
                let verify = tokio::task::spawn_blocking(move || is_secret_of(&hash, secret.expose()));
                verify.await.map_or_else(|error| Answer::Failed(error.to_string().into()), Answer::Proved)
            }
            Question::Synchronise(counters) => {
                syncing::begin(counters, self.redis.clone());
                Answer::Done
            }
            Question::Bind(bind) => match self.ldap.bind(&bind).await {
                Ok(is_good) => Answer::Proved(is_good),
                Err(why) => Answer::Failed(why),
            },
            Question::Note(text) => {
                tracing::info!("{text}");
                Answer::Done
            }
        }
    }
}
