//! Rules of one route -> [`Compiled`], or every reason why not. Runs off-core, once per change.

use uuid::Uuid;

use crate::config::RouterFlavor;
use crate::limits::ROUTE_ENTRIES_MAX;
use crate::limits::ROUTE_PATH_BYTES_MAX;
use crate::router::category;
use crate::router::expressions;
use crate::router::hosts::Brackets;
use crate::router::hosts::HostPattern;
use crate::router::matcher::Compiled;
use crate::router::matcher::Conditions;
use crate::router::matcher::HeaderRule;
use crate::router::matcher::Matcher;
use crate::router::matcher::PathGroup;
use crate::router::matcher::PlainPath;
use crate::router::matcher::RegexPath;
use crate::router::net::Endpoint;
use crate::router::net::NetRule;
use crate::router::pattern::PathRegex;
use crate::router::priority::CategoryWeights;
use crate::router::priority::PathWeight;
use crate::router::priority::Rank;
use crate::router::priority::Weights;
use crate::router::snis::SniRule;

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
    /// Seconds; the flavour `traditional` prefers older routes.
    pub created_at_s: u64,
    /// What only the flavour `expressions` looks at.
    pub protocols: Vec<String>,
    pub sources: Vec<Endpoint>,
    pub destinations: Vec<Endpoint>,
    /// Excludes all attributes but `protocols`.
    pub expression: Option<String>,
    /// Among routes that have an expression, greater is tried first; 0 to 2^46 - 1.
    pub priority: u64,
}

/// Why a route cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// `paths`, `hosts.2` (elements are counted from 1, as in Kong's messages), `headers.x-name`; empty for the route as
    /// a whole.
    pub field: String,
    /// One line for the operator.
    pub message: String,
}

/// Namespace of the ids of split matchers (spec/router.md section 4.1).
const SPLIT_NAMESPACE: Uuid = Uuid::from_u128(0x7f145bf9_0dce_4f91_98eb_debbce4b9f6b);

/// Compiles the rules of a route. Routes of different flavours are never in one router.
///
/// A route without any attribute compiles to a `Compiled` that matches nothing, as does one of the stream router.
///
/// # Errors
/// All refusals at once: a regex that does not compile or is too large, a misplaced wildcard, a port beyond 65535, a
/// path that is too long, too many hosts and paths together, an expression that does not compile or that this flavour
/// does not know.
pub fn compile(rules: &Rules, flavor: RouterFlavor) -> Result<Compiled, Vec<RuleError>> {
    if let Some(expression) = &rules.expression {
        return compile_expression(rules, expression, flavor);
    }
    let brackets = match flavor {
        RouterFlavor::Traditional => Brackets::Understood,
        _ => Brackets::Opaque,
    };
    let mut errors = Errors(Vec::new());
    let hosts = errors.keep(rules.hosts.iter().enumerate(), |(index, host)| {
        HostPattern::parse(host, brackets).map_err(|message| (format!("hosts.{}", index + 1), message))
    });
    let headers = errors.keep(rules.headers.iter(), |(name, values)| {
        HeaderRule::compile(name, values).map_err(|message| (format!("headers.{name}"), message))
    });
    let groups = group_paths(&rules.paths, flavor, &mut errors);
    if rules.hosts.len().max(1) * rules.paths.len().max(1) > ROUTE_ENTRIES_MAX {
        errors.add("paths".to_owned(), format!("hosts times paths must be at most {ROUTE_ENTRIES_MAX}"));
    }
    if !errors.0.is_empty() {
        return Err(errors.0);
    }
    let snis = rules.snis.iter().map(|sni| SniRule::parse(sni)).collect();
    let net = match flavor {
        RouterFlavor::Expressions => NetRule::new(&rules.protocols, &rules.sources, &rules.destinations),
        _ => None,
    };
    let conditions = Conditions::new(&rules.methods, headers, snis, net);
    let matchers = rank_groups(rules, flavor, &hosts, &conditions, groups);
    let category = (flavor == RouterFlavor::Traditional).then(|| category_of(rules));
    Ok(Compiled { hosts, conditions, matchers, category })
}

fn compile_expression(rules: &Rules, expression: &str, flavor: RouterFlavor) -> Result<Compiled, Vec<RuleError>> {
    if flavor != RouterFlavor::Expressions {
        let message = format!("only router_flavor = expressions serves it, and this is {}", flavor.word());
        return Err(vec![RuleError { field: "expression".to_owned(), message }]);
    }
    let program = expressions::check::compile(expression).map_err(|reason| {
        vec![RuleError { field: String::new(), message: format!("{}{reason}", expressions::check::REFUSED) }]
    })?;
    let net = NetRule::new(&rules.protocols, &[], &[]);
    Ok(Compiled {
        hosts: Vec::new(),
        conditions: Conditions::new(&[], Vec::new(), Vec::new(), net),
        matchers: vec![Matcher {
            rank: Rank::of_expression(rules.priority, rules.id),
            group: PathGroup::Expression(program),
        }],
        category: None,
    })
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

/// Section 4.1: all regexes are one group, plain paths are grouped by their length; in order of first appearance. In the
/// flavour `traditional` each path is a group of its own.
fn group_paths(paths: &[String], flavor: RouterFlavor, errors: &mut Errors) -> Vec<PathGroup> {
    let alone = flavor == RouterFlavor::Traditional;
    let mut groups: Vec<PathGroup> = Vec::new();
    for (index, path) in paths.iter().enumerate().take(ROUTE_ENTRIES_MAX) {
        let position = index as u16;
        if path.len() > ROUTE_PATH_BYTES_MAX {
            errors.add(format!("paths.{}", index + 1), format!("length must be at most {ROUTE_PATH_BYTES_MAX}"));
        } else if let Some(pattern) = path.strip_prefix('~') {
            match PathRegex::compile(pattern) {
                Ok((regex, literal)) => {
                    let member = RegexPath { text: pattern.as_bytes().into(), regex, literal, position };
                    if alone { groups.push(PathGroup::Regex(vec![member])) } else { add_regex(&mut groups, member) }
                }
                Err(message) => errors.add(format!("paths.{}", index + 1), message),
            }
        } else {
            let member = PlainPath { bytes: path.as_bytes().into(), position };
            if alone { groups.push(PathGroup::Plain(vec![member])) } else { add_plain(&mut groups, member) }
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

fn rank_groups(
    rules: &Rules,
    flavor: RouterFlavor,
    hosts: &[HostPattern],
    conditions: &Conditions,
    groups: Vec<PathGroup>,
) -> Vec<Matcher> {
    let with_addresses = flavor == RouterFlavor::Expressions;
    let set = [
        !rules.methods.is_empty(),
        !rules.hosts.is_empty(),
        !rules.paths.is_empty(),
        !rules.headers.is_empty(),
        !rules.snis.is_empty(),
        with_addresses && !rules.sources.is_empty(),
        with_addresses && !rules.destinations.is_empty(),
    ];
    let attributes = set.iter().map(|set| u32::from(*set)).sum();
    if attributes == 0 {
        return Vec::new();
    }
    let plain_hosts = !hosts.is_empty() && hosts.iter().all(HostPattern::is_plain);
    let header_names = conditions.header_names();
    let groups = if groups.is_empty() { vec![PathGroup::Any] } else { groups };
    let split = groups.len() > 1;
    let rank = |(index, group): (usize, PathGroup)| {
        let path = match &group {
            PathGroup::Any | PathGroup::Expression(_) => PathWeight::None,
            PathGroup::Plain(paths) => PathWeight::Plain(paths.first().map_or(0, |path| path.bytes.len())),
            PathGroup::Regex(_) => PathWeight::Regex(rules.regex_priority),
        };
        let id = if split { split_id(rules.id, index + 1) } else { rules.id };
        let word = || Rank::new(Weights { attributes, plain_hosts, header_names, path }.word(), id);
        let rank = match flavor {
            RouterFlavor::TraditionalCompatible => word(),
            RouterFlavor::Expressions => word().below_expressions(),
            RouterFlavor::Traditional => {
                let wildcard_port = hosts.iter().any(|host| !host.is_plain() && host.port.is_some());
                let weights = CategoryWeights { wildcard_port, plain_hosts, header_names, path };
                Rank::of_age(&weights, rules.created_at_s, rules.id)
            }
        };
        Matcher { rank, group }
    };
    groups.into_iter().enumerate().map(rank).collect()
}

fn category_of(rules: &Rules) -> u8 {
    let set = [
        (category::HOST, rules.hosts.is_empty()),
        (category::HEADER, rules.headers.is_empty()),
        (category::PATH, rules.paths.is_empty()),
        (category::METHOD, rules.methods.is_empty()),
        (category::SNI, rules.snis.is_empty()),
    ];
    set.iter().filter(|(_, is_empty)| !is_empty).map(|(bit, _)| bit).sum()
}

fn split_id(route: Uuid, index: usize) -> Uuid {
    Uuid::new_v5(&SPLIT_NAMESPACE, format!("{route}#{index}").as_bytes())
}
