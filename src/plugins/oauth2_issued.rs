//! A token on its way to its row and to its application (RFC 6749 section 5.1).

use serde_json::Value;
use serde_json::json;
use uuid::Uuid;

use crate::entity::complete::random_text;
use crate::plugins::oauth2_grants::Grants;
use crate::plugins::rows::RowWrite;
use crate::plugins::view::View;

/// A token that is being made.
pub(super) struct Issued {
    pub access_token: String,
    pub refresh_token: Option<String>,
    /// `None`: it does not expire.
    pub expires_in_s: Option<u64>,
}

impl Issued {
    /// With texts that nobody can guess.
    pub fn new(grants: &Grants, is_refreshable: bool) -> Self {
        let expires = grants.token_expiration_s > 0;
        Self {
            access_token: random_text(32),
            refresh_token: (is_refreshable && expires).then(|| random_text(32)),
            expires_in_s: expires.then_some(grants.token_expiration_s),
        }
    }

    /// The row of the token for an application, and for whom.
    pub fn row(
        &self,
        grants: &Grants,
        view: &View<'_>,
        app: Uuid,
        user: Option<&str>,
        scope: Option<&str>,
    ) -> RowWrite {
        let fields = [
            ("service", grants.service(view)),
            ("credential", reference(app)),
            ("access_token", json!(self.access_token)),
            ("refresh_token", json!(self.refresh_token)),
            ("expires_in", json!(self.expires_in_s.unwrap_or(0))),
            ("authenticated_userid", json!(user)),
            ("scope", json!(scope)),
        ];
        // What can be refreshed no more need not be kept.
        let ttl_s = if self.expires_in_s.is_some() { grants.refresh_token_ttl_s } else { 0 };
        RowWrite::insert("oauth2_tokens", fields, ttl_s)
    }
}

/// A reference to a row.
pub(super) fn reference(id: Uuid) -> Value {
    json!({ "id": id.to_string() })
}
