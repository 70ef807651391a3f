//! HOT: one pick, one pooled connection, one write in the usual case.
//! From a matched route to an upstream's answer: peers, tries, retries (spec/proxying.md section 8).
//! Never: tries a peer twice while another is left; repeats what may not be repeated.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::balancer::Ask;
use crate::balancer::Measures;
use crate::balancer::Peer;
use crate::balancer::Pick;
use crate::balancer::checks::Seen;
use crate::balancer::hash_on::HashOn;
use crate::balancer::vitals::Now;
use crate::metrics::full_record::Try;
use crate::proxy::dial::dial;
use crate::proxy::exchange::Exchange;
use crate::proxy::exchange::Job;
use crate::proxy::fault::Broken;
use crate::proxy::fault::Fault;
use crate::proxy::pool::UpstreamConn;
use crate::proxy::timeline::Phase;
use crate::state::core::Service;
use crate::state::hashing::Hashable;
use crate::state::peers::CorePeers;
use crate::state::peers::Lack;
use crate::stdx::random::Random;

/// Why one try did not end with an answer sent.
pub enum Failure {
    /// The try failed; another may be made.
    Broken(Broken),
    /// The exchange is over.
    Fault(Fault),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Exchange {
    /// Where on a continuum the request belongs.
    fn hash(&mut self, on: &HashOn, src: &[u8], random: &Random) -> u32 {
        let original = self.query.map_or(&[][..], |span| span.of(src));
        let hashable = Hashable {
            identity: &self.identity,
            client_ip: self.client_ip,
            fields: &self.head.fields,
            src,
            path: &self.path,
            query: self.query_edit.as_deref().unwrap_or(original),
            route: self.route.as_deref().map(|route| &*route.spec).zip(self.hit.as_ref()),
            random,
        };
        hashable.hash(on, &mut self.hash_text, &mut self.hash_cookie)
    }

    fn begin_try(&mut self, addr: SocketAddr, started_unix_us: u64, chosen_us: u64) {
        self.tries.push(Try {
            addr,
            started_unix_us,
            chosen_us,
            connect_us: None,
            took_us: 0,
            whole_us: 0,
            status: 0,
            failed: false,
        });
    }

    /// The last byte of an answer is there; the client may still take its time.
    pub fn end_answer(&mut self, now_us: u64) {
        if let (Some(last), Some(begun_us)) = (self.tries.last_mut(), self.handed_over_us) {
            last.whole_us = now_us.saturating_sub(begun_us);
        }
    }

    fn end_try(&mut self, begun_us: u64, now_us: u64, result: &Result<(), Failure>) {
        let Some(last) = self.tries.last_mut() else { return };
        if last.whole_us == 0 {
            last.whole_us = now_us.saturating_sub(begun_us);
        }
        match result {
            Err(Failure::Broken(broken)) => {
                (last.status, last.failed) = (broken.status(), true);
                last.whole_us = now_us.saturating_sub(begun_us);
                last.took_us = last.whole_us;
            }
            _ => {
                last.status = self.response.status;
                last.took_us = self.first_byte_us.saturating_sub(begun_us);
            }
        }
    }
}

impl Job<'_> {
    /// Asks the service's peers until one has answered and its answer was sent.
    pub async fn forward(&mut self, service: &Rc<Service>) -> Result<(), Fault> {
        let buffers_request = self.x.route.as_ref().is_none_or(|route| route.spec.request_buffering);
        match buffers_request {
            true => self.gather_body().await?,
            false => self.take_body_at_hand()?,
        }
        self.x.balanced = true;
        let since_us = self.stopwatch();
        let peers = self.peers(service).await?;
        let hash = peers.set.hash_on().map_or(0, |on| self.x.hash(on, self.client.buf.bytes(), &self.core.random));
        let may_repeat = self.x.may_repeat(self.client.buf.bytes());
        let mut tries_left = service.spec.retries;
        self.note_time(since_us, Phase::Balancer, None);
        loop {
            let begun_us = self.core.clock.now_us();
            let now_us = self.core.clock.refresh();
            let ask = Ask { turn: peers.turn(), tried: &self.x.tried, hash, now_ms: now_us / 1000, may_repeat };
            let pick = match peers.pick(&ask) {
                Ok(pick) => pick,
                Err(lack) => return Err(self.lacking(lack, &service.spec.host)),
            };
            self.x.handed_over_us = Some(now_us);
            self.x.begin_try(pick.peer.addr, self.core.clock.unix_us(), now_us.saturating_sub(begun_us));
            let result = self.try_peer(service, &peers, pick).await;
            self.x.end_try(now_us, self.core.clock.now_us(), &result);
            let broken = match result {
                Ok(()) => {
                    self.answered_by(service, &peers, pick);
                    return Ok(());
                }
                Err(Failure::Fault(fault)) => {
                    if fault == Fault::Truncated && !self.is_judged(&peers) {
                        self.judge(&peers, pick, Seen::Failed);
                    }
                    return Err(fault);
                }
                Err(Failure::Broken(broken)) => broken,
            };
            self.x.tried.add(pick.peer.addr);
            let is_last = tries_left == 0 || !broken.may_retry(may_repeat);
            if !broken.ours {
                // The last failure is judged by the status that it ends in (spec/balancer.md section 13).
                let seen = if is_last && !pick.is_trial { Seen::Status(broken.status()) } else { broken.seen() };
                self.judge(&peers, pick, seen);
            }
            if is_last {
                return Err(Fault::Upstream { status: broken.status() });
            }
            tries_left -= 1;
            self.core.counters.retries.add();
        }
    }

    /// One try, and a second on a fresh connection where a parked one had died: that says nothing about the peer, and no try
    /// is used up.
    async fn try_peer(&mut self, service: &Service, peers: &CorePeers, pick: Pick<'_>) -> Result<(), Failure> {
        let _in_flight = (peers.set.balancer.measures() == Measures::InFlight).then(|| pick.peer.vitals.enter());
        let result = self.attempt(service, peers, pick, false).await;
        match &result {
            Err(Failure::Broken(broken))
                if broken.stale && broken.may_retry(self.x.may_repeat(self.client.buf.bytes())) =>
            {
                self.attempt(service, peers, pick, true).await
            }
            _ => result,
        }
    }

    /// What an answer says of its peer.
    fn answered_by(&self, service: &Service, peers: &Rc<CorePeers>, pick: Pick<'_>) {
        if peers.set.balancer.measures() == Measures::Latency
            && let Some(handed_over_us) = self.x.handed_over_us
        {
            // Up to the first byte: how long the rest takes is rather the client's doing.
            let taken_us = self.x.first_byte_us.saturating_sub(handed_over_us);
            pick.peer.vitals.observe_latency(taken_us as f32 / 1e6, self.core.clock.now_ms());
        }
        if !pick.is_trial && !self.is_judged(peers) {
            self.judge(peers, pick, Seen::Status(self.x.response.status));
        }
        let addr = pick.peer.addr;
        if peers.set.balancer.checks().is_some() && !pick.peer.vitals.is_available() {
            return self.core.pool.close(addr);
        }
        let now = self.core.state.borrow().peers(service);
        if !now.is_some_and(|now| Rc::ptr_eq(&now, peers) || now.set.peers().iter().any(|peer| peer.addr == addr)) {
            // It was taken out while it served this request: nobody would use its connection again.
            self.core.pool.close(addr);
        }
    }

    /// Judges a peer by the head of its answer, before a byte of it leaves: whoever has the answer finds the peer ejected. A
    /// success counts once all of the answer was sent, for it may yet be cut short; but a trial's at once, for an answer may
    /// last for ever.
    pub fn judge_head(&self, peers: &CorePeers, pick: Pick<'_>) {
        if pick.is_trial || self.is_judged(peers) {
            self.judge(peers, pick, Seen::Status(self.x.response.status));
        }
    }

    /// Whether the status of the answer was reason enough for judging it by its head.
    fn is_judged(&self, peers: &CorePeers) -> bool {
        let checks = peers.set.balancer.checks();
        checks.is_some_and(|checks| checks.fails(Seen::Status(self.x.response.status)))
    }

    /// Reports what was seen of a peer to its passive checks.
    fn judge(&self, peers: &CorePeers, pick: Pick<'_>, seen: Seen) {
        let Some(checks) = peers.set.balancer.checks() else { return };
        let clock = &self.core.clock;
        let now = Now { ms: clock.now_ms(), unix_ms: clock.unix_us() / 1000 };
        match pick.is_trial {
            true => pick.peer.vitals.report_trial(checks, seen, now),
            false => pick.peer.vitals.report_traffic(checks, seen, now),
        }
    }

    /// The service's peers; waits for the first resolution of its name if that is under way.
    async fn peers(&mut self, service: &Service) -> Result<Rc<CorePeers>, Fault> {
        let core = self.core;
        let is_pending = || core.state.borrow().peers(service).is_some_and(|peers| peers.set.is_pending());
        if is_pending() {
            core.wait_for_names(|| !is_pending()).await;
        }
        let peers = core.state.borrow().peers(service);
        peers.ok_or_else(|| self.lacking(&Lack::NotFound, &service.spec.host))
    }

    /// spec/balancer.md section 2. On a retry nothing specific is said.
    fn lacking(&mut self, lack: &Lack, host: &str) -> Fault {
        if !self.x.tried.is_empty() {
            return Fault::Upstream { status: if *lack == Lack::NoPeer { 503 } else { 500 } };
        }
        let (status, message) = lack.answer(host);
        self.x.reply.gateway(status, &message);
        Fault::Reply
    }

    async fn dial(&mut self, peer: &Peer, service: &Service) -> Result<UpstreamConn, Failure> {
        let dialling = dial(self.core, peer.addr, service.spec.connect_timeout_ms);
        let result = match self.heeds_client() {
            true => self.client.unless_gone(dialling).await.ok_or(Fault::ClientGone)?,
            false => dialling.await,
        };
        Ok(result?)
    }

    /// One try on one peer; `fresh` passes the pool by.
    async fn attempt(
        &mut self,
        service: &Service,
        peers: &CorePeers,
        pick: Pick<'_>,
        fresh: bool,
    ) -> Result<(), Failure> {
        let peer = pick.peer;
        let pooled = if fresh { None } else { self.core.pool.take(peer.addr) };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => self.dial(peer, service).await?,
        };
        upstream.requests += 1;
        if let (Some(last), Some(begun_us)) = (self.x.tries.last_mut(), self.x.handed_over_us) {
            last.connect_us =
                Some(if upstream.requests == 1 { self.core.clock.refresh().saturating_sub(begun_us) } else { 0 });
        }
        self.write_request_head(&service.spec, peer, peers.set.host_header());
        let ended_early = self.upload(&mut upstream, &service.spec).await?;
        self.respond(upstream, peers, pick, &service.spec, ended_early).await
    }
}
