//! `POST /explain`: what would become of a request, and why.
//! Owns: what an operator may say of a request, and how the answer is written. Never: decides anything about the request:
//! a core does, with what it serves with ([`crate::state::explain`]).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Map;
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::config::Settings;
use crate::control::admin::Admin;
use crate::control::admin::Call;
use crate::control::admin::explained;
use crate::control::admin::explained::Other;
use crate::control::admin::paths::Variable;
use crate::control::admin::problem::Problem;
use crate::control::admin::reply::Reply;
use crate::control::admin::rows::Name;
use crate::control::store::Publish;
use crate::entity::consumer::CONSUMERS;
use crate::entity::violation::Violation;
use crate::entity::violation::Violations;
use crate::http::fields::is_token;
use crate::limits;
use crate::router::examine::examine;
use crate::state::core::CoreState;
use crate::state::explain::Asked;
use crate::state::explain::Explained;
use crate::state::explain::explain;
use crate::stdx::clock;
use crate::stdx::random::Random;

/// How long a core may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

const FIELDS: &[&str] = &["client_ip", "consumer", "headers", "host", "method", "path", "port", "scheme", "sni"];

impl<P: Publish> Admin<P> {
    pub(super) async fn explain(&self, call: &Call) -> Result<Reply, Problem> {
        let asked = self.asked(&call.input.fields)?;
        let question = asked.clone();
        let now_ms = clock::process_ms();
        let found =
            self.look(move |state, settings| explain(state, settings, &question, now_ms, &Random::from_entropy()));
        let body = match found.await? {
            Err(bad) => explained::refused(bad),
            Ok(found) => {
                let others = self.others(&found).await?;
                explained::body(&found, &others, &self.store.view())
            }
        };
        Ok(Reply::json(StatusCode::OK, &body))
    }

    /// Asks the first core.
    async fn look<T: Send + 'static>(
        &self,
        ask: impl Fn(&CoreState, &Settings) -> T + Send + Sync + 'static,
    ) -> Result<T, Problem> {
        let (answer, answered) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let look = move |state: &CoreState, settings: &Settings| {
            let answer = answer.lock().ok().and_then(|mut answer| answer.take());
            if let Some(answer) = answer {
                // Nobody listens any more: the client has gone.
                let _ = answer.send(ask(state, settings));
            }
        };
        let unanswered = || Problem::Plain(StatusCode::SERVICE_UNAVAILABLE, "no core answers".to_string());
        if !self.node.show(Arc::new(look)) {
            return Err(unanswered());
        }
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(unanswered()),
        }
    }

    /// The routes that come nearest to the request beside the one that matched.
    async fn others(&self, found: &Explained) -> Result<Vec<Other>, Problem> {
        let mut nearest: Vec<Other> = Vec::new();
        let mut position = Some(0);
        while let Some(from) = position {
            let count = limits::EXPLAIN_ROUTES_AT_ONCE;
            let (routes, next) = self.look(move |state, _| state.routes_from(from, count)).await?;
            position = next;
            for (route, listed) in routes {
                if found.matched.as_ref().is_some_and(|(winner, _)| winner.id == route.id) {
                    continue;
                }
                let examined = found.arrived.query(|query| examine(&route.matchers, query));
                nearest.push(Other { route, examined, listed });
            }
            nearest.sort_by_key(Other::distance);
            nearest.truncate(limits::EXPLAIN_CANDIDATES_MAX);
        }
        Ok(nearest)
    }

    /// The request of a body, whole or every reason why not.
    fn asked(&self, fields: &Map<String, Value>) -> Result<Asked, Problem> {
        let mut given = Given { fields, wrong: Violations::default() };
        for name in fields.keys().filter(|name| !FIELDS.contains(&name.as_str())) {
            given.wrong.set(name, Violation::Text("unknown field".to_string()));
        }
        let method = given.text("method").unwrap_or("GET");
        given.check("method", is_token(method.as_bytes()), "not a method");
        let scheme = given.text("scheme").unwrap_or("http");
        given.check("scheme", matches!(scheme, "http" | "https"), "expected one of: http, https");
        let path = given.text("path").unwrap_or("/");
        let is_target = path.starts_with('/') && path.bytes().all(|byte| byte > b' ' && byte < 0x7f);
        given.check("path", is_target, "should begin with / and be percent-encoded, with its query if it has one");
        let host = given.text("host");
        given.check("host", host.is_none_or(is_value), "not a host");
        let headers = given.headers();
        let client_ip = given.parsed("client_ip", "expected an IP address").unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let sni = given.text("sni").map(|name| name.as_bytes().to_vec());
        given.check("sni", sni.is_none() || scheme == "https", "only https has a server name");
        let listener = self.listener();
        let port = given.number("port").unwrap_or(u64::from(listener.port()));
        given.check("port", (1..=65535).contains(&port), "value should be between 1 and 65535");
        let consumer = given.text("consumer").map(str::to_owned);
        if !given.wrong.is_empty() {
            return Err(Problem::Schema(given.wrong));
        }
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        let own_host = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
        match host {
            Some(host) => head.push_str(&format!("Host: {host}\r\n")),
            None if own_host => {}
            // Only the older version may go without.
            None => head = format!("{method} {path} HTTP/1.0\r\n"),
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        Ok(Asked {
            head: head.into_bytes(),
            https: scheme == "https",
            sni,
            peer: SocketAddr::new(client_ip, 0),
            local: SocketAddr::new(listener.ip(), port as u16),
            consumer: consumer.map(|name| self.consumer(name)).transpose()?,
        })
    }

    fn consumer(&self, name: String) -> Result<Uuid, Problem> {
        let tables = self.store.view();
        let variable = Variable { raw: name.clone(), decoded: Ok(name.clone()) };
        let found = Name::read(&CONSUMERS, &variable).ok().and_then(|name| name.find(&CONSUMERS, &tables));
        found.ok_or_else(|| Problem::Schema(Violations::of("consumer", format!("there is no consumer '{name}'"))))
    }

    /// Where the proxy listens first.
    fn listener(&self) -> SocketAddr {
        let first = self.configuration.get("proxy_listeners").and_then(|listeners| listeners.get(0));
        let ip = first.and_then(|listener| listener["ip"].as_str()?.parse::<IpAddr>().ok());
        let ip = ip.filter(|ip| !ip.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let port = first.and_then(|listener| listener["port"].as_u64()).unwrap_or(80);
        SocketAddr::new(ip, port as u16)
    }
}

/// What was sent, and what is wrong with it.
struct Given<'a> {
    fields: &'a Map<String, Value>,
    wrong: Violations,
}

impl<'a> Given<'a> {
    fn check(&mut self, field: &str, holds: bool, otherwise: &str) {
        if !holds && !self.wrong.touches(field) {
            self.wrong.set(field, Violation::Text(otherwise.to_string()));
        }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &str) -> Option<&'a str> {
        let value = self.get(field)?;
        self.check(field, value.is_string(), "expected a string");
        value.as_str()
    }

    fn parsed<T: std::str::FromStr>(&mut self, field: &str, otherwise: &str) -> Option<T> {
        let parsed = self.text(field)?.parse().ok();
        self.check(field, parsed.is_some(), otherwise);
        parsed
    }

    /// A number, or one as the text of a form.
    fn number(&mut self, field: &str) -> Option<u64> {
        let value = self.get(field)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        self.check(field, number.is_some(), "expected an integer");
        number
    }

    /// Names with their values, in the order given.
    fn headers(&mut self) -> Vec<(&'a str, &'a str)> {
        let Some(value) = self.get("headers") else { return Vec::new() };
        let Some(map) = value.as_object() else {
            self.check("headers", false, "expected a map");
            return Vec::new();
        };
        let mut headers = Vec::new();
        for (name, value) in map {
            let one = std::slice::from_ref(value);
            let values = value.as_array().map_or(one, Vec::as_slice);
            let texts: Option<Vec<&str>> =
                values.iter().map(|value| value.as_str().filter(|text| is_value(text))).collect();
            match texts {
                Some(texts) if is_token(name.as_bytes()) => {
                    headers.extend(texts.into_iter().map(|text| (&**name, text)))
                }
                Some(_) => self.check("headers", false, &format!("'{name}' is not a header name")),
                None => self.check(
                    "headers",
                    false,
                    &format!("'{name}': expected a string, or a list of strings, of one line"),
                ),
            }
        }
        headers
    }
}

fn is_value(text: &str) -> bool {
    !text.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f)
}
