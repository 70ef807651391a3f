//! Kinds of properties that say where and how requests are logged.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};

use super::kind::{Kind, Problem};
use super::log_format::{BUILT_IN, LogFormat};

/// Formats that need no declaration.
pub static BUILT_IN_FORMATS: LazyLock<Vec<Arc<LogFormat>>> = LazyLock::new(|| {
    let formats = LogFormat::parse_all(BUILT_IN).expect("the tests read them");
    formats.into_iter().map(Arc::new).collect()
});

/// A log of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    pub path: PathBuf,
    /// Its name as given; `None`: the one that the log has by itself.
    pub wanted: Option<String>,
    pub format: Arc<LogFormat>,
}

/// A log of requests, or `off`; `NORMAL` is the built-in format that it has by itself.
pub struct AccessLogFile<const NORMAL: usize>;
impl<const NORMAL: usize> Kind for AccessLogFile<NORMAL> {
    type Value = Option<AccessLog>;
    const ACCEPTS: &'static str =
        "a path (a relative one is under prefix) and optionally the name of a log format, off";
    fn parse(text: &str) -> Result<Option<AccessLog>, Problem> {
        if text.starts_with("syslog:") {
            return Err(Problem::not_yet("logging to syslog"));
        }
        let mut words = text.split_whitespace().map(str::to_owned);
        match (words.next(), words.next(), words.next()) {
            (Some(off), None, _) if off == "off" => Ok(None),
            (Some(path), wanted, None) => {
                Ok(Some(AccessLog { path: path.into(), wanted, format: BUILT_IN_FORMATS[NORMAL].clone() }))
            }
            (Some(_), Some(_), Some(more)) => Err(Problem::Because(format!("nothing can be told with \"{more}\""))),
            _ => Err(Problem::NotAccepted),
        }
    }
    fn describe(value: &Option<AccessLog>) -> Json {
        value.as_ref().map_or_else(
            || json!("off"),
            |log| match &log.wanted {
                None => json!(log.path.to_string_lossy()),
                Some(format) => json!(format!("{} {format}", log.path.display())),
            },
        )
    }
}

/// Formats that the operator declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    text: String,
    formats: Vec<Arc<LogFormat>>,
}

impl Declared {
    /// The format of that name, also one that needs no declaration.
    ///
    /// # Errors
    /// The names that there are.
    pub fn find(&self, name: &str) -> Result<Arc<LogFormat>, String> {
        let all = || self.formats.iter().chain(BUILT_IN_FORMATS.iter());
        let found = all().find(|format| format.name == name).cloned();
        found.ok_or_else(|| all().map(|format| format.name.as_str()).collect::<Vec<_>>().join(", "))
    }
}

/// Declarations of formats.
pub struct LogFormats;
impl Kind for LogFormats {
    type Value = Declared;
    const ACCEPTS: &'static str = "name [escape=default|json|none] 'text with $variables', and more of them behind ;";
    fn parse(text: &str) -> Result<Declared, Problem> {
        let formats = LogFormat::parse_all(text)?;
        match formats.iter().find(|format| BUILT_IN_FORMATS.iter().any(|other| other.name == format.name)) {
            Some(format) => Err(Problem::Because(format!("the format \"{}\" is there already", format.name))),
            None => Ok(Declared { text: text.to_owned(), formats: formats.into_iter().map(Arc::new).collect() }),
        }
    }
    fn describe(value: &Declared) -> Json {
        if value.text.is_empty() { Json::Null } else { json!(value.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type File = AccessLogFile<0>;

    #[test]
    fn a_log_is_a_path_with_or_without_a_format_or_off() {
        assert_eq!(File::parse("off"), Ok(None));
        for (text, path, wanted) in [("/dev/stdout", "/dev/stdout", None), ("a.log  f", "a.log", Some("f"))] {
            let log = File::parse(text).unwrap().unwrap();
            assert_eq!((log.path, log.wanted.as_deref(), &*log.format.name), (path.into(), wanted, "kong_log_format"));
        }
        assert_eq!(File::parse("a b c"), Err(Problem::because("nothing can be told with \"c\"")));
        assert!(matches!(File::parse("syslog:server=127.0.0.1"), Err(Problem::NotYet(_))));
        assert_eq!(File::describe(&File::parse("a.log f").unwrap()), json!("a.log f"));
    }

    #[test]
    fn formats_are_found_by_name() {
        let declared = LogFormats::parse("mine '$status'").unwrap();
        assert_eq!(declared.find("mine").unwrap().name, "mine");
        assert_eq!(declared.find("combined").unwrap().name, "combined");
        assert_eq!(declared.find("x"), Err("mine, kong_log_format, combined".to_owned()));
        assert_eq!(LogFormats::parse("combined x"), Err(Problem::because("the format \"combined\" is there already")));
    }
}
