//! HOT: lookups only borrow.
//! Consumers, their credentials and their groups, as plugins look them up.
//! Owns: persistent maps whose nodes all cores share, so 100,000 consumers cost their memory once and a change costs
//! O(log n) on the control plane and one pointer per core. Never: changed on a data core.
//! Always: cloning a directory is cheap and gives an independent version of it.

use std::sync::Arc;

use ahash::RandomState;
use rpds::HashTrieMapSync;
use uuid::Uuid;

use crate::plugins::grants::App;
use crate::plugins::grants::Code;
use crate::plugins::grants::Tokens;
use crate::plugins::token_key::TokenKey;

/// What plugins see of a consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    pub id: Uuid,
    /// The id as header text.
    pub id_text: Box<str>,
    pub username: Option<Box<str>>,
    pub custom_id: Option<Box<str>>,
}

/// What proves that a request is a consumer's.
#[derive(Debug, PartialEq, Eq)]
pub struct Credential<S> {
    pub id: Uuid,
    /// Nil, if the row names no consumer.
    pub consumer: Uuid,
    /// What the request names it by: the key itself, a username, an issuer.
    pub key: Box<str>,
    /// What the request has to know besides.
    pub secret: S,
    /// Milliseconds since 1970 from which on it is unknown; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// The credentials of one kind, by key.
pub struct Credentials<S> {
    by_key: HashTrieMapSync<Box<str>, Arc<Credential<S>>, RandomState>,
    by_id: HashTrieMapSync<Uuid, Arc<Credential<S>>, RandomState>,
}

/// The groups that someone is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    pub names: Vec<Box<str>>,
    /// The names as header text.
    pub text: Box<str>,
}

impl Groups {
    /// Keeps the order.
    pub fn new(names: Vec<Box<str>>) -> Self {
        let text = names.join(", ").into();
        Self { names, text }
    }

    /// Whether one of the names is among these.
    pub fn any_of(&self, names: &[Box<str>]) -> bool {
        self.names.iter().any(|name| names.contains(name))
    }
}

/// One version of all consumers and credentials.
#[derive(Clone, Default)]
pub struct Directory {
    consumers: HashTrieMapSync<Uuid, Arc<Consumer>, RandomState>,
    by_username: HashTrieMapSync<Box<str>, Uuid, RandomState>,
    /// `keyauth_credentials`.
    pub keys: Credentials<()>,
    /// `basicauth_credentials`, with the stored hash of the password.
    pub passwords: Credentials<Box<str>>,
    /// `hmacauth_credentials`, with the secret that signs.
    pub signers: Credentials<Box<str>>,
    /// `jwt_secrets`.
    pub tokens: Credentials<TokenKey>,
    /// `oauth2_credentials`, by `client_id`.
    pub apps: Credentials<App>,
    /// `oauth2_tokens`.
    pub oauth2_tokens: Tokens,
    /// `oauth2_authorization_codes`.
    pub codes: Credentials<Code>,
    /// `sessions`, with what is known of them; those of nobody yet.
    pub sessions: Credentials<Box<str>>,
    /// By consumer.
    groups: HashTrieMapSync<Uuid, Arc<Groups>, RandomState>,
    /// Rows of `acls` by id: consumer and group.
    memberships: HashTrieMapSync<Uuid, (Uuid, Box<str>), RandomState>,
}

// Derived, these would ask the same of the secrets.
impl<S> Clone for Credentials<S> {
    fn clone(&self) -> Self {
        Self { by_key: self.by_key.clone(), by_id: self.by_id.clone() }
    }
}

impl<S> Default for Credentials<S> {
    fn default() -> Self {
        Self { by_key: HashTrieMapSync::default(), by_id: HashTrieMapSync::default() }
    }
}

impl<S> Credentials<S> {
    /// The credential with that key, unless it has expired.
    pub fn find(&self, key: &[u8], now_unix_ms: u64) -> Option<&Credential<S>> {
        let credential = self.by_key.get(std::str::from_utf8(key).ok()?)?;
        match credential.expires_at_ms {
            Some(at) if at <= now_unix_ms => None,
            _ => Some(credential),
        }
    }

    /// The credential of that id.
    pub fn get(&self, id: Uuid) -> Option<&Credential<S>> {
        self.by_id.get(&id).map(|credential| &**credential)
    }

    /// Adds or replaces a credential.
    pub fn put(&mut self, credential: Credential<S>) {
        self.remove(credential.id);
        let credential = Arc::new(credential);
        self.by_key.insert_mut(credential.key.clone(), credential.clone());
        self.by_id.insert_mut(credential.id, credential);
    }

    /// Removes a credential, if it is there.
    pub fn remove(&mut self, id: Uuid) {
        let Some(old) = self.by_id.get(&id).cloned() else { return };
        // Within one change another may have taken the key already.
        if self.by_key.get(&old.key).is_some_and(|holder| holder.id == id) {
            self.by_key.remove_mut(&old.key);
        }
        self.by_id.remove_mut(&id);
    }
}

impl Directory {
    /// The consumer of that id.
    pub fn consumer(&self, id: Uuid) -> Option<&Consumer> {
        self.consumers.get(&id).map(|c| &**c)
    }

    /// The consumer of that id or username, as plugins' `anonymous` names it.
    pub fn consumer_named(&self, name: &str) -> Option<&Consumer> {
        if let Ok(id) = Uuid::try_parse(name)
            && let Some(found) = self.consumer(id)
        {
            return Some(found);
        }
        self.consumer(*self.by_username.get(name)?)
    }

    /// The groups of a consumer, in alphabetical order; `None`: it is in none.
    pub fn groups(&self, consumer: Uuid) -> Option<&Arc<Groups>> {
        self.groups.get(&consumer)
    }

    /// Adds or replaces a consumer.
    pub fn put_consumer(&mut self, consumer: Consumer) {
        self.remove_consumer(consumer.id);
        if let Some(name) = &consumer.username {
            self.by_username.insert_mut(name.clone(), consumer.id);
        }
        self.consumers.insert_mut(consumer.id, Arc::new(consumer));
    }

    /// Removes a consumer; its credentials are removed by their own changes.
    pub fn remove_consumer(&mut self, id: Uuid) {
        let Some(old) = self.consumers.get(&id).cloned() else { return };
        if let Some(name) = &old.username
            && self.by_username.get(name) == Some(&id)
        {
            self.by_username.remove_mut(name);
        }
        self.consumers.remove_mut(&id);
    }

    /// Puts a consumer into a group, or moves the membership of that id there.
    pub fn put_membership(&mut self, id: Uuid, consumer: Uuid, group: &str) {
        self.remove_membership(id);
        self.memberships.insert_mut(id, (consumer, group.into()));
        let mut names = self.groups(consumer).map_or_else(Vec::new, |groups| groups.names.clone());
        let place = names.partition_point(|other| **other <= *group);
        names.insert(place, group.into());
        self.groups.insert_mut(consumer, Arc::new(Groups::new(names)));
    }

    /// Removes a membership, if it is there.
    pub fn remove_membership(&mut self, id: Uuid) {
        let Some((consumer, group)) = self.memberships.get(&id).cloned() else { return };
        self.memberships.remove_mut(&id);
        // A name may stand twice within one change, when another membership takes it over.
        let mut names = self.groups(consumer).map_or_else(Vec::new, |groups| groups.names.clone());
        if let Some(place) = names.iter().position(|other| *other == group) {
            names.remove(place);
        }
        if names.is_empty() {
            self.groups.remove_mut(&consumer);
        } else {
            self.groups.insert_mut(consumer, Arc::new(Groups::new(names)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn consumer(n: u128, name: &str) -> Consumer {
        Consumer { id: id(n), id_text: id(n).to_string().into(), username: Some(name.into()), custom_id: None }
    }

    fn key(n: u128, owner: u128, key: &str, expires_at_ms: Option<u64>) -> Credential<()> {
        Credential { id: id(n), consumer: id(owner), key: key.into(), secret: (), expires_at_ms }
    }

    fn groups(d: &Directory, n: u128) -> &str {
        d.groups(id(n)).map_or("", |groups| &groups.text)
    }

    #[test]
    fn consumers_are_found_by_id_and_by_name_and_follow_a_rename() {
        let mut d = Directory::default();
        d.put_consumer(consumer(1, "ann"));
        d.put_consumer(consumer(1, "anna"));
        assert!(d.consumer_named("ann").is_none());
        assert_eq!(d.consumer_named("anna").unwrap().id, id(1));
        assert!(d.consumer_named(&id(1).to_string()).is_some());
        d.remove_consumer(id(1));
        assert!(d.consumer_named("anna").is_none());
    }

    #[test]
    fn names_may_change_hands_in_one_change_in_either_order() {
        let mut d = Directory::default();
        d.put_consumer(consumer(1, "a"));
        d.put_consumer(consumer(2, "a"));
        d.remove_consumer(id(1));
        assert_eq!(d.consumer_named("a").unwrap().id, id(2));
        d.keys.put(key(10, 1, "k", None));
        d.keys.put(key(11, 2, "k", None));
        d.keys.remove(id(10));
        assert_eq!(d.keys.find(b"k", 0).unwrap().id, id(11));
        d.put_membership(id(20), id(1), "g");
        d.put_membership(id(21), id(1), "g");
        d.remove_membership(id(20));
        assert_eq!(groups(&d, 1), "g");
    }

    #[test]
    fn an_expired_key_is_unknown() {
        let mut d = Directory::default();
        d.keys.put(key(10, 1, "k", Some(1000)));
        assert!(d.keys.find(b"k", 999).is_some());
        assert!(d.keys.find(b"k", 1000).is_none());
        assert!(d.keys.find(b"\xff", 0).is_none());
    }

    #[test]
    fn an_older_version_is_not_changed_by_a_newer_one() {
        let mut new = Directory::default();
        new.keys.put(key(10, 1, "k", None));
        new.put_membership(id(20), id(1), "g");
        let old = new.clone();
        new.keys.put(key(10, 1, "other", None));
        new.remove_membership(id(20));
        assert!(old.keys.find(b"k", 0).is_some() && old.keys.find(b"other", 0).is_none());
        assert!(new.keys.find(b"k", 0).is_none() && new.keys.find(b"other", 0).is_some());
        assert_eq!((groups(&old, 1), groups(&new, 1)), ("g", ""));
    }

    #[test]
    fn memberships_are_told_in_order_and_follow_their_row() {
        let mut d = Directory::default();
        for (n, group) in [(20, "b"), (21, "a"), (22, "c")] {
            d.put_membership(id(n), id(1), group);
        }
        assert_eq!(groups(&d, 1), "a, b, c");
        d.put_membership(id(20), id(2), "z");
        assert_eq!((groups(&d, 1), groups(&d, 2)), ("a, c", "z"));
    }
}
