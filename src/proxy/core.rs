//! HOT: borrows only.
//! What all connections of one core share: configuration, clock, buffers, pools, counters.
//! Always: borrows of cells end before the next await.

use std::cell::Cell;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::task::Waker;
use std::time::Duration;

use crate::config::ErrorTemplate;
use crate::config::ErrorType;
use crate::config::Settings;
use crate::config::log_format::LogFormat;
use crate::config::log_format::Source;
use crate::http::known::Known;
use crate::http::parse::HeadLimits;
use crate::http::reply::ErrorFormat;
use crate::http::reply::Templates;
use crate::limits;
use crate::metrics::counters::CoreCounters;
use crate::plugins::ask::Question;
use crate::plugins::view::CoreFacts;
use crate::proxy::asks::Asks;
use crate::proxy::buffers::Buffers;
use crate::proxy::deadline::Deadlines;
use crate::proxy::exchange::Exchange;
use crate::proxy::parked::Parked;
use crate::proxy::pool::Pool;
use crate::proxy::spool::Spooled;
use crate::state::core::CoreState;
use crate::state::mailbox::Asked;
use crate::state::mailbox::Outbox;
use crate::state::request::request_limits;
use crate::stdx::clock::Clock;
use crate::stdx::random::Random;

/// Settings, with what requests need of them worked out.
pub struct Rules {
    pub settings: Arc<Settings>,
    pub request_limits: HeadLimits,
    pub response_limits: HeadLimits,
    /// Of error pages for clients that name none.
    pub error_format: ErrorFormat,
    pub templates: Templates,
    /// What the access log wants of a request; `None`: there is none.
    pub logged: Option<Logged>,
}

/// What the format of the access log shows.
pub struct Logged {
    /// In the order of the format's sources.
    pub texts: Vec<LoggedText>,
    pub tries: bool,
    pub sent_head: bool,
}

/// A text of a request, ready to be found.
pub enum LoggedText {
    Line,
    Path,
    Host,
    /// Of a header of the request.
    Known(Known),
    /// Lower-case, with `-` for `_`.
    Named(String),
    /// Likewise, of the response.
    Sent(String),
}

impl Logged {
    fn new(format: &LogFormat) -> Self {
        let text = |source: &Source| match source {
            Source::Line => LoggedText::Line,
            Source::Path => LoggedText::Path,
            Source::Host => LoggedText::Host,
            Source::RequestHeader(name) => match Known::of(name.as_bytes()) {
                Known::Other => LoggedText::Named(name.clone()),
                known => LoggedText::Known(known),
            },
            Source::SentHeader(name) => LoggedText::Sent(name.clone()),
        };
        Self {
            texts: format.sources.iter().map(text).collect(),
            tries: format.shows_tries(),
            sent_head: format.shows_sent_head(),
        }
    }
}

impl Rules {
    /// Derives the rules.
    pub fn new(settings: Arc<Settings>) -> Self {
        let request_limits = request_limits(&settings);
        let upstream_head = settings.upstream_head_bytes_max as usize;
        let response_limits = HeadLimits {
            line_bytes_max: upstream_head,
            field_bytes_max: upstream_head,
            head_bytes_max: upstream_head,
            ..HeadLimits::RESPONSE
        };
        let error_format = match settings.error_default_type {
            ErrorType::Plain => ErrorFormat::Plain,
            ErrorType::Html => ErrorFormat::Html,
            ErrorType::Json => ErrorFormat::Json,
            ErrorType::Xml => ErrorFormat::Xml,
        };
        let template = |given: &Option<ErrorTemplate>| given.as_ref().map(|template| template.parts.clone());
        let templates = Templates {
            json: template(&settings.error_template_json),
            html: template(&settings.error_template_html),
            xml: template(&settings.error_template_xml),
            plain: template(&settings.error_template_plain),
        };
        let logged = settings.proxy_access_log.as_ref().map(|log| Logged::new(&log.format));
        Self { settings, request_limits, response_limits, error_format, templates, logged }
    }
}

/// One core.
pub struct Core {
    pub index: usize,
    pub clock: Clock,
    pub random: Random,
    pub state: RefCell<CoreState>,
    pub buffers: Buffers,
    pub deadlines: Rc<Deadlines>,
    pub pool: Pool,
    pub parked: Parked,
    /// Whether a read under way can be dropped without losing bytes. On epoll nothing is read before it is asked for. On
    /// io_uring it holds with DEFER_TASKRUN: the kernel goes on with a waiting read only when the ring is entered for
    /// completions, and what was submitted comes first, so the cancellation that goes with the drop precedes every byte.
    pub withdraws_reads: bool,
    withdrawals_left: Cell<u32>,
    pub counters: Arc<CoreCounters>,
    pub facts: CoreFacts,
    pub outbox: Outbox,
    /// Requests that wait for answers of the control plane.
    pub asks: Asks,
    /// What the spooled bodies of the node hold.
    pub spooled: Spooled,
    pub debug_token: Box<str>,
    /// Accepts nothing more and closes connections as they become idle.
    pub draining: Cell<bool>,
    rules: RefCell<Rc<Rules>>,
    records: RefCell<Vec<u8>>,
    /// Full records, for plugins that ship.
    full: RefCell<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "an exchange is large and changes hands for every request")]
    exchanges: RefCell<Vec<Box<Exchange>>>,
    name_waiters: RefCell<Vec<Waker>>,
}

impl Core {
    /// A core with the given configuration.
    #[expect(clippy::too_many_arguments, reason = "the parts of a core, each of another kind, named by one caller")]
    pub fn new(
        index: usize,
        state: CoreState,
        settings: Arc<Settings>,
        facts: CoreFacts,
        counters: Arc<CoreCounters>,
        outbox: Outbox,
        spooled: Spooled,
        debug_token: Box<str>,
    ) -> Self {
        Self {
            index,
            clock: Clock::new(),
            random: Random::from_entropy(),
            state: RefCell::new(state),
            buffers: Buffers::default(),
            deadlines: Rc::default(),
            pool: Pool::default(),
            parked: Parked::new().expect("a core starts before clients take descriptors"),
            withdraws_reads: false,
            withdrawals_left: Cell::new(limits::WITHDRAWALS_PER_SWEEP_MAX),
            counters,
            facts,
            outbox,
            asks: Asks::default(),
            spooled,
            debug_token,
            draining: Cell::new(false),
            rules: RefCell::new(Rc::new(Rules::new(settings))),
            records: RefCell::new(Vec::with_capacity(limits::RECORD_BATCH_BYTES)),
            full: RefCell::default(),
            exchanges: RefCell::default(),
            name_waiters: RefCell::default(),
        }
    }

    /// The settings in force; a request keeps those it began with.
    pub fn rules(&self) -> Rc<Rules> {
        self.rules.borrow().clone()
    }

    /// Takes new settings.
    pub fn set_rules(&self, settings: Arc<Settings>) {
        *self.rules.borrow_mut() = Rc::new(Rules::new(settings));
    }

    /// An exchange to serve a request with.
    pub fn take_exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an exchange back with the memory it has grown; the number kept is bounded.
    pub fn give_exchange(&self, mut exchange: Box<Exchange>) {
        let mut kept = self.exchanges.borrow_mut();
        if kept.len() < limits::EXCHANGES_KEPT_MAX && exchange.clear_for_reuse() {
            kept.push(exchange);
        }
    }

    /// Appends a finished-request record; hands the batch over when it is full.
    pub fn record(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut records = self.records.borrow_mut();
        encode(&mut records);
        if records.len() >= limits::RECORD_BATCH_BYTES - limits::RECORD_ROOM_BYTES {
            self.hand_over(&mut records);
        }
    }

    fn hand_over(&self, records: &mut Vec<u8>) {
        if records.is_empty() {
            return;
        }
        let batch = std::mem::replace(records, Vec::with_capacity(limits::RECORD_BATCH_BYTES));
        if !self.outbox.records(batch) {
            self.counters.records_dropped.add();
        }
    }

    /// Appends a full record; hands the batch over when it is full.
    pub fn record_full(&self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut full = self.full.borrow_mut();
        if full.capacity() == 0 {
            full.reserve_exact(limits::FULL_BATCH_BYTES);
        }
        encode(&mut full);
        if full.len() >= limits::FULL_BATCH_BYTES - limits::FULL_RECORD_ROOM_BYTES {
            self.hand_over_full(&mut full);
        }
    }

    fn hand_over_full(&self, full: &mut Vec<u8>) {
        if !full.is_empty() && !(self.outbox.ship)(std::mem::take(full)) {
            self.counters.full_batches_dropped.add();
        }
    }

    /// Puts a question whose answer nobody waits for.
    pub fn tell(&self, question: Question) {
        self.counters.questions.add();
        let asked = Asked { core: self.index, ticket: None, question, patience_ms: limits::TOLD_MS };
        if !(self.outbox.ask)(asked) {
            self.counters.questions_unanswered.add();
        }
    }

    /// Whether a read may be withdrawn now; some more may after the next sweep.
    pub fn may_withdraw(&self) -> bool {
        let left = self.withdrawals_left.get();
        self.withdrawals_left.set(left.saturating_sub(1));
        left > 0
    }

    /// The work of the sweep, some times a second.
    pub fn tick(&self) {
        self.withdrawals_left.set(limits::WITHDRAWALS_PER_SWEEP_MAX);
        self.clock.tick();
        let now_ms = self.clock.now_ms();
        self.deadlines.sweep(now_ms);
        self.pool.expire(now_ms, self.rules.borrow().settings.upstream_keepalive_idle_timeout_ms);
        self.facts.cache.sweep();
        self.hand_over(&mut self.records.borrow_mut());
        self.hand_over_full(&mut self.full.borrow_mut());
        self.facts.series.publish();
    }

    /// Wakes requests that wait for a name.
    pub fn wake_name_waiters(&self) {
        self.name_waiters.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Waits until `ready`, which is asked again at every news of names, or until the time is up.
    pub async fn wait_for_names(&self, mut ready: impl FnMut() -> bool) {
        let changed = std::future::poll_fn(|cx| {
            if ready() {
                return Poll::Ready(());
            }
            self.name_waiters.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        });
        // Nothing but a wait is given up here: no operation of the ring is behind it.
        let _ = monoio::time::timeout(Duration::from_millis(limits::FIRST_RESOLUTION_MS), changed).await;
    }
}
