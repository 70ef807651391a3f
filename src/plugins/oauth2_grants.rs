//! What the endpoints of oauth2 answer: grants, tokens, codes (RFC 6749, RFC 7636; spec/plugins.md B.6).
//! Owns: every decision, as a value; asking and replying is done by [`oauth2`](super::oauth2). Never: gives out what is not
//! to be written first.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use serde_json::Value;
use serde_json::json;

use crate::entity::complete::random_text;
use crate::limits;
use crate::plugins::directory::Credential;
use crate::plugins::grants::App;
use crate::plugins::grants::Grant;
use crate::plugins::name_and_password::Room;
use crate::plugins::name_and_password::after_scheme;
use crate::plugins::oauth2::found;
use crate::plugins::oauth2::parameter;
use crate::plugins::oauth2::service_of;
use crate::plugins::oauth2_issued::Issued;
use crate::plugins::oauth2_issued::reference;
use crate::plugins::oauth2_said::Denial;
use crate::plugins::oauth2_said::Said;
use crate::plugins::oauth2_said::redirect_body;
use crate::plugins::oauth2_said::text;
use crate::plugins::query::Found;
use crate::plugins::rows::RowWrite;
use crate::plugins::view::View;
use crate::stdx::secret::Hidden;
use crate::stdx::secret::equal;

/// From whom a proof of possession is demanded (RFC 7636).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pkce {
    None,
    /// From public applications.
    Lax,
    /// From all.
    Strict,
}

/// What may be granted, and for how long.
pub(super) struct Grants {
    /// `None`: scopes mean nothing here.
    pub scopes: Option<Box<[Box<str>]>>,
    pub mandatory_scope: bool,
    pub provision_key: Box<str>,
    /// 0: access tokens do not expire.
    pub token_expiration_s: u64,
    /// 0: they can be refreshed for ever.
    pub refresh_token_ttl_s: u64,
    pub authorization_code: bool,
    pub implicit: bool,
    pub client_credentials: bool,
    pub password: bool,
    /// Whether tokens count for all services.
    pub is_global: bool,
    pub reuse_refresh_token: bool,
    pub pkce: Pkce,
    /// Where applications show their own name and secret.
    pub header: Box<str>,
}

/// What follows from a question to an endpoint.
#[derive(Debug)]
pub(super) enum Outcome {
    Say(Said),
    /// Whether the secret is the one that was hashed has to be found out first.
    Verify {
        hash: Box<str>,
        secret: Hidden,
    },
    /// The body is said when the rows are written.
    Write {
        rows: Vec<RowWrite>,
        body: Vec<u8>,
    },
}

const INVALID_CLIENT: &str = "Invalid client authentication";
const FOREIGN_REDIRECT: &str =
    "Invalid redirect_uri that does not match with any redirect_uri created with the application";

/// How the application has said who it is.
struct Client<'a> {
    app: Option<&'a Credential<App>>,
    secret: Option<Vec<u8>>,
    /// Whether by the header of RFC 7617.
    by_basic: bool,
}

impl Grants {
    /// What is said when a code or a refresh token has been used between being found and being taken.
    pub fn used_up(view: &View<'_>) -> Said {
        let what = if text(view, "grant_type").as_deref() == Some("refresh_token") { "refresh_token" } else { "code" };
        Said::denial(("invalid_request", format!("Invalid {what}")), view)
    }

    /// The authorization endpoint.
    pub fn authorize(&self, view: &View<'_>) -> Outcome {
        if let Err(denial) = self.check_provision(view) {
            return Outcome::Say(Said::denial(denial, view));
        }
        let response_type = text(view, "response_type");
        let is_code = response_type.as_deref() == Some("code");
        let mut denial: Option<Denial> = None;
        if !(is_code && self.authorization_code || response_type.as_deref() == Some("token") && self.implicit) {
            denial = Some(("unsupported_response_type", "Invalid response_type".to_owned()));
        }
        let scope = self.scope(view).unwrap_or_else(|why| {
            denial = Some(why);
            None
        });
        let client_id = parameter(view, b"client_id").unwrap_or_default();
        let Some(app) = view.directory.apps.find(&client_id, view.now_unix_ms).filter(|app| app.secret.has_redirect())
        else {
            return Outcome::Say(Said::denial(("invalid_client", INVALID_CLIENT.to_owned()), view));
        };
        let registered = &app.secret.redirect_uris;
        let wanted = text(view, "redirect_uri");
        let redirect = match &wanted {
            Some(wanted) => registered.iter().find(|uri| ***uri == **wanted),
            None => registered.first(),
        };
        if redirect.is_none() {
            denial = Some(("invalid_request", FOREIGN_REDIRECT.to_owned()));
        }
        let challenge = self.challenge(view, &app.secret, is_code).unwrap_or_else(|why| {
            denial = denial.take().or(Some(why));
            None
        });
        let redirect = redirect.or(registered.first()).map_or("", |uri| &**uri);
        let state = text(view, "state");
        if let Some((error, text)) = denial {
            let body = redirect_body(
                redirect,
                false,
                &[("error", Some(error)), ("error_description", Some(&text)), ("state", state.as_deref())],
            );
            return Outcome::Say(Said { status: 400, body, challenges_basic: false });
        }
        let user = text(view, "authenticated_userid");
        if is_code {
            let code = random_text(32);
            let row = RowWrite::insert(
                "oauth2_authorization_codes",
                [
                    ("service", self.service(view)),
                    ("credential", reference(app.id)),
                    ("code", json!(code)),
                    ("authenticated_userid", json!(user)),
                    ("scope", json!(scope)),
                    ("challenge", json!(challenge)),
                    ("challenge_method", if challenge.is_some() { json!("S256") } else { Value::Null }),
                ],
                limits::AUTHORIZATION_CODE_S,
            );
            let body = redirect_body(redirect, false, &[("code", Some(&code)), ("state", state.as_deref())]);
            return Outcome::Write { rows: vec![row], body };
        }
        let issued = Issued::new(self, false);
        let row = issued.row(self, view, app.id, user.as_deref(), scope.as_deref());
        let expires_in = issued.expires_in_s.map(|seconds| seconds.to_string());
        let parameters = [
            ("access_token", Some(&*issued.access_token)),
            ("token_type", Some("bearer")),
            ("expires_in", expires_in.as_deref()),
            ("state", state.as_deref()),
        ];
        Outcome::Write { rows: vec![row], body: redirect_body(redirect, true, &parameters) }
    }

    /// The token endpoint. `is_proved`: whether the secret is the hashed one, once that is known.
    pub fn token(&self, view: &View<'_>, is_proved: Option<bool>) -> Outcome {
        let client = self.client(view);
        match self.try_token(view, &client, is_proved) {
            Ok(outcome) => outcome,
            Err(denial) => {
                let challenges_basic = denial.0 == "invalid_client" && client.by_basic;
                let said = Said::denial(denial, view);
                let status = if challenges_basic { 401 } else { 400 };
                Outcome::Say(Said { status, challenges_basic, ..said })
            }
        }
    }

    fn try_token(&self, view: &View<'_>, client: &Client<'_>, is_proved: Option<bool>) -> Result<Outcome, Denial> {
        let kind = text(view, "grant_type").unwrap_or_default();
        let is_known = match &*kind {
            "authorization_code" | "refresh_token" => true,
            "client_credentials" => self.client_credentials,
            "password" => self.password,
            _ => false,
        };
        let invalid_client = || ("invalid_client", INVALID_CLIENT.to_owned());
        let app = client.app.filter(|app| kind == "client_credentials" || app.secret.has_redirect());
        let app = app.ok_or_else(invalid_client)?;
        if let Some(wanted) = text(view, "redirect_uri").filter(|_| kind != "client_credentials")
            && !app.secret.redirect_uris.iter().any(|uri| **uri == *wanted)
        {
            return Err(("invalid_request", FOREIGN_REDIRECT.to_owned()));
        }
        match (&client.secret, app.secret.is_public) {
            (Some(_), true) => {
                return Err(("invalid_request", "client_secret is disallowed for public clients".to_owned()));
            }
            (None, true) => {}
            (None, false) => return Err(invalid_client()),
            (Some(secret), false) => {
                let is_good = match is_proved {
                    Some(is_good) => is_good,
                    None if app.secret.is_hashed => {
                        let hash = app.secret.secret.clone();
                        return Ok(Outcome::Verify { hash, secret: Hidden::new(secret) });
                    }
                    None => equal(secret, app.secret.secret.as_bytes()),
                };
                if !is_good {
                    return Err(invalid_client());
                }
            }
        }
        if !is_known {
            return Err(("unsupported_grant_type", "Invalid grant_type".to_owned()));
        }
        match &*kind {
            "authorization_code" => self.by_code(view, app),
            "refresh_token" => self.by_refresh_token(view, app),
            "client_credentials" => {
                let user = text(view, "authenticated_userid");
                if user.is_some() && !self.is_provisioned(view) {
                    return Err(("invalid_provision_key", "Invalid provision_key".to_owned()));
                }
                let scope = self.scope(view)?;
                Ok(self.give(view, app, Issued::new(self, false), user.as_deref(), scope.as_deref(), Vec::new()))
            }
            _ => {
                self.check_provision(view)?;
                let (user, scope) = (text(view, "authenticated_userid"), self.scope(view)?);
                Ok(self.give(view, app, Issued::new(self, true), user.as_deref(), scope.as_deref(), Vec::new()))
            }
        }
    }

    fn by_code(&self, view: &View<'_>, app: &Credential<App>) -> Result<Outcome, Denial> {
        let code = parameter(view, b"code").unwrap_or_default();
        let code = view.directory.codes.find(&code, view.now_unix_ms);
        let code = code.filter(|code| self.counts_here(&code.secret.grant, view) && code.secret.grant.app == app.id);
        let code = code.ok_or_else(|| ("invalid_request", "Invalid code".to_owned()))?;
        if let Some(challenge) = &code.secret.challenge {
            let verifier = parameter(view, b"code_verifier").filter(|verifier| !verifier.is_empty());
            let verifier = verifier.ok_or_else(|| {
                ("invalid_request", "code_verifier is required for PKCE authorization requests".to_owned())
            })?;
            let given = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &verifier));
            if !is_verifier(&verifier) || !equal(given.as_bytes(), challenge.as_bytes()) {
                return Err(("invalid_grant", "Invalid code_verifier".to_owned()));
            }
        }
        let taken = vec![RowWrite::Take { entity: "oauth2_authorization_codes", id: code.id }];
        let grant = &code.secret.grant;
        Ok(self.give(view, app, Issued::new(self, true), grant.user.as_deref(), grant.scope.as_deref(), taken))
    }

    fn by_refresh_token(&self, view: &View<'_>, app: &Credential<App>) -> Result<Outcome, Denial> {
        let given = parameter(view, b"refresh_token").unwrap_or_default();
        let row = view.directory.oauth2_tokens.find_refresh(&given, view.now_unix_ms);
        let row = row.filter(|row| self.counts_here(&row.secret.grant, view));
        let row = row.ok_or_else(|| ("invalid_request", "Invalid refresh_token".to_owned()))?;
        let grant = &row.secret.grant;
        if grant.app != app.id {
            return Err(("invalid_client", INVALID_CLIENT.to_owned()));
        }
        if let Some(wanted) = text(view, "scope") {
            let granted = grant.scope.as_deref().unwrap_or_default();
            let is_granted = |scope: &str| granted.split_whitespace().any(|own| own == scope);
            if !wanted.split_whitespace().all(is_granted) {
                return Err(("invalid_scope", "Scope mismatch".to_owned()));
            }
        }
        let taken = vec![RowWrite::Take { entity: "oauth2_tokens", id: row.id }];
        let mut issued = Issued::new(self, true);
        if self.reuse_refresh_token {
            issued.refresh_token = row.secret.refresh_token.as_deref().map(str::to_owned);
        }
        Ok(self.give(view, app, issued, grant.user.as_deref(), grant.scope.as_deref(), taken))
    }

    fn give(
        &self,
        view: &View<'_>,
        app: &Credential<App>,
        issued: Issued,
        user: Option<&str>,
        scope: Option<&str>,
        mut rows: Vec<RowWrite>,
    ) -> Outcome {
        rows.push(issued.row(self, view, app.id, user, scope));
        let mut body = json!({ "access_token": issued.access_token, "token_type": "bearer" });
        let rest = [
            ("expires_in", issued.expires_in_s.map(Value::from)),
            ("refresh_token", issued.refresh_token.map(Value::from)),
            ("state", text(view, "state").map(Value::from)),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        Outcome::Write { rows, body: body.to_string().into_bytes() }
    }

    fn client<'a>(&self, view: &View<'a>) -> Client<'a> {
        let find = |id: &[u8]| view.directory.apps.find(id, view.now_unix_ms);
        let (id, secret) = (parameter(view, b"client_id"), parameter(view, b"client_secret"));
        if let (Some(id), Some(secret)) = (&id, &secret) {
            return Client { app: find(id), secret: Some(secret.to_vec()), by_basic: false };
        }
        let mut room = Room::default();
        let header = view.header(self.header.as_bytes());
        if let Some(encoded) = header.and_then(|header| after_scheme(header, "basic")) {
            return match room.decode(encoded) {
                Some((id, secret)) => Client { app: find(id), secret: Some(secret.to_vec()), by_basic: true },
                None => Client { app: None, secret: None, by_basic: true },
            };
        }
        Client { app: id.and_then(|id| find(&id)), secret: None, by_basic: false }
    }

    fn is_provisioned(&self, view: &View<'_>) -> bool {
        let given = parameter(view, b"provision_key").unwrap_or_default();
        !given.is_empty() && equal(&given, self.provision_key.as_bytes())
    }

    /// Whether it is the operator's own page that asks, and for whom.
    fn check_provision(&self, view: &View<'_>) -> Result<(), Denial> {
        if !self.is_provisioned(view) {
            return Err(("invalid_provision_key", "Invalid provision_key".to_owned()));
        }
        match text(view, "authenticated_userid").filter(|user| !user.trim().is_empty()) {
            Some(_) => Ok(()),
            None => Err(("invalid_authenticated_userid", "Missing authenticated_userid parameter".to_owned())),
        }
    }

    /// What is asked for, if that may be granted.
    fn scope(&self, view: &View<'_>) -> Result<Option<String>, Denial> {
        let wanted = match found(view, b"scope") {
            Found::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            Found::Nothing if self.mandatory_scope => {
                return Err(("invalid_scope", "You must specify a scope".to_owned()));
            }
            Found::Nothing => return Ok(None),
            _ if self.scopes.is_none() => return Ok(None),
            _ => return Err(("invalid_scope", "scope must be a string".to_owned())),
        };
        let Some(scopes) = &self.scopes else { return Ok(None) };
        let words: Vec<&str> = wanted.split_whitespace().collect();
        match words.iter().find(|word| !scopes.iter().any(|own| **own == ***word)) {
            Some(word) => Err(("invalid_scope", format!("\"{word}\" is an invalid scope"))),
            None => Ok((!words.is_empty()).then(|| words.join(" "))),
        }
    }

    /// The challenge that goes with a code.
    fn challenge(&self, view: &View<'_>, app: &App, is_code: bool) -> Result<Option<String>, Denial> {
        if !is_code || self.pkce == Pkce::None {
            return Ok(None);
        }
        let invalid = |text: &str| Err(("invalid_request", text.to_owned()));
        let method = text(view, "code_challenge_method");
        match (text(view, "code_challenge").filter(|challenge| !challenge.is_empty()), method.as_deref()) {
            (Some(challenge), Some("S256")) => Ok(Some(challenge)),
            (_, Some(method)) if method != "S256" => invalid("code_challenge_method is not supported, must be S256"),
            (Some(_), _) => invalid("code_challenge_method is not supported, must be S256"),
            (None, Some(_)) => invalid("code_challenge is required when code_method is present"),
            (None, None) if app.is_public => invalid("code_challenge is required for public clients"),
            (None, None) if self.pkce == Pkce::Strict => invalid("code_challenge is required for confidential clients"),
            (None, None) => Ok(None),
        }
    }

    fn counts_here(&self, grant: &Grant, view: &View<'_>) -> bool {
        self.is_global || grant.service == service_of(view)
    }

    /// The service that tokens made here count for.
    pub fn service(&self, view: &View<'_>) -> Value {
        service_of(view).filter(|_| !self.is_global).map_or(Value::Null, reference)
    }
}

/// RFC 7636 section 4.1.
fn is_verifier(text: &[u8]) -> bool {
    let is_fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    (43..=128).contains(&text.len()) && text.iter().all(is_fit)
}
