//! The LDAP server that a configuration names, and what is asked of it (spec/plugins.md B.7).
//! Never: talks to one.

use std::sync::Arc;

use crate::limits;
use crate::stdx::secret::Hidden;

/// A server and how to talk to it. Equal ones share their connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LdapServer {
    pub host: Box<str>,
    pub port: u16,
    pub tls: LdapTls,
    /// Whether its certificate has to be good and its own.
    pub verify: bool,
    /// For a connection, and for each answer.
    pub timeout_ms: u64,
    /// How long a connection is kept that nobody uses.
    pub keepalive_ms: u64,
}

/// From when on the connection is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LdapTls {
    Never,
    /// Before the first byte.
    Ldaps,
    /// After the server has been asked for it (RFC 4511 section 4.14).
    StartTls,
}

impl LdapServer {
    /// How long a request waits: for a connection, for what begins it, for the answer.
    pub fn patience_ms(&self) -> u64 {
        self.timeout_ms.saturating_mul(3).saturating_add(limits::LDAP_LATE_MS)
    }
}

/// Whether a name and a password belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapBind {
    pub server: Arc<LdapServer>,
    /// Distinguished name.
    pub name: Box<str>,
    pub password: Hidden,
}

/// `attribute=value,base`, with the value so written that it stays one (RFC 4514 section 2.4).
pub fn distinguished_name(attribute: &str, value: &str, base: &str) -> Box<str> {
    let mut name = format!("{attribute}=");
    let last = value.chars().count().saturating_sub(1);
    for (at, letter) in value.chars().enumerate() {
        match letter {
            '\0' => name.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => name.extend(['\\', letter]),
            '#' if at == 0 => name.push_str("\\#"),
            ' ' if at == 0 || at == last => name.push_str("\\ "),
            _ => name.push(letter),
        }
    }
    name.extend([",", base]);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_reach_out_of_its_place() {
        for (value, want) in [
            ("ann", "uid=ann,dc=x"),
            ("a,ou=b", "uid=a\\,ou\\=b,dc=x"),
            (" a b ", "uid=\\ a b\\ ,dc=x"),
            ("#a#", "uid=\\#a#,dc=x"),
            ("a\\\"+;<>\0", "uid=a\\\\\\\"\\+\\;\\<\\>\\00,dc=x"),
            ("\u{e9}", "uid=\u{e9},dc=x"),
        ] {
            assert_eq!(&*distinguished_name("uid", value, "dc=x"), want);
        }
    }
}
