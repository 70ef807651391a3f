//! HOT: lookups only borrow.
//! Consumers and their credentials, as plugins look them up.
//! Owns: persistent maps whose nodes all cores share, so 100,000 consumers cost their memory once and a change costs
//! O(log n) on the control plane and one pointer per core. Never: changed on a data core.
//! Always: cloning a directory is cheap and gives an independent version of it.

use std::sync::Arc;

use ahash::RandomState;
use rpds::HashTrieMapSync;
use uuid::Uuid;

/// What plugins see of a consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Consumer {
    pub id: Uuid,
    /// The id as header text.
    pub id_text: Box<str>,
    pub username: Option<Box<str>>,
    pub custom_id: Option<Box<str>>,
}

/// A key of a consumer (`keyauth_credentials`).
#[derive(Debug, PartialEq, Eq)]
pub struct KeyCredential {
    pub id: Uuid,
    /// The id as header text.
    pub id_text: Box<str>,
    pub consumer: Uuid,
    pub key: Box<str>,
    /// Milliseconds since 1970 from which on the key is unknown; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// One version of all consumers and credentials.
#[derive(Clone, Default)]
pub struct Directory {
    consumers: HashTrieMapSync<Uuid, Arc<Consumer>, RandomState>,
    by_username: HashTrieMapSync<Box<str>, Uuid, RandomState>,
    keys: HashTrieMapSync<Box<str>, Arc<KeyCredential>, RandomState>,
    key_by_id: HashTrieMapSync<Uuid, Arc<KeyCredential>, RandomState>,
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

    /// The credential with that key, unless it has expired.
    pub fn key(&self, key: &[u8], now_unix_ms: u64) -> Option<&KeyCredential> {
        let credential = self.keys.get(std::str::from_utf8(key).ok()?)?;
        match credential.expires_at_ms {
            Some(at) if at <= now_unix_ms => None,
            _ => Some(credential),
        }
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

    /// Adds or replaces a key.
    pub fn put_key(&mut self, credential: KeyCredential) {
        self.remove_key(credential.id);
        let credential = Arc::new(credential);
        self.keys.insert_mut(credential.key.clone(), credential.clone());
        self.key_by_id.insert_mut(credential.id, credential);
    }

    /// Removes a key.
    pub fn remove_key(&mut self, id: Uuid) {
        let Some(old) = self.key_by_id.get(&id).cloned() else { return };
        if self.keys.get(&old.key).is_some_and(|k| k.id == id) {
            self.keys.remove_mut(&old.key);
        }
        self.key_by_id.remove_mut(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(n: u128, name: &str) -> Consumer {
        let id = Uuid::from_u128(n);
        Consumer { id, id_text: id.to_string().into(), username: Some(name.into()), custom_id: None }
    }

    fn key(n: u128, owner: u128, key: &str, expires_at_ms: Option<u64>) -> KeyCredential {
        let id = Uuid::from_u128(n);
        KeyCredential {
            id,
            id_text: id.to_string().into(),
            consumer: Uuid::from_u128(owner),
            key: key.into(),
            expires_at_ms,
        }
    }

    #[test]
    fn consumers_are_found_by_id_and_by_name_and_follow_a_rename() {
        let mut d = Directory::default();
        d.put_consumer(consumer(1, "ann"));
        d.put_consumer(consumer(1, "anna"));
        assert!(d.consumer_named("ann").is_none());
        assert_eq!(d.consumer_named("anna").unwrap().id, Uuid::from_u128(1));
        assert!(d.consumer_named(&Uuid::from_u128(1).to_string()).is_some());
        d.remove_consumer(Uuid::from_u128(1));
        assert!(d.consumer_named("anna").is_none());
    }

    #[test]
    fn names_may_change_hands_in_one_change_in_either_order() {
        let mut d = Directory::default();
        d.put_consumer(consumer(1, "a"));
        d.put_consumer(consumer(2, "a"));
        d.remove_consumer(Uuid::from_u128(1));
        assert_eq!(d.consumer_named("a").unwrap().id, Uuid::from_u128(2));
        d.put_key(key(10, 1, "k", None));
        d.put_key(key(11, 2, "k", None));
        d.remove_key(Uuid::from_u128(10));
        assert_eq!(d.key(b"k", 0).unwrap().id, Uuid::from_u128(11));
    }

    #[test]
    fn an_expired_key_is_unknown() {
        let mut d = Directory::default();
        d.put_key(key(10, 1, "k", Some(1000)));
        assert!(d.key(b"k", 999).is_some());
        assert!(d.key(b"k", 1000).is_none());
        assert!(d.key(b"\xff", 0).is_none());
    }

    #[test]
    fn an_older_version_is_not_changed_by_a_newer_one() {
        let mut new = Directory::default();
        new.put_key(key(10, 1, "k", None));
        let old = new.clone();
        new.put_key(key(10, 1, "other", None));
        assert!(old.key(b"k", 0).is_some() && old.key(b"other", 0).is_none());
        assert!(new.key(b"k", 0).is_none() && new.key(b"other", 0).is_some());
    }
}
