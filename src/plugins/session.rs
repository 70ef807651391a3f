//! HOT: a session is opened in the memory of the exchange; without a cookie nothing happens.
//! session: who has proved once who it is need not do so again for a while (spec/plugins.md B.8, A.6).
//! Never: sends a cookie to somebody who has proved nothing. Always: a session that is kept here is durable before the
//! client gets its cookie.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::http::fields::Fields;
use crate::http::known::Known;
use crate::limits;
use crate::plugins::ConfigError;
use crate::plugins::Plugin;
use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::ask::Question;
use crate::plugins::authenticate::identify;
use crate::plugins::body::Format;
use crate::plugins::directory::Directory;
use crate::plugins::directory::Groups;
use crate::plugins::query;
use crate::plugins::query::Found;
use crate::plugins::rows::RowWrite;
use crate::plugins::seal::Sealer;
use crate::plugins::seal::random;
use crate::plugins::session_config::Config;
use crate::plugins::session_config::Kept;
use crate::plugins::session_config::Shown;
use crate::plugins::session_state::Course;
use crate::plugins::session_state::Due;
use crate::plugins::session_state::Id;
use crate::plugins::session_state::Who;
use crate::plugins::view::Identity;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;

/// What access leaves to the head of the response, in the first number of the notes; the session itself is in the bytes.
const NONE: u64 = 0;
const KEEP: u64 = 1;
const TOUCH: u64 = 2;
const ROLL: u64 = 3;
/// A new session after one that was only remembered.
const RENEW: u64 = 4;
/// The client is to forget its session.
const FORGET: u64 = 5;

struct Session {
    sealer: Sealer,
    config: Config,
}

pub(super) fn build(config: &Map<String, Value>) -> Result<Box<dyn Plugin>, ConfigError> {
    let (secret, config) = Config::of(config)?;
    Ok(Box::new(Session { sealer: Sealer::new(secret.expose()), config }))
}

impl Plugin for Session {
    fn access(&self, view: &mut View<'_>) -> Verdict {
        let mut room = std::mem::take(&mut view.notes.bytes);
        let step = self.open(view, &mut room);
        view.notes.bytes = room;
        view.notes.numbers[0] = step;
        if step == NONE {
            return Verdict::Continue;
        }
        if self.is_logout(view) {
            return self.log_out(view);
        }
        let Some((course, who)) = read(&view.notes.bytes) else { return Verdict::Continue };
        let Some(consumer) = view.directory.consumer(who.consumer) else {
            view.notes.numbers[0] = FORGET;
            return Verdict::Continue;
        };
        let groups = groups_of(who.groups);
        let who = Who { consumer: who.consumer, credential: who.credential, groups: "" };
        identify(view, Some(consumer), Some((who.credential, consumer.username.as_deref())));
        if consumer.username.is_none() {
            view.fields.remove(Known::XCredentialIdentifier);
        }
        match &groups {
            Some(groups) => view.fields.set(Known::XAuthenticatedGroups, groups.text.as_bytes()),
            None => drop(view.fields.remove(Known::XAuthenticatedGroups)),
        }
        view.identity.groups = groups;
        self.show(view.fields, &self.config.request_headers, &course, &who, view.now_unix_ms / 1000);
        Verdict::Continue
    }

    /// After a logout has been written down, or could not be: the client forgets its session in any case.
    fn answered(&self, view: &mut View<'_>, _answer: Answer) -> Verdict {
        view.reply.empty(200);
        Verdict::Reply
    }

    fn response_head(&self, view: &mut ResponseView<'_>) {
        let step = view.notes.numbers[0];
        let (Some(consumer), Some(credential)) = (view.identity.consumer, view.identity.credential) else {
            if step == FORGET {
                self.cookies().for_each(|kept| kept.cookie.forget(view.fields));
            }
            return;
        };
        let now_s = view.now_unix_ms / 1000;
        let found = read(&view.notes.bytes).filter(|_| step != NONE && step != FORGET);
        let found = found.filter(|(_, who)| (who.consumer, who.credential) == (consumer, credential));
        let names = names_of(view.identity);
        let who = Who { consumer, credential, groups: &names };
        let course = match found {
            Some((course, _)) if step == KEEP => course,
            Some((course, _)) if step == TOUCH => Course { used_s: now_s, ..course },
            Some((course, _)) if step == ROLL => Course { id: random(), rolled_s: now_s, used_s: now_s, ..course },
            _ => Course::new(random(), now_s),
        };
        let mut writes = Vec::new();
        let own = &self.config.own;
        match (step, found) {
            (KEEP, Some(_)) => {}
            (TOUCH, Some(_)) => {
                self.set(view.fields, own, &course, &who, now_s, None);
                if let Some(id) = self.row_of(view.directory, &course.id, view.now_unix_ms) {
                    let ttl_s = course.left_s(&own.timeouts, now_s).unwrap_or(0);
                    writes.push(RowWrite::Expire { entity: "sessions", id, ttl_s });
                }
            }
            (ROLL, Some((old, _))) => {
                self.set(view.fields, own, &course, &who, now_s, Some(&mut writes));
                if let Some(id) = self.row_of(view.directory, &old.id, view.now_unix_ms) {
                    writes.push(RowWrite::Expire { entity: "sessions", id, ttl_s: self.config.stale_ttl_s.max(1) });
                }
            }
            _ => {
                self.set(view.fields, own, &course, &who, now_s, Some(&mut writes));
                if let Some(remembered) = &self.config.remembered {
                    // Who comes back is remembered from the first time on.
                    let created_s = found.map_or(now_s, |(old, _)| old.created_s);
                    let course = Course { created_s, ..Course::new(random(), now_s) };
                    self.set(view.fields, remembered, &course, &who, now_s, Some(&mut writes));
                }
            }
        }
        self.show(view.fields, &self.config.response_headers, &course, &who, now_s);
        if !writes.is_empty() {
            view.ask_first(Question::Write(writes), limits::SESSION_WRITE_MS);
        }
    }

    fn reads_body(&self) -> bool {
        self.config.logout_post_arg.is_some()
    }
}

/// The session in the notes.
fn read(bytes: &[u8]) -> Option<(Course, Who<'_>)> {
    let (course, rest) = Course::read(bytes)?;
    Some((course, Who::read(rest)?))
}

impl Session {
    fn cookies(&self) -> impl Iterator<Item = &Kept> {
        [Some(&self.config.own), self.config.remembered.as_ref()].into_iter().flatten()
    }

    /// Leaves the session of the request in `room`; says what is to be done with it.
    fn open(&self, view: &View<'_>, room: &mut Vec<u8>) -> u64 {
        let now_s = view.now_unix_ms / 1000;
        let due = self.open_kept(view, &self.config.own, now_s, room);
        match due {
            Some(Due::Nothing) => return KEEP,
            Some(Due::Touch) => return TOUCH,
            Some(Due::Roll) => return ROLL,
            None => {}
        }
        let remembered = self.config.remembered.as_ref();
        match remembered.and_then(|kept| self.open_kept(view, kept, now_s, room)) {
            Some(_) => RENEW,
            None => NONE,
        }
    }

    fn open_kept(&self, view: &View<'_>, kept: &Kept, now_s: u64, room: &mut Vec<u8>) -> Option<Due> {
        let text = kept.cookie.find(view.fields, view.source)?;
        self.sealer.open(&kept.purpose, text, room)?;
        let (course, rest) = Course::read(room)?;
        let due = course.due(&kept.timeouts, now_s)?;
        if self.config.keeps_rows {
            let row = view.directory.sessions.find(key_of(&course.id).as_bytes(), view.now_unix_ms)?;
            let mut who = Vec::new();
            self.sealer.open(&course.id, row.secret.as_bytes(), &mut who)?;
            room.extend_from_slice(&who);
        } else {
            Who::read(rest)?;
        }
        Some(due)
    }

    fn is_logout(&self, view: &View<'_>) -> bool {
        let config = &self.config;
        if !config.logout_methods.iter().any(|method| method.as_bytes() == view.method_text) {
            return false;
        }
        let is_there = |found: Found<'_>| found != Found::Nothing;
        if let Some(name) = &config.logout_query_arg
            && is_there(query::find(view.query.get(), name.as_bytes()))
        {
            return true;
        }
        let Some(name) = &config.logout_post_arg else { return false };
        let format = view.fields.get(view.source, Known::ContentType).and_then(Format::of);
        let body = view.body.as_ref().zip(format);
        body.is_some_and(|(body, format)| is_there(format.find(body.get(), name.as_bytes())))
    }

    fn log_out(&self, view: &mut View<'_>) -> Verdict {
        let mut writes = Vec::new();
        if self.config.keeps_rows {
            let mut room = Vec::new();
            for kept in self.cookies() {
                let Some(text) = kept.cookie.find(view.fields, view.source) else { continue };
                let opened = self.sealer.open(&kept.purpose, text, &mut room);
                let Some((course, _)) = opened.and_then(|()| Course::read(&room)) else { continue };
                if let Some(id) = self.row_of(view.directory, &course.id, view.now_unix_ms) {
                    writes.push(RowWrite::Delete { entity: "sessions", id });
                }
            }
        }
        view.notes.numbers[0] = FORGET;
        if writes.is_empty() {
            return self.answered(view, Answer::Done);
        }
        view.ask(Question::Write(writes), limits::SESSION_WRITE_MS)
    }

    /// The row that keeps a session.
    fn row_of(&self, directory: &Directory, id: &Id, now_unix_ms: u64) -> Option<Uuid> {
        let rows = Some(&directory.sessions).filter(|_| self.config.keeps_rows)?;
        rows.find(key_of(id).as_bytes(), now_unix_ms).map(|row| row.id)
    }

    /// Gives the client the cookie of a session; `writes`: its id is new.
    fn set(
        &self,
        fields: &mut Fields,
        kept: &Kept,
        course: &Course,
        who: &Who<'_>,
        now_s: u64,
        writes: Option<&mut Vec<RowWrite>>,
    ) {
        let mut plain = Vec::new();
        course.write(&mut plain);
        if !self.config.keeps_rows {
            who.write(&mut plain);
        }
        let text = self.sealer.seal(&kept.purpose, &plain);
        // Browsers drop what is longer, whole.
        if kept.cookie.name.len() + text.len() > limits::COOKIE_BYTES_MAX {
            return;
        }
        let left_s = course.left_s(&kept.timeouts, now_s);
        kept.cookie.set(fields, &text, left_s.filter(|_| kept.outlives_client));
        if let Some(writes) = writes.filter(|_| self.config.keeps_rows) {
            self.keep(writes, course, who, left_s, now_s);
        }
    }

    /// Adds the rows that keep a session.
    fn keep(&self, writes: &mut Vec<RowWrite>, course: &Course, who: &Who<'_>, left_s: Option<u64>, now_s: u64) {
        let mut plain = Vec::new();
        who.write(&mut plain);
        let ttl_s = left_s.unwrap_or(0);
        let row = Uuid::new_v4().to_string();
        let expires = if ttl_s > 0 { Value::from(now_s + ttl_s) } else { Value::Null };
        writes.push(RowWrite::insert(
            "sessions",
            [
                ("id", json!(row)),
                ("session_id", json!(key_of(&course.id))),
                ("expires", expires),
                ("data", json!(self.sealer.seal(&course.id, &plain))),
            ],
            ttl_s,
        ));
        if self.config.stores_metadata {
            writes.push(RowWrite::insert(
                "session_metadatas",
                [
                    ("session", json!({ "id": row })),
                    ("sid", json!(key_of(&course.id))),
                    ("audience", json!(self.config.audience)),
                    ("subject", json!(self.subject(who))),
                ],
                ttl_s,
            ));
        }
    }

    fn subject(&self, who: &Who<'_>) -> String {
        let subject = who.consumer.to_string();
        match self.config.hashes_subject {
            true => URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, subject.as_bytes())),
            false => subject,
        }
    }

    /// Sets the header fields that tell of a session.
    fn show(&self, fields: &mut Fields, shown: &[Shown], course: &Course, who: &Who<'_>, now_s: u64) {
        let [idling, rolling, absolute] = course.ends(&self.config.own.timeouts);
        let left = |end_s: Option<u64>| end_s.map_or(String::new(), |end_s| end_s.saturating_sub(now_s).to_string());
        for what in shown {
            let value = match what {
                Shown::Id => key_of(&course.id),
                Shown::Audience => self.config.audience.to_string(),
                Shown::Subject => self.subject(who),
                Shown::Timeout => left([idling, rolling, absolute].into_iter().flatten().min()),
                Shown::IdlingTimeout => left(idling),
                Shown::RollingTimeout => left(rolling),
                Shown::AbsoluteTimeout => left(absolute),
            };
            fields.set_by_name(&[], what.header().as_bytes(), value.as_bytes());
        }
    }
}

/// What a session is called where it is kept and shown: who sees that cannot make its cookie.
fn key_of(id: &Id) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, id))
}

fn groups_of(names: &str) -> Option<Arc<Groups>> {
    let names: Vec<Box<str>> = names.lines().map(Box::from).collect();
    (!names.is_empty()).then(|| Arc::new(Groups::new(names)))
}

fn names_of(identity: &Identity) -> String {
    let groups = identity.groups.iter().flat_map(|groups| &groups.names);
    groups.fold(String::new(), |names, name| names + name + "\n")
}
