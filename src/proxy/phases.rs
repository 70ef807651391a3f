//! HOT: a request without plugins passes through by two comparisons.
//! The plugin phases before the upstream is asked (spec/plugins.md A.2 to A.5).
//! Owns: what a plugin is shown. Never: sends anything; an answer stands in the exchange's reply.

use crate::plugins::Verdict;
use crate::plugins::directory::Directory;
use crate::plugins::view::Editable;
use crate::plugins::view::EntityFacts;
use crate::plugins::view::PathCapture;
use crate::plugins::view::PathCaptures;
use crate::plugins::view::View;
use crate::proxy::exchange::Job;
use crate::router::Hit;
use crate::state::core::Links;
use crate::state::core::Route;

impl Job<'_> {
    /// Runs the rewrite phase of the configurations without a scope.
    pub fn rewrite(&mut self) {
        let links = self.core.state.borrow().links_unmatched();
        if links.chain.is_empty() {
            return;
        }
        let directory = self.core.state.borrow().directory();
        for placed in links.chain.global() {
            self.with_view(&links, &directory, |view| placed.instance.plugin.rewrite(view));
        }
    }

    /// Runs the access phases in order. After an answer the rest is only chosen, for the later phases
    /// (spec/plugins.md A.5).
    pub fn access(&mut self, links: &Links) -> Verdict {
        let mut verdict = Verdict::Continue;
        if links.chain.is_empty() {
            return verdict;
        }
        let directory = self.core.state.borrow().directory();
        let route = self.x.route.as_ref().map(|route| route.spec.id);
        let service = links.service.as_ref().map(|service| service.spec.id);
        for entry in links.chain.entries() {
            let consumer = self.x.identity.consumer;
            let chosen = self.core.state.borrow().plugins().resolve(entry, route, service, consumer);
            let Some(placed) = chosen else { continue };
            if verdict == Verdict::Continue {
                verdict = self.with_view(links, &directory, |view| placed.instance.plugin.access(view));
            }
            self.x.collected.push(placed);
        }
        verdict
    }

    fn with_view<T>(&mut self, links: &Links, directory: &Directory, phase: impl FnOnce(&mut View<'_>) -> T) -> T {
        let port = self.port();
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let body = if x.body.is_complete() { Some(x.body.bytes(src)) } else { None };
        let route = x.route.as_ref().map(|route| EntityFacts {
            id: route.spec.id,
            name: route.spec.name.as_deref(),
            document: &route.spec.document,
        });
        let service = links.service.as_ref().map(|service| EntityFacts {
            id: service.spec.id,
            name: service.spec.name.as_deref(),
            document: &service.spec.document,
        });
        let captures = RouteCaptures { route: x.route.as_deref(), hit: x.hit, path: &x.path };
        let mut view = View {
            method: x.head.method,
            method_text: x.head.method_span.of(src),
            scheme: "http",
            host: x.host_name.of(src),
            port,
            path: &x.path,
            captures: captures.hit.is_some().then_some(&captures as &dyn PathCaptures),
            query: Editable::new(x.query.map_or(&[], |span| span.of(src)), &mut x.query_edit),
            body: body.map(|bytes| Editable::new(bytes, &mut x.body_edit)),
            fields: &mut x.head.fields,
            source: src,
            identity: &mut x.identity,
            directory,
            core: &self.core.facts,
            conn: self.client.facts,
            route,
            service,
            client_ip: x.client_ip.unwrap_or(self.client.facts.peer.ip()),
            now_unix_ms: self.core.clock.unix_us() / 1000,
            reply: &mut x.reply,
        };
        phase(&mut view)
    }
}

/// What the route's path regex caught, found only if a plugin asks.
struct RouteCaptures<'a> {
    route: Option<&'a Route>,
    hit: Option<Hit>,
    path: &'a [u8],
}

impl PathCaptures for RouteCaptures<'_> {
    fn each(&self, tell: &mut dyn FnMut(PathCapture<'_>)) {
        let (Some(route), Some(hit)) = (self.route, self.hit) else { return };
        let Some(captures) = route.spec.matchers.captures(&hit, self.path) else { return };
        for (_, name, text) in captures.iter().filter(|(number, ..)| *number > 0) {
            tell(PathCapture { name, text });
        }
    }
}
