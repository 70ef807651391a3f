//! HOT: a request without plugins passes through by two comparisons.
//! The plugin phases of a request (spec/plugins.md A.2 to A.5).
//! Owns: what a plugin is shown. Never: sends anything; an answer stands in the exchange's reply.

use crate::plugins::Verdict;
use crate::plugins::ask::Answer;
use crate::plugins::chain::Scope;
use crate::plugins::directory::Directory;
use crate::plugins::view::BodyUse;
use crate::plugins::view::BodyView;
use crate::plugins::view::Editable;
use crate::plugins::view::Figures;
use crate::plugins::view::LogView;
use crate::plugins::view::Notes;
use crate::plugins::view::PathCaptures;
use crate::plugins::view::PieceView;
use crate::plugins::view::ResponseView;
use crate::plugins::view::View;
use crate::proxy::core::Core;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Fault;
use crate::proxy::timeline::Phase;
use crate::state::core::Links;
use crate::state::request::Captured;

impl Job<'_> {
    /// Runs the rewrite phase of the configurations without a scope.
    pub fn rewrite(&mut self) {
        let links = self.core.state.borrow().links_unmatched();
        if links.chain.is_empty() {
            return;
        }
        let directory = self.core.state.borrow().directory();
        let mut notes = Notes::default();
        for placed in links.chain.global() {
            let since_us = self.stopwatch();
            self.with_view(&links, &directory, placed.scope, &mut notes, |view| placed.instance.plugin.rewrite(view));
            self.note_time(since_us, Phase::Rewrite, Some(placed.instance.kind));
        }
    }

    /// Runs the access phases in order. After an answer the rest is only chosen, for the later phases
    /// (spec/plugins.md A.5).
    ///
    /// # Errors
    /// What ended the request meanwhile.
    pub async fn access(&mut self, links: &Links) -> Result<Verdict, Fault> {
        let mut verdict = Verdict::Continue;
        if links.chain.is_empty() {
            return Ok(verdict);
        }
        let directory = self.core.state.borrow().directory();
        let route = self.x.route.as_ref().map(|route| route.spec.id);
        let service = links.service.as_ref().map(|service| service.spec.id);
        for entry in links.chain.entries() {
            let consumer = self.x.identity.consumer;
            let chosen = self.core.state.borrow().plugins().resolve(entry, route, service, consumer);
            let Some(placed) = chosen else { continue };
            let at = self.x.collected.len();
            self.x.collect(placed.clone());
            if verdict == Verdict::Continue {
                let since_us = self.stopwatch();
                let limit = self.x.body_bytes_max;
                let plugin = &placed.instance.plugin;
                let mut notes = std::mem::take(&mut self.x.notes[at]);
                verdict = self.with_view(links, &directory, placed.scope, &mut notes, |view| plugin.access(view));
                while verdict == Verdict::Ask {
                    let answer = self.answer_of_question().await;
                    let scope = placed.scope;
                    verdict =
                        self.with_view(links, &directory, scope, &mut notes, |view| plugin.answered(view, answer));
                }
                self.x.notes[at] = notes;
                if self.x.body_bytes_max != limit && verdict == Verdict::Continue {
                    // Who comes after this plugin has nothing to do with a body that is too long.
                    verdict = match self.gather_body().await {
                        Err(Fault::Reply) => Verdict::Reply,
                        gathered => gathered.map(|()| Verdict::Continue)?,
                    };
                }
                self.note_time(since_us, Phase::Access, Some(placed.instance.kind));
            }
        }
        Ok(verdict)
    }

    /// Puts the question that a plugin left, and waits.
    async fn answer_of_question(&mut self) -> Answer {
        match self.x.asking.take() {
            Some(asking) => self.core.ask(asking).await,
            None => Answer::Failed("the plugin asked nothing".into()),
        }
    }

    /// Runs the response_head phase of the collected configurations; what they want of the body stands in `x.body_use`
    /// then. Answers whether the body is to be dropped.
    ///
    /// `upstream`: the bytes that the fields of an upstream's response lie in; `None`: the response is the gateway's.
    pub fn run_response_head(&mut self, upstream: Option<&[u8]>, proxied: bool) -> bool {
        self.x.body_use = BodyUse::Pass;
        if self.x.collected.is_empty() {
            return false;
        }
        let request_source = self.client.buf.bytes();
        let directory = self.core.state.borrow().directory();
        let x = &mut *self.x;
        let (fields, source) = match upstream {
            Some(source) => (&mut x.response.fields, source),
            None => (&mut x.reply.fields, &[][..]),
        };
        let mut drop_body = false;
        let clock = &self.core.clock;
        for (placed, notes) in x.collected.iter().zip(&mut x.notes) {
            notes.body = BodyUse::Pass;
            let mut view = ResponseView {
                status: x.status,
                drop_body,
                fields: &mut *fields,
                source,
                request_fields: &x.head.fields,
                request_source,
                proxied,
                from_upstream: upstream.is_some(),
                method: x.head.method,
                notes,
                identity: &x.identity,
                directory: &directory,
                core: &self.core.facts,
                conn: self.client.facts,
                now_unix_ms: self.core.clock.unix_us() / 1000,
                asking: &mut x.asking,
            };
            let since_us = (x.timings.wanted || x.timeline.is_some()).then(|| clock.refresh());
            placed.instance.plugin.response_head(&mut view);
            (x.status, drop_body) = (view.status, view.drop_body);
            x.body_use = x.body_use.max(notes.body);
            if let Some(since_us) = since_us {
                let us = clock.refresh().saturating_sub(since_us);
                let kind = placed.instance.kind;
                x.timings.note(since_us.saturating_sub(x.started_us), us, Phase::HeaderFilter, Some(kind));
                if let Some(timeline) = &mut x.timeline {
                    timeline.note(Phase::HeaderFilter, Some(kind), us);
                }
            }
        }
        drop_body
    }

    /// Waits for what a plugin wants done before the response leaves.
    pub async fn do_before_response(&mut self) {
        if let Some(asking) = self.x.asking.take() {
            self.core.ask(asking).await;
        }
    }

    /// Runs the response_body phase over the body in `x.held`.
    pub fn run_response_body(&mut self) {
        let x = &mut *self.x;
        for (placed, notes) in x.collected.iter().zip(&mut x.notes) {
            if notes.body == BodyUse::Whole {
                placed.instance.plugin.response_body(&mut BodyView { status: x.status, body: &mut x.held, notes });
            }
        }
    }

    /// Runs the log phase of the collected configurations.
    pub fn run_log(&mut self, figures: Figures) {
        let directory = self.core.state.borrow().directory();
        let x = &mut *self.x;
        let service = x.links.as_ref().and_then(|links| links.service.as_deref());
        for (placed, notes) in x.collected.iter().zip(&mut x.notes) {
            let mut tell = None;
            placed.instance.plugin.log(&mut LogView {
                status: x.status,
                from_upstream: x.from_upstream,
                route: x.route.as_deref().map(|route| route.spec.facts()),
                service: service.map(|service| service.spec.facts()),
                identity: &x.identity,
                directory: &directory,
                notes,
                client_ip: x.client_ip.unwrap_or(self.client.facts.peer.ip()),
                figures,
                core: &self.core.facts,
                now_unix_ms: self.core.clock.unix_us() / 1000,
                tell: &mut tell,
            });
            if let Some(question) = tell {
                self.core.tell(question);
            }
        }
    }

    fn with_view<T>(
        &mut self,
        links: &Links,
        directory: &Directory,
        scope: Scope,
        notes: &mut Notes,
        phase: impl FnOnce(&mut View<'_>) -> T,
    ) -> T {
        let port = self.port();
        let src = self.client.buf.bytes();
        let x = &mut *self.x;
        let body = if x.body.is_in_memory() { Some(x.body.bytes(src)) } else { None };
        let route = x.route.as_deref().map(|route| route.spec.facts());
        let service = links.service.as_deref().map(|service| service.spec.facts());
        let captures = Captured { route: x.route.as_deref().map(|route| &*route.spec), hit: x.hit, path: &x.path };
        let mut view = View {
            method: x.head.method,
            method_text: x.head.method_span.of(src),
            scheme: "http",
            peer_is_trusted: x.trusted,
            host: x.host_name.of(src),
            port,
            version: x.head.version,
            target: x.head.target.of(src),
            path: &x.path,
            captures: captures.hit.is_some().then_some(&captures as &dyn PathCaptures),
            query: Editable::new(x.query.map_or(&[], |span| span.of(src)), &mut x.query_edit),
            body: body.map(|bytes| Editable::new(bytes, &mut x.body_edit)),
            body_bytes_max: &mut x.body_bytes_max,
            rewrite: &mut x.rewrite,
            fields: &mut x.head.fields,
            source: src,
            identity: &mut x.identity,
            directory,
            core: &self.core.facts,
            conn: self.client.facts,
            scope,
            route,
            service,
            client_ip: x.client_ip.unwrap_or(self.client.facts.peer.ip()),
            now_unix_ms: self.core.clock.unix_us() / 1000,
            reply: &mut x.reply,
            notes,
            told: &mut x.told,
            asking: &mut x.asking,
        };
        phase(&mut view)
    }
}

impl Exchange {
    /// Shows a piece of the body to those who wanted to see it.
    #[inline]
    pub fn show_piece(&mut self, core: &Core, piece: &[u8], last: bool) {
        if self.body_use != BodyUse::Pass {
            self.show_piece_to_all(core, piece, last);
        }
    }

    fn show_piece_to_all(&mut self, core: &Core, piece: &[u8], last: bool) {
        let now_unix_ms = core.clock.unix_us() / 1000;
        for (placed, notes) in self.collected.iter().zip(&mut self.notes) {
            if notes.body == BodyUse::Pieces {
                placed.instance.plugin.response_piece(&mut PieceView { piece, last, notes, now_unix_ms });
            }
        }
    }
}
