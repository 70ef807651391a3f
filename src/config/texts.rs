//! Kinds of free text: paths, names, secrets, addresses, origins.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::kind::{Kind, Problem, list, strings};

/// An absolute directory.
pub struct Directory;
impl Kind for Directory {
    type Value = PathBuf;
    const ACCEPTS: &'static str = "an absolute path";
    fn parse(text: &str) -> Result<PathBuf, Problem> {
        let path = PathBuf::from(text);
        if path.is_absolute() { Ok(path) } else { Err(Problem::NotAccepted) }
    }
    fn describe(value: &PathBuf) -> Json {
        json!(value.to_string_lossy())
    }
}

/// A file; a relative path is under `prefix`.
pub struct File;
impl Kind for File {
    type Value = PathBuf;
    const ACCEPTS: &'static str = "a path; a relative one is under prefix";
    fn parse(text: &str) -> Result<PathBuf, Problem> {
        Ok(PathBuf::from(text))
    }
    fn describe(value: &PathBuf) -> Json {
        json!(value.to_string_lossy())
    }
}

/// A file that may be left unset.
pub struct OptionalFile;
impl Kind for OptionalFile {
    type Value = Option<PathBuf>;
    const ACCEPTS: &'static str = File::ACCEPTS;
    fn parse(text: &str) -> Result<Option<PathBuf>, Problem> {
        if text.is_empty() { Ok(None) } else { File::parse(text).map(Some) }
    }
    fn describe(value: &Option<PathBuf>) -> Json {
        value.as_ref().map_or(Json::Null, File::describe)
    }
}

/// A log of messages: a file, or `off` (`None`). nginx's second word (a level) and `syslog:` are not built.
pub struct LogFile;
impl Kind for LogFile {
    type Value = Option<PathBuf>;
    const ACCEPTS: &'static str = "a path (a relative one is under prefix), off";
    fn parse(text: &str) -> Result<Option<PathBuf>, Problem> {
        if text == "off" {
            return Ok(None);
        }
        if text.starts_with("syslog:") {
            return Err(Problem::not_yet("logging to syslog"));
        }
        if let Some((_, format)) = text.split_once([' ', '\t']) {
            return Err(Problem::NotYet(format!("a level after the path (\"{}\")", format.trim())));
        }
        Ok(Some(PathBuf::from(text)))
    }
    fn describe(value: &Option<PathBuf>) -> Json {
        value.as_ref().map_or_else(|| json!("off"), File::describe)
    }
}

/// A word without blanks that may be left unset.
pub struct OptionalWord;
impl Kind for OptionalWord {
    type Value = Option<String>;
    const ACCEPTS: &'static str = "one word";
    fn parse(text: &str) -> Result<Option<String>, Problem> {
        match text {
            "" => Ok(None),
            word if word.contains(char::is_whitespace) => Err(Problem::NotAccepted),
            word => Ok(Some(word.to_owned())),
        }
    }
    fn describe(value: &Option<String>) -> Json {
        json!(value)
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The bytes to compare with; compare in constant time.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

/// A [`Secret`] that travels in a header field, and may be left unset.
pub struct Token;
impl Kind for Token {
    type Value = Option<Secret>;
    const ACCEPTS: &'static str = "visible ASCII characters without blanks";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Option<Secret>, Problem> {
        match text {
            "" => Ok(None),
            _ if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Some(Secret(text.to_owned()))),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &Option<Secret>) -> Json {
        value.as_ref().map_or(Json::Null, |_| json!("******"))
    }
}

/// Any text that is never printed, and may be left unset.
pub struct SecretText;
impl Kind for SecretText {
    type Value = Option<Secret>;
    const ACCEPTS: &'static str = "a text";
    const SECRET: bool = true;
    fn parse(text: &str) -> Result<Option<Secret>, Problem> {
        Ok((!text.is_empty()).then(|| Secret(text.to_owned())))
    }
    fn describe(value: &Option<Secret>) -> Json {
        Token::describe(value)
    }
}

/// Where a trusted peer names the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIpSource {
    /// A field of the request, by its name.
    Header(String),
    /// The preface of the connection.
    ProxyProtocol,
}

/// A field name of HTTP, or `proxy_protocol`.
pub struct RealIpHeader;
impl Kind for RealIpHeader {
    type Value = RealIpSource;
    const ACCEPTS: &'static str = "the name of a request header, proxy_protocol";
    fn parse(text: &str) -> Result<RealIpSource, Problem> {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        match text {
            "proxy_protocol" => Ok(RealIpSource::ProxyProtocol),
            name if !name.is_empty() && name.bytes().all(is_token) => Ok(RealIpSource::Header(name.to_owned())),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &RealIpSource) -> Json {
        match value {
            RealIpSource::Header(name) => json!(name),
            RealIpSource::ProxyProtocol => json!("proxy_protocol"),
        }
    }
}

/// The account that the process becomes once its sockets are bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Without one, the account's own group.
    pub group: Option<String>,
}

/// `name [group]`, as nginx's `user`.
pub struct OptionalUser;
impl Kind for OptionalUser {
    type Value = Option<User>;
    const ACCEPTS: &'static str = "a user name, and optionally a group name";
    fn parse(text: &str) -> Result<Option<User>, Problem> {
        let mut words = text.split_whitespace().map(str::to_owned);
        match (words.next(), words.next(), words.next()) {
            (None, ..) => Ok(None),
            (Some(name), group, None) => Ok(Some(User { name, group })),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &Option<User>) -> Json {
        match value {
            None => Json::Null,
            Some(User { name, group: None }) => json!(name),
            Some(User { name, group: Some(group) }) => json!(format!("{name} {group}")),
        }
    }
}

/// Servers as `ip[:port]`, port 53 without one; empty means those of the system.
pub struct Nameservers;
impl Kind for Nameservers {
    type Value = Vec<SocketAddr>;
    const ACCEPTS: &'static str = "a list of ip[:port]";
    fn parse(text: &str) -> Result<Vec<SocketAddr>, Problem> {
        let parse = |part: &str| {
            let bare = part.strip_prefix('[').and_then(|p| p.strip_suffix(']')).unwrap_or(part);
            let ip = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
            ip.or_else(|_| part.parse()).map_err(|_| Problem::Because(format!("\"{part}\" is no address")))
        };
        list(text).map(parse).collect()
    }
    fn describe(value: &Vec<SocketAddr>) -> Json {
        strings(value)
    }
}

/// Files of certificate authorities, absolute paths or `system`.
pub struct TrustedCertificates;
impl Kind for TrustedCertificates {
    type Value = Vec<String>;
    const ACCEPTS: &'static str = "a list of system and absolute paths of PEM files";
    fn parse(text: &str) -> Result<Vec<String>, Problem> {
        let files: Vec<String> = list(text).map(str::to_owned).collect();
        match files.iter().find(|file| *file != "system" && !file.starts_with('/')) {
            Some(other) => Err(Problem::Because(format!("\"{other}\" is no absolute path"))),
            None => Ok(files),
        }
    }
    fn describe(value: &Vec<String>) -> Json {
        strings(value)
    }
}

/// A web origin: `scheme://host[:port]`, as a browser sends it.
pub struct Origins;
impl Kind for Origins {
    type Value = Vec<String>;
    const ACCEPTS: &'static str = "a list of http(s)://host[:port]";
    fn parse(text: &str) -> Result<Vec<String>, Problem> {
        list(text).map(|part| origin(part).ok_or_else(|| Problem::Because(format!("\"{part}\" is no URL")))).collect()
    }
    fn describe(value: &Vec<String>) -> Json {
        strings(value)
    }
}

/// Kong's `admin_gui_url` may carry a path; an origin does not, nor the default port.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let host = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let host = host.strip_suffix(default_port).unwrap_or(&host);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    (!host.is_empty() && host.bytes().all(plain)).then(|| format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_lose_their_path_and_default_port() {
        for (url, want) in [
            ("http://localhost:8002/manager", Some("http://localhost:8002")),
            ("HTTPS://Admin.Example:443", Some("https://admin.example")),
            ("http://[::1]:80/", Some("http://[::1]")),
            ("localhost:8002", None),
            ("ftp://x", None),
            ("http://", None),
            ("http://a b", None),
        ] {
            assert_eq!(origin(url).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn nameservers_have_port_53_unless_they_say_otherwise() {
        let servers = Nameservers::parse("1.1.1.1, 8.8.8.8:5353, ::1, [::1]:54, [::2]").unwrap();
        let shown: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["1.1.1.1:53", "8.8.8.8:5353", "[::1]:53", "[::1]:54", "[::2]:53"]);
        assert!(Nameservers::parse("dns.example").is_err());
    }

    #[test]
    fn a_log_is_one_path_or_off() {
        assert_eq!(LogFile::parse("off"), Ok(None));
        assert_eq!(LogFile::parse("/dev/stdout"), Ok(Some("/dev/stdout".into())));
        for text in ["logs/error.log debug", "syslog:server=127.0.0.1"] {
            assert!(matches!(LogFile::parse(text), Err(Problem::NotYet(_))), "{text}");
        }
    }

    #[test]
    fn a_user_may_bring_a_group() {
        let user = |name: &str, group: Option<&str>| User { name: name.to_owned(), group: group.map(str::to_owned) };
        assert_eq!(OptionalUser::parse("kong kong"), Ok(Some(user("kong", Some("kong")))));
        assert_eq!(OptionalUser::parse("www-data"), Ok(Some(user("www-data", None))));
        assert!(OptionalUser::parse("a b c").is_err());
    }

    #[test]
    fn a_client_is_named_by_a_header_or_the_preface() {
        let header = RealIpSource::Header("X-Forwarded-For".to_owned());
        assert_eq!(RealIpHeader::parse("X-Forwarded-For"), Ok(header));
        assert_eq!(RealIpHeader::parse("proxy_protocol"), Ok(RealIpSource::ProxyProtocol));
        for text in ["", "a b", "a:b", "é"] {
            assert_eq!(RealIpHeader::parse(text), Err(Problem::NotAccepted), "{text}");
        }
    }
}
