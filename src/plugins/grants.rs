//! Applications of consumers and what was granted to them, as OAuth 2.0 knows them (spec/plugins.md B.6).

use std::sync::Arc;

use uuid::Uuid;

use crate::plugins::directory::Credential;
use crate::plugins::directory::Credentials;

/// An application; known by its `client_id`.
#[derive(Debug, PartialEq, Eq)]
pub struct App {
    /// The secret, or its hash.
    pub secret: Box<str>,
    pub is_hashed: bool,
    /// Whether it can keep no secret.
    pub is_public: bool,
    pub redirect_uris: Box<[Box<str>]>,
}

impl App {
    /// Whether it says where users come back to; only such take part in flows with users.
    pub fn has_redirect(&self) -> bool {
        !self.redirect_uris.is_empty()
    }
}

/// What an application may do in whose name.
#[derive(Debug, PartialEq, Eq)]
pub struct Grant {
    /// Id of the application.
    pub app: Uuid,
    /// The only service that it counts for.
    pub service: Option<Uuid>,
    pub user: Option<Box<str>>,
    /// Between spaces.
    pub scope: Option<Box<str>>,
}

/// A row of `oauth2_tokens`.
#[derive(Debug, PartialEq, Eq)]
pub struct Token {
    pub grant: Grant,
    pub created_s: u64,
    /// 0: the access token does not expire.
    pub expires_in_s: u64,
    pub refresh_token: Option<Box<str>>,
}

impl Token {
    /// Whether the access token counts.
    pub fn is_fresh(&self, now_s: u64) -> bool {
        self.expires_in_s == 0 || now_s.saturating_sub(self.created_s) <= self.expires_in_s
    }
}

/// A row of `oauth2_authorization_codes`.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub grant: Grant,
    /// The hash of what the application has to prove with (RFC 7636).
    pub challenge: Option<Box<str>>,
}

/// All tokens, by each of their two texts.
#[derive(Clone, Default)]
pub struct Tokens {
    by_access: Credentials<Arc<Token>>,
    by_refresh: Credentials<Arc<Token>>,
}

impl Tokens {
    /// The row with that access token, expired or not.
    pub fn find_access(&self, text: &[u8], now_unix_ms: u64) -> Option<&Credential<Arc<Token>>> {
        self.by_access.find(text, now_unix_ms)
    }

    /// The row with that refresh token.
    pub fn find_refresh(&self, text: &[u8], now_unix_ms: u64) -> Option<&Credential<Arc<Token>>> {
        self.by_refresh.find(text, now_unix_ms)
    }

    /// Adds or replaces a row.
    pub fn put(&mut self, id: Uuid, access_token: Option<&str>, token: Token, expires_at_ms: Option<u64>) {
        self.remove(id);
        let token = Arc::new(token);
        let texts = [(&mut self.by_access, access_token), (&mut self.by_refresh, token.refresh_token.as_deref())];
        for (tokens, text) in texts {
            if let Some(key) = text {
                let secret = token.clone();
                tokens.put(Credential { id, consumer: Uuid::nil(), key: key.into(), secret, expires_at_ms });
            }
        }
    }

    /// Removes a row, if it is there.
    pub fn remove(&mut self, id: Uuid) {
        self.by_access.remove(id);
        self.by_refresh.remove(id);
    }
}
