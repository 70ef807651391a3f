//! Rules of one route -> [`Compiled`], or every reason why not. Runs off-core, once per change.

use uuid::Uuid;

use crate::limits::ROUTE_ENTRIES_MAX;
use crate::limits::ROUTE_PATH_BYTES_MAX;
use crate::router::hosts::HostPattern;
use crate::router::matcher::Compiled;
use crate::router::matcher::Conditions;
use crate::router::matcher::HeaderRule;
use crate::router::matcher::Matcher;
use crate::router::matcher::PathGroup;
use crate::router::matcher::PlainPath;
use crate::router::matcher::RegexPath;
use crate::router::matcher::SniRule;
use crate::router::pattern::PathRegex;
use crate::router::priority::PathWeight;
use crate::router::priority::Rank;
use crate::router::priority::Weights;

/// What the operator asked of one route of the HTTP router, as values. An empty list is an attribute that is not set.
/// Takes for granted what the entity checks hold, such as upper-case methods and a normal form of plain paths.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The route's own id, which decides between equal priorities.
    pub id: Uuid,
    pub methods: Vec<String>,
    /// `name`, `name:port`, with at most one `*` as the whole leftmost or rightmost label.
    pub hosts: Vec<String>,
    /// A prefix, or `~` and a regex.
    pub paths: Vec<String>,
    /// Name -> accepted values; a single value that begins with `~*` is a regex.
    pub headers: Vec<(String, Vec<String>)>,
    /// Names, with at most one `*` as the first or last character.
    pub snis: Vec<String>,
    /// Among regex paths, greater is tried first.
    pub regex_priority: i64,
}

/// Why a route cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// `paths`, `hosts.2` (elements are counted from 1, as in Kong's messages), `headers.x-name`.
    pub field: String,
    /// One line for the operator.
    pub message: String,
}

/// Namespace of the ids of split matchers (spec/router.md section 4.1).
const SPLIT_NAMESPACE: Uuid = Uuid::from_u128(0x7f145bf9_0dce_4f91_98eb_debbce4b9f6b);

/// Compiles the rules for the flavour `traditional_compatible` (spec/router.md sections 3 and 4).
///
/// A route without any attribute compiles to a `Compiled` that matches nothing, as does one of the stream router.
///
/// # Errors
/// All refusals at once: a regex that does not compile or is too large, a misplaced wildcard, a port beyond 65535, a
/// path that is too long, too many hosts and paths together.
pub fn compile(rules: &Rules) -> Result<Compiled, Vec<RuleError>> {
    let mut errors = Errors(Vec::new());
    let hosts = errors.keep(rules.hosts.iter().enumerate(), |(index, host)| {
        HostPattern::parse(host).map_err(|message| (format!("hosts.{}", index + 1), message))
    });
    let headers = errors.keep(rules.headers.iter(), |(name, values)| {
        HeaderRule::compile(name, values).map_err(|message| (format!("headers.{name}"), message))
    });
    let groups = group_paths(&rules.paths, &mut errors);
    if rules.hosts.len().max(1) * rules.paths.len().max(1) > ROUTE_ENTRIES_MAX {
        errors.add("paths".to_owned(), format!("hosts times paths must be at most {ROUTE_ENTRIES_MAX}"));
    }
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    let conditions =
        Conditions::new(&rules.methods, headers, rules.snis.iter().map(|sni| SniRule::parse(sni)).collect());
    let matchers = rank_groups(rules, &hosts, &conditions, groups);
    Ok(Compiled { hosts, conditions, matchers })
}

struct Errors(Vec<RuleError>);

impl Errors {
    fn add(&mut self, field: String, message: String) {
        self.0.push(RuleError { field, message });
    }

    fn keep<I: Iterator, T>(&mut self, items: I, make: impl Fn(I::Item) -> Result<T, (String, String)>) -> Vec<T> {
        let mut kept = Vec::new();
        for item in items {
            match make(item) {
                Ok(value) => kept.push(value),
                Err((field, message)) => self.add(field, message),
            }
        }
        kept
    }
}

/// Section 4.1: all regexes are one group, plain paths are grouped by their length; in order of first appearance.
fn group_paths(paths: &[String], errors: &mut Errors) -> Vec<PathGroup> {
    let mut groups: Vec<PathGroup> = Vec::new();
    for (index, path) in paths.iter().enumerate().take(ROUTE_ENTRIES_MAX) {
        let position = index as u16;
        if path.len() > ROUTE_PATH_BYTES_MAX {
            errors.add(format!("paths.{}", index + 1), format!("length must be at most {ROUTE_PATH_BYTES_MAX}"));
        } else if let Some(pattern) = path.strip_prefix('~') {
            match PathRegex::compile(pattern) {
                Ok((regex, literal)) => add_regex(&mut groups, RegexPath { regex, literal, position }),
                Err(message) => errors.add(format!("paths.{}", index + 1), message),
            }
        } else {
            add_plain(&mut groups, PlainPath { bytes: path.as_bytes().into(), position });
        }
    }
    groups
}

fn add_regex(groups: &mut Vec<PathGroup>, regex: RegexPath) {
    for group in groups.iter_mut() {
        if let PathGroup::Regex(members) = group {
            members.push(regex);
            return;
        }
    }
    groups.push(PathGroup::Regex(vec![regex]));
}

fn add_plain(groups: &mut Vec<PathGroup>, path: PlainPath) {
    for group in groups.iter_mut() {
        if let PathGroup::Plain(members) = group
            && members.first().is_some_and(|first| first.bytes.len() == path.bytes.len())
        {
            members.push(path);
            return;
        }
    }
    groups.push(PathGroup::Plain(vec![path]));
}

fn rank_groups(rules: &Rules, hosts: &[HostPattern], conditions: &Conditions, groups: Vec<PathGroup>) -> Vec<Matcher> {
    let set = [
        !rules.methods.is_empty(),
        !rules.hosts.is_empty(),
        !rules.paths.is_empty(),
        !rules.headers.is_empty(),
        !rules.snis.is_empty(),
    ];
    let weights = Weights {
        attributes: set.iter().map(|set| u32::from(*set)).sum(),
        plain_hosts: !hosts.is_empty() && hosts.iter().all(HostPattern::is_plain),
        header_names: conditions.header_names(),
        path: PathWeight::None,
    };
    if weights.attributes == 0 {
        return Vec::new();
    }
    let groups = if groups.is_empty() { vec![PathGroup::Any] } else { groups };
    let split = groups.len() > 1;
    let rank = |(index, group): (usize, PathGroup)| {
        let path = match &group {
            PathGroup::Any => PathWeight::None,
            PathGroup::Plain(paths) => PathWeight::Plain(paths.first().map_or(0, |path| path.bytes.len())),
            PathGroup::Regex(_) => PathWeight::Regex(rules.regex_priority),
        };
        let id = if split { split_id(rules.id, index + 1) } else { rules.id };
        Matcher { rank: Rank::new(Weights { path, ..weights }.word(), id), group }
    };
    groups.into_iter().enumerate().map(rank).collect()
}

fn split_id(route: Uuid, index: usize) -> Uuid {
    Uuid::new_v5(&SPLIT_NAMESPACE, format!("{route}#{index}").as_bytes())
}
