//! Who calls, as API analytics see it (spec/plugins.md J.2).
//! Never: checks a signature: what a token claims is told, not trusted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Where the identity of a caller is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityRules {
    pub user_header: Option<Box<str>>,
    pub company_header: Option<Box<str>>,
    /// Header fields with a token or a name and password, in order.
    pub authorization_headers: Box<[Box<str>]>,
    /// Members of a token's payload.
    pub user_claim: Option<Box<str>>,
    pub company_claim: Option<Box<str>>,
}

/// A user and the company that it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    pub user: Option<String>,
    pub company: Option<String>,
}

impl IdentityRules {
    /// The caller, by the first value of header fields of the request.
    pub fn of_request<'a>(&self, field: impl Fn(&str) -> Option<&'a [u8]>) -> Caller {
        let text = |name: &str| field(name).map(lossy).filter(|text| !text.is_empty());
        let told = self.authorization_headers.iter().find_map(|name| self.of_authorization(field(name)?));
        let Caller { user, company } = told.unwrap_or_default();
        let user = user
            .or_else(|| text(self.user_header.as_deref()?))
            .or_else(|| ["x-consumer-custom-id", "x-consumer-username", "x-consumer-id"].into_iter().find_map(text));
        Caller { user, company: company.or_else(|| text(self.company_header.as_deref()?)) }
    }

    /// What of the caller is not known yet, by header fields of the response.
    pub fn add_of_response<'a>(&self, caller: &mut Caller, field: impl Fn(&str) -> Option<&'a [u8]>) {
        let text = |name: &Option<Box<str>>| field(name.as_deref()?).map(lossy).filter(|text| !text.is_empty());
        caller.user = caller.user.take().or_else(|| text(&self.user_header));
        caller.company = caller.company.take().or_else(|| text(&self.company_header));
    }

    /// By `Bearer` and a token, or `Basic` and a name; `None`: it tells nobody.
    fn of_authorization(&self, value: &[u8]) -> Option<Caller> {
        let (scheme, rest) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(rest.trim()).ok()?;
            let name = pair.split(|&byte| byte == b':').next().filter(|name| !name.is_empty())?;
            return Some(Caller { user: Some(lossy(name)), company: None });
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let payload = rest.trim().split('.').nth(1)?;
        let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let claim = |name: &Option<Box<str>>| match claims.get(name.as_deref()?)? {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let caller = Caller { user: claim(&self.user_claim), company: claim(&self.company_claim) };
        (caller != Caller::default()).then_some(caller)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> IdentityRules {
        IdentityRules {
            user_header: Some("x-user".into()),
            company_header: Some("x-company".into()),
            authorization_headers: ["authorization".into()].into(),
            user_claim: Some("sub".into()),
            company_claim: Some("org".into()),
        }
    }

    #[track_caller]
    fn check(fields: &[(&str, &str)], user: Option<&str>, company: Option<&str>) {
        let caller = rules().of_request(|name| {
            fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes())
        });
        assert_eq!((caller.user.as_deref(), caller.company.as_deref()), (user, company), "{fields:?}");
    }

    fn token(payload: &str) -> String {
        format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn what_a_token_claims_comes_before_headers_and_consumers() {
        let rest = [("X-User", "u"), ("X-Company", "c"), ("X-Consumer-Custom-ID", "cc"), ("X-Consumer-ID", "id")];
        let with = |value: &str| {
            let mut fields = vec![("Authorization", value.to_owned())];
            fields.extend(rest.map(|(name, value)| (name, value.to_owned())));
            fields
        };
        for (value, user, company) in [
            (token(r#"{"sub":"s","org":7}"#), "s", "7"),
            (token(r#"{"sub":"","org":"o"}"#), "u", "o"),
            (token("[]"), "u", "c"),
            ("Bearer a.b".to_owned(), "u", "c"),
            ("Basic bmFtZTpwYXNz".to_owned(), "name", "c"),
            ("Basic !".to_owned(), "u", "c"),
            ("Digest x".to_owned(), "u", "c"),
        ] {
            let fields = with(&value);
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            check(&fields, Some(user), Some(company));
        }
    }

    #[test]
    fn consumers_are_users_in_the_order_of_what_is_known() {
        check(
            &[("X-Consumer-Custom-ID", "cc"), ("X-Consumer-Username", "cu"), ("X-Consumer-ID", "ci")],
            Some("cc"),
            None,
        );
        check(&[("X-Consumer-Username", "cu"), ("X-Consumer-ID", "ci")], Some("cu"), None);
        check(&[("X-Consumer-ID", "ci")], Some("ci"), None);
        check(&[], None, None);
        let mut caller = Caller { user: None, company: Some("known".to_owned()) };
        rules().add_of_response(&mut caller, |_| Some(b"told"));
        assert_eq!((caller.user.as_deref(), caller.company.as_deref()), (Some("told"), Some("known")));
    }
}
