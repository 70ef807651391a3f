//! One search for a name: which types are asked for under which full names, and when the search is over.
//! Never: remembers an answer (that is `memory`), nor touches a socket (that is `nameserver`).
//!
//! spec/balancer.md section 3.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use crate::control::names::hosts::Hosts;
use crate::control::names::rules::Kind;
use crate::control::names::rules::Rules;
use crate::control::names::srv;
use crate::control::names::srv::Service;
use crate::state::spec::Address;
use crate::state::spec::NO_SUCH_NAME;

/// An alias of an alias of ... so many are followed.
const ALIASES_MAX: usize = 8;

/// Who is asked.
pub trait Servers: Sync {
    /// The full names, with dots at their ends, that a name may stand for.
    fn candidates(&self, name: &str) -> Vec<String>;
    /// Asks for the records of one type of a full name. Aliases are followed.
    fn ask(&self, full_name: &str, kind: Kind) -> impl Future<Output = Reply> + Send;
}

/// What name servers say to one question.
#[derive(Debug, Clone)]
pub enum Reply {
    /// At least one, and the shortest time to live of the records.
    Addresses(Vec<IpAddr>, Duration),
    Services(Vec<Service>, Duration),
    /// The name that it is an alias of, without a dot at its end.
    Alias(String, Duration),
    Nothing(Denial),
    /// A server says that it failed, in the words of the report.
    Failed(String),
    /// Nobody answers, and nobody would for another name.
    Silent(String),
}

/// How name servers say that there is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    NoSuchName,
    /// The name exists, without a record of the type.
    Empty,
}

impl Denial {
    /// In Kong's words (spec/balancer.md section 2).
    pub fn words(self) -> &'static str {
        match self {
            Self::NoSuchName => NO_SUCH_NAME,
            Self::Empty => "dns client error: 101 empty record received",
        }
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Found(Found),
    Nothing(Denial),
    Failed(String),
}

/// Addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    /// Never empty.
    pub addresses: Vec<Address>,
    /// The shortest time to live of all records that led to them.
    pub ttl: Duration,
    /// Of SRV records: their targets and addresses, for the next search.
    pub targets: Targets,
    /// Why the addresses of some target are missing or those of an earlier search.
    pub incomplete: Option<String>,
}

/// Names that SRV records lead to -> their addresses.
pub type Targets = HashMap<String, Vec<IpAddr>>;

/// What is known before a search.
#[derive(Debug, Default, Clone)]
pub struct Before {
    pub kind: Option<Kind>,
    pub targets: Targets,
}

/// Searches, following aliases.
pub async fn find(servers: &impl Servers, hosts: &Hosts, rules: &Rules, name: &str, before: &Before) -> Answer {
    let (mut name, mut ttl_of_aliases) = (name.to_owned(), Duration::MAX);
    for _ in 0..ALIASES_MAX {
        match find_one(servers, hosts, rules, &name, before).await {
            Outcome::Answer(Answer::Found(found)) => {
                return Answer::Found(Found { ttl: found.ttl.min(ttl_of_aliases), ..found });
            }
            Outcome::Answer(other) => return other,
            Outcome::Alias(target, ttl) => {
                name = format!("{target}.");
                ttl_of_aliases = ttl_of_aliases.min(ttl);
            }
        }
    }
    Answer::Failed(format!("more than {ALIASES_MAX} aliases lead to {name}"))
}

enum Outcome {
    Answer(Answer),
    Alias(String, Duration),
}

/// The first type that has records wins. A failure outranks "no such name": a server that fails for the name itself must not
/// make it vanish because its completions do not exist.
async fn find_one(servers: &impl Servers, hosts: &Hosts, rules: &Rules, name: &str, before: &Before) -> Outcome {
    let mut answer = Answer::Nothing(Denial::NoSuchName);
    for kind in rules.kinds(name, before.kind) {
        for full_name in servers.candidates(name) {
            match servers.ask(&full_name, kind).await {
                Reply::Addresses(ips, ttl) => {
                    let addresses = ips.into_iter().map(Address::from).collect();
                    let found = Found { kind, addresses, ttl, targets: Targets::new(), incomplete: None };
                    return Outcome::Answer(Answer::Found(found));
                }
                Reply::Services(services, ttl) => {
                    let services = srv::chosen(services, &full_name);
                    match find_targets(servers, hosts, rules, services, ttl, &before.targets).await {
                        Answer::Nothing(_) => {}
                        other => return Outcome::Answer(other),
                    }
                }
                Reply::Alias(target, ttl) => return Outcome::Alias(target, ttl),
                Reply::Nothing(denial) if matches!(answer, Answer::Nothing(_)) => answer = Answer::Nothing(denial),
                Reply::Nothing(_) => {}
                Reply::Failed(why) => answer = Answer::Failed(why),
                Reply::Silent(why) => return Outcome::Answer(Answer::Failed(why)),
            }
        }
    }
    Outcome::Answer(answer)
}

/// Resolves the targets of SRV records. One that cannot be asked for keeps the addresses of the search before.
async fn find_targets(
    servers: &impl Servers,
    hosts: &Hosts,
    rules: &Rules,
    services: Vec<Service>,
    mut ttl: Duration,
    before: &Targets,
) -> Answer {
    let (mut targets, mut incomplete) = (Targets::new(), None);
    for service in &services {
        if targets.contains_key(&service.target) {
            continue;
        }
        let ips = match find_target(servers, hosts, rules, &service.target).await {
            Ok((ips, of_target)) => {
                ttl = ttl.min(of_target);
                ips
            }
            Err(why) => {
                incomplete.get_or_insert(format!("{}: {why}", service.target));
                before.get(&service.target).cloned().unwrap_or_default()
            }
        };
        targets.insert(service.target.clone(), ips);
    }
    let with_ips = |service: Service| {
        let ips = targets.get(&service.target).cloned().unwrap_or_default();
        (service, ips)
    };
    let found: Vec<_> = services.into_iter().map(with_ips).collect();
    let addresses = srv::spread(&found, rules.zero_weight);
    match (addresses.is_empty(), incomplete) {
        (false, incomplete) => Answer::Found(Found { kind: Kind::Srv, addresses, ttl, targets, incomplete }),
        (true, Some(why)) => Answer::Failed(why),
        (true, None) => Answer::Nothing(Denial::Empty),
    }
}

/// The addresses of one target, none if it has none.
async fn find_target(
    servers: &impl Servers,
    hosts: &Hosts,
    rules: &Rules,
    target: &str,
) -> Result<(Vec<IpAddr>, Duration), String> {
    let kinds = rules.address_kinds();
    if let Some(ip) = target.parse().ok().or_else(|| hosts.find(target, &kinds)) {
        return Ok((vec![ip], Duration::MAX));
    }
    let mut failed = None;
    for kind in kinds {
        match servers.ask(&format!("{target}."), kind).await {
            Reply::Addresses(ips, ttl) => return Ok((ips, ttl)),
            Reply::Services(..) | Reply::Alias(..) | Reply::Nothing(_) => {}
            Reply::Failed(why) | Reply::Silent(why) => failed = Some(why),
        }
    }
    failed.map_or(Ok((Vec::new(), Duration::MAX)), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::Settings;
    use crate::config::Sources;

    /// Answers from a table; every question is noted.
    #[derive(Default)]
    struct Scripted {
        table: Vec<(&'static str, Kind, Reply)>,
        asked: Mutex<Vec<String>>,
    }

    impl Servers for Scripted {
        fn candidates(&self, name: &str) -> Vec<String> {
            if name.ends_with('.') { vec![name.to_owned()] } else { vec![format!("{name}."), format!("{name}.lan.")] }
        }

        async fn ask(&self, full_name: &str, kind: Kind) -> Reply {
            self.asked.lock().unwrap().push(format!("{} {full_name}", kind.word()));
            let line = self.table.iter().find(|(name, of, _)| *name == full_name && *of == kind);
            line.map_or(Reply::Nothing(Denial::NoSuchName), |(_, _, reply)| reply.clone())
        }
    }

    fn a(last: u8, ttl_s: u64) -> Reply {
        Reply::Addresses(vec![IpAddr::from([127, 0, 0, last])], Duration::from_secs(ttl_s))
    }

    fn srv(records: &[(u16, u16, &str)]) -> Reply {
        let service = |&(priority, weight, target): &(u16, u16, &str)| Service {
            priority,
            weight,
            port: 8080,
            target: target.to_owned(),
        };
        Reply::Services(records.iter().map(service).collect(), Duration::from_secs(60))
    }

    /// The answer for `x`, and what was asked for it.
    fn search(order: &str, before: &Before, table: Vec<(&'static str, Kind, Reply)>) -> (Answer, Vec<String>) {
        let flags = [("dns_order".to_owned(), order.to_owned())];
        let rules = Rules::new(&Settings::load(Sources { flags: &flags, ..Sources::default() }).unwrap().settings);
        let servers = Scripted { table, ..Scripted::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answer = runtime.block_on(find(&servers, &Hosts::default(), &rules, "x", before));
        (answer, servers.asked.into_inner().unwrap())
    }

    #[track_caller]
    fn found(answer: Answer) -> Found {
        let Answer::Found(found) = answer else { panic!("{answer:?}") };
        found
    }

    fn last_bytes(found: &Found) -> Vec<(u8, Option<u32>)> {
        let of = |address: &Address| match address.ip {
            IpAddr::V4(ip) => (ip.octets()[3], address.weight),
            IpAddr::V6(_) => unreachable!(),
        };
        found.addresses.iter().map(of).collect()
    }

    #[test]
    fn types_are_tried_in_order_each_under_all_full_names() {
        let (answer, asked) = search("LAST,SRV,A,CNAME", &Before::default(), vec![("x.lan.", Kind::A, a(1, 5))]);
        assert_eq!(asked, ["SRV x.", "SRV x.lan.", "A x.", "A x.lan."]);
        let found = found(answer);
        assert_eq!((found.kind, found.ttl.as_secs()), (Kind::A, 5));
        let before = Before { kind: Some(Kind::A), ..Before::default() };
        let (_, asked) = search("LAST,SRV,A,CNAME", &before, vec![("x.lan.", Kind::A, a(1, 5))]);
        assert_eq!(asked, ["A x.", "A x.lan."], "the type that answered last comes first");
    }

    #[test]
    fn a_failure_outranks_a_denial_and_silence_ends_the_search() {
        let failure = || Reply::Failed("dns server error: 2 server failure".to_owned());
        let (answer, asked) = search("A", &Before::default(), vec![("x.", Kind::A, failure())]);
        assert_eq!((answer, asked.len()), (Answer::Failed("dns server error: 2 server failure".to_owned()), 2));
        let (answer, asked) =
            search("A", &Before::default(), vec![("x.", Kind::A, Reply::Silent("timeout".to_owned()))]);
        assert_eq!((answer, asked.len()), (Answer::Failed("timeout".to_owned()), 1));
        let empty = ("x.lan.", Kind::A, Reply::Nothing(Denial::Empty));
        assert_eq!(search("A", &Before::default(), vec![empty]).0, Answer::Nothing(Denial::Empty));
        assert_eq!(search("A", &Before::default(), vec![]).0, Answer::Nothing(Denial::NoSuchName));
    }

    #[test]
    fn srv_records_lead_to_the_addresses_of_their_targets() {
        let records = srv(&[(1, 30, "a.t"), (1, 10, "b.t"), (1, 5, "gone.t"), (2, 1, "backup.t")]);
        let table = vec![("x.", Kind::Srv, records), ("a.t.", Kind::A, a(1, 7)), ("b.t.", Kind::A, a(2, 90))];
        let (answer, asked) = search("SRV,A", &Before::default(), table);
        let found = found(answer);
        assert_eq!(last_bytes(&found), [(1, Some(30)), (2, Some(10))]);
        assert_eq!((found.kind, found.ttl.as_secs(), found.incomplete), (Kind::Srv, 7, None));
        assert_eq!(asked, ["SRV x.", "A a.t.", "A b.t.", "A gone.t."]);
    }

    #[test]
    fn a_target_that_cannot_be_asked_for_keeps_its_addresses() {
        let silent = || ("a.t.", Kind::A, Reply::Silent("timeout".to_owned()));
        let table =
            || vec![("x.", Kind::Srv, srv(&[(1, 1, "a.t"), (1, 1, "b.t")])), silent(), ("b.t.", Kind::A, a(2, 9))];
        let known = Targets::from([("a.t".to_owned(), vec![IpAddr::from([127, 0, 0, 1])])]);
        let before = Before { kind: Some(Kind::Srv), targets: known };
        let with_memory = found(search("SRV", &before, table()).0);
        assert_eq!(last_bytes(&with_memory), [(1, Some(1)), (2, Some(1))]);
        assert_eq!(with_memory.incomplete.as_deref(), Some("a.t: timeout"));
        assert_eq!(last_bytes(&found(search("SRV", &Before::default(), table()).0)), [(2, Some(1))]);
        let alone = vec![("x.", Kind::Srv, srv(&[(1, 1, "a.t")])), silent()];
        assert_eq!(search("SRV", &Before::default(), alone).0, Answer::Failed("a.t: timeout".to_owned()));
    }

    #[test]
    fn srv_records_that_lead_back_are_passed_over() {
        let table = vec![("x.", Kind::Srv, srv(&[(1, 1, "x")])), ("x.", Kind::A, a(3, 60))];
        assert_eq!(last_bytes(&found(search("SRV,A", &Before::default(), table).0)), [(3, None)]);
    }

    #[test]
    fn an_alias_is_followed_with_all_types_and_a_loop_ends() {
        let alias = |to: &str| Reply::Alias(to.to_owned(), Duration::from_secs(3));
        let table = vec![
            ("x.", Kind::Cname, alias("y.t")),
            ("y.t.", Kind::Srv, srv(&[(1, 1, "a.t")])),
            ("a.t.", Kind::A, a(1, 9)),
        ];
        let found = found(search("SRV,A,CNAME", &Before::default(), table).0);
        assert_eq!((last_bytes(&found), found.ttl.as_secs()), (vec![(1, Some(1))], 3));
        let table = vec![("x.", Kind::Cname, alias("y")), ("y.", Kind::Cname, alias("x"))];
        assert!(matches!(search("CNAME", &Before::default(), table).0, Answer::Failed(_)));
    }
}
