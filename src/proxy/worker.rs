//! One core: a pinned thread, its runtime, its accept and mailbox loops, its end.
//! Owns: the choice between io_uring and epoll. Never: serves before the configuration it was given is applied.
//! Always: listeners are ended before the runtime is, and a core leaves only when its connections have.

use std::cell::RefCell;
use std::io;
use std::io::ErrorKind;
use std::net::TcpListener as StdListener;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::IoUringDriver;
use monoio::LegacyDriver;
use monoio::RuntimeBuilder;
use monoio::io::AsyncReadRent;
use monoio::net::TcpListener;
use monoio::net::UnixStream;

use crate::config::Driver;
use crate::config::Settings;
use crate::limits;
use crate::metrics::counters::CoreCounters;
use crate::metrics::series::CoreSeries;
use crate::plugins::cache::Cache;
use crate::plugins::cache::CoreCache;
use crate::plugins::counts::CoreCounts;
use crate::plugins::counts::Counts;
use crate::plugins::recent::Recent;
use crate::plugins::view::ConnFacts;
use crate::plugins::view::CoreFacts;
use crate::proxy::connection;
use crate::proxy::core::Core;
use crate::proxy::io::Conn;
use crate::proxy::io::shutdown;
use crate::proxy::spool::Spooled;
use crate::proxy::steering::Fleet;
use crate::state::core::CoreState;
use crate::state::delta::Delta;
use crate::state::mailbox::Handed;
use crate::state::mailbox::Look;
use crate::state::mailbox::Mailbox;
use crate::state::mailbox::Outbox;
use crate::state::mailbox::Post;

/// What a core starts with.
pub struct Seed {
    pub index: usize,
    /// CPU to run on; `None`: wherever the kernel likes.
    pub cpu: Option<usize>,
    pub listeners: Vec<StdListener>,
    pub settings: Arc<Settings>,
    pub driver: Chosen,
    /// The whole configuration.
    pub initial: Arc<Delta>,
    pub mailbox: Mailbox,
    pub outbox: Outbox,
    pub counters: Arc<CoreCounters>,
    /// All cores, this one among them.
    pub fleet: Arc<Fleet>,
    pub node: NodeFacts,
}

/// What is the same for all cores of a node.
#[derive(Clone)]
pub struct NodeFacts {
    pub node_id: String,
    pub hostname: String,
    /// What the spooled bodies of all cores hold.
    pub spooled: Spooled,
    /// What a client elsewhere must know to be told the times of its request, unless the settings say it.
    pub debug_token: Box<str>,
    /// Uses that plugins count.
    pub counts: Arc<Counts>,
    /// Responses that plugins keep.
    pub cache: Arc<Cache>,
}

/// How cores talk to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    IoUring,
    Epoll,
}

/// Chooses the driver: `auto` takes io_uring where the kernel offers it. The second value says why not.
///
/// # Errors
/// io_uring was demanded and is refused.
pub fn choose(wanted: Driver) -> Result<(Chosen, Option<String>), String> {
    if wanted == Driver::Epoll {
        return Ok((Chosen::Epoll, None));
    }
    match probe() {
        Ok(()) => Ok((Chosen::IoUring, None)),
        Err(error) => {
            let why = format!(
                "io_uring is refused here ({error}); containers need a seccomp profile that allows io_uring_setup, \
                 io_uring_enter and io_uring_register, hosts need the sysctl kernel.io_uring_disabled = 0"
            );
            if wanted == Driver::IoUring { Err(why) } else { Ok((Chosen::Epoll, Some(why))) }
        }
    }
}

/// Makes a small ring on a thread of its own and lets it go.
fn probe() -> io::Result<()> {
    let thread = std::thread::Builder::new().name("ringway-probe".into()).spawn(|| {
        let ring = io_uring::IoUring::new(8)?;
        // recv and accept need what came with 5.7; before it sockets would block a kernel thread each.
        if ring.params().is_feature_fast_poll() { Ok(()) } else { Err(ErrorKind::Unsupported.into()) }
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the probe failed")))
}

/// Starts a core's thread. It ends after [`Post::Drain`] once its connections are gone, or at [`Post::Stop`].
///
/// # Errors
/// No thread could be made.
pub fn spawn(seed: Seed) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(format!("ringway-core-{}", seed.index)).spawn(move || {
        if let Some(cpu) = seed.cpu {
            core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
        }
        match seed.driver {
            Chosen::IoUring => run_on_io_uring(seed),
            Chosen::Epoll => run_on_epoll(seed),
        }
    })
}

/// The flags of performance.md section 3.1, and fewer where the kernel knows fewer.
fn run_on_io_uring(seed: Seed) {
    let mut best = io_uring::IoUring::builder();
    best.setup_cqsize(limits::URING_ENTRIES * 4).setup_single_issuer().setup_defer_taskrun();
    let mut good = io_uring::IoUring::builder();
    good.setup_cqsize(limits::URING_ENTRIES * 4).setup_coop_taskrun();
    let mut plain = io_uring::IoUring::builder();
    plain.setup_cqsize(limits::URING_ENTRIES * 4);
    for (builder, defers) in [(best, true), (good, false), (plain, false)] {
        let runtime = RuntimeBuilder::<IoUringDriver>::new()
            .uring_builder(builder)
            .with_entries(limits::URING_ENTRIES)
            .enable_timer()
            .build();
        if let Ok(mut runtime) = runtime {
            return runtime.block_on(run(seed, defers));
        }
    }
    // The probe succeeded, so only limits such as locked memory are left; epoll needs none.
    run_on_epoll(seed);
}

fn run_on_epoll(seed: Seed) {
    let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build();
    runtime.expect("epoll is always there").block_on(run(seed, true));
}

/// `withdraws_reads`: see [`Core`].
async fn run(seed: Seed, withdraws_reads: bool) {
    let Seed { index, listeners, settings, driver, initial, mut mailbox, outbox, counters, fleet, node, .. } = seed;
    // Each core begins elsewhere in every ring, so that few requests do not all go to the same peer.
    let mut state = CoreState::new(index as u64);
    state.apply(&initial);
    counters.version.set(initial.version);
    let facts = CoreFacts {
        node_id: node.node_id.into(),
        hostname: node.hostname.into(),
        pid: std::process::id(),
        worker_id: uuid::Uuid::new_v4().to_string().into(),
        serial: Default::default(),
        random: || fastrand::u64(..),
        counts: CoreCounts::new(node.counts),
        series: CoreSeries::new(counters.clone()),
        recent: RefCell::new(Recent::new(limits::RECENT_FINDINGS_PER_CORE_MAX)),
        instrumented: settings.tracing_instrumentations,
        sampling_rate: settings.tracing_sampling_rate,
        cache: CoreCache::new(node.cache),
    };
    let acknowledge = outbox.acknowledge.clone();
    let mut core = Core::new(index, state, settings.clone(), facts, counters, outbox, node.spooled, node.debug_token);
    core.withdraws_reads = withdraws_reads;
    let core = Rc::new(core);
    acknowledge(index, initial.version);
    drop(initial);
    let mut fds = Vec::new();
    // In the order of `proxy_listen`, one for each.
    for (listener, listen) in listeners.into_iter().zip(&settings.proxy_listen) {
        fds.push(listener.as_raw_fd());
        // An operation of the ring waits for as long as it takes, unless the socket forbids waiting.
        let _ = listener.set_nonblocking(driver == Chosen::Epoll);
        let listener = TcpListener::from_std(listener).expect("the runtime takes a bound socket");
        monoio::spawn(accept(core.clone(), fleet.clone(), listener, listen.proxy_protocol));
    }
    let bell = mailbox.take_bell().expect("a mailbox is opened once");
    let mut bell = UnixStream::from_std(bell).expect("the runtime takes a socket");
    let parked = core.parked.doorbell().expect("a core starts before clients take descriptors");
    monoio::spawn(wake_parked(core.clone(), parked));
    monoio::spawn(sweep(core.clone()));
    let mut bytes = vec![0u8; 64];
    loop {
        take_handed(&core, &fleet, &mailbox);
        while let Some(post) = mailbox.take() {
            match post {
                Post::Drain => return drain(&core, &fleet, &fds, &mailbox).await,
                Post::Stop => return end(&core, &fds),
                other => take(&core, other),
            }
        }
        let (result, back) = bell.read(bytes).await;
        bytes = back;
        if matches!(result, Ok(0) | Err(_)) {
            // Nobody is left to tell anything.
            return end(&core, &fds);
        }
    }
}

/// Applies what the control plane posted.
fn take(core: &Core, post: Post) {
    match post {
        Post::Apply(delta) => {
            let gone = core.state.borrow_mut().apply(&delta);
            gone.into_iter().for_each(|addr| core.pool.close(addr));
            core.counters.version.set(delta.version);
            core.wake_name_waiters();
            (core.outbox.acknowledge)(core.index, delta.version);
        }
        Post::Peers(updates) => {
            let gone = core.state.borrow_mut().apply_peers(&updates);
            gone.into_iter().for_each(|addr| core.pool.close(addr));
            core.wake_name_waiters();
        }
        Post::Ejected(addr) => core.pool.close(addr),
        Post::Show(look) => show(core, &look),
        Post::Settings(settings) => core.set_rules(settings),
        Post::Answer(ticket, answer) => core.asks.answered(ticket, answer),
        Post::Drain | Post::Stop => {}
    }
}

/// A panic here is an operator's question unanswered, and no more.
fn show(core: &Core, look: &Look) {
    let rules = core.rules();
    if catch_unwind(AssertUnwindSafe(|| look(&core.state.borrow(), &rules.settings))).is_err() {
        core.counters.panics.add();
    }
}

async fn sweep(core: Rc<Core>) {
    loop {
        monoio::time::sleep(Duration::from_millis(limits::SWEEP_MS)).await;
        core.tick();
        connection::end_overdue(&core);
    }
}

/// Takes up parked connections on which something comes.
async fn wake_parked(core: Rc<Core>, bell: OwnedFd) {
    // Any kind of descriptor will do: nothing but its readiness is asked for.
    let bell = UnixStream::from_std(bell.into()).expect("the runtime takes a descriptor");
    loop {
        if bell.readable(false).await.is_err() {
            monoio::time::sleep(Duration::from_millis(limits::SWEEP_MS)).await;
        }
        core.parked.take_readable(|resting| connection::reopen(&core, resting));
    }
}

async fn accept(core: Rc<Core>, fleet: Arc<Fleet>, listener: TcpListener, has_preface: bool) {
    let local = listener.local_addr().ok();
    let clients_max = descriptors_of_clients();
    let mut serial = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                core.counters.accepted.add();
                serial += 1;
                let local = local.filter(|addr| !addr.ip().is_unspecified()).or_else(|| stream.local_addr().ok());
                let facts = ConnFacts { peer, local: local.unwrap_or(peer), serial, requests: 0 };
                // The kernel gives the lowest number that is free, so this one tells how many are taken.
                let mut taken = stream.as_raw_fd();
                match fleet.better_place(core.index).filter(|_| !core.draining.get()) {
                    None => connection::open(&core, Conn::new(stream), facts, has_preface),
                    Some(place) => {
                        // Safety: the stream owned the descriptor and is gone.
                        let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
                        core.counters.handed_over.add();
                        if let Err(back) = fleet.hand(place, Handed { socket, facts, has_preface }) {
                            serve_handed(&core, back);
                        }
                    }
                }
                while taken >= clients_max && !connection::make_room(&core) && !core.draining.get() {
                    monoio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
                    taken = core.parked.doorbell().map_or(taken, |probe| probe.as_raw_fd());
                }
            }
            // The listener was shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput || core.draining.get() => return,
            // Out of descriptors or memory: clients wait in the backlog until some are free again.
            Err(_) => {
                connection::make_room(&core);
                monoio::time::sleep(Duration::from_millis(limits::ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// The first descriptor that is not for clients: the rest is for upstreams, files and the control plane.
fn descriptors_of_clients() -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // Safety: the kernel writes one structure.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return RawFd::MAX;
    }
    let reserved = (limit.rlim_cur / 4).min(limits::DESCRIPTORS_RESERVED_MAX);
    RawFd::try_from(limit.rlim_cur - reserved).unwrap_or(RawFd::MAX)
}

/// Serves what other cores have handed over.
fn take_handed(core: &Rc<Core>, fleet: &Fleet, mailbox: &Mailbox) {
    while let Some(handed) = mailbox.take_handed() {
        serve_handed(core, handed);
        fleet.taken(core.index);
    }
}

/// A connection for which the runtime has no room ends.
fn serve_handed(core: &Rc<Core>, Handed { socket, facts, has_preface }: Handed) {
    if let Ok(conn) = Conn::of_socket(socket) {
        connection::open(core, conn, facts, has_preface);
    }
}

/// Accepts nothing more, ends idle connections, and waits for the others.
async fn drain(core: &Rc<Core>, fleet: &Fleet, listeners: &[i32], mailbox: &Mailbox) {
    core.draining.set(true);
    for &fd in listeners {
        shutdown(fd, libc::SHUT_RDWR);
    }
    loop {
        take_handed(core, fleet, mailbox);
        core.deadlines.end_idle();
        // Those on which a request has come are served.
        core.parked.take_readable(|resting| connection::reopen(core, resting));
        core.parked.take_idle(|resting| connection::end_parked(core, resting));
        if core.counters.active.get() == 0 {
            return end(core, listeners);
        }
        if matches!(mailbox.take(), Some(Post::Stop)) {
            break;
        }
        monoio::time::sleep(Duration::from_millis(limits::SWEEP_MS)).await;
    }
    // The time is up. Those that are cut short still end by themselves, so that their records are not lost.
    core.deadlines.end_all();
    core.parked.take_due(u64::MAX, |resting| connection::end_parked(core, resting));
    for _ in 0..limits::STOP_SWEEPS {
        if core.counters.active.get() == 0 {
            break;
        }
        monoio::time::sleep(Duration::from_millis(limits::SWEEP_MS)).await;
    }
    end(core, listeners);
}

fn end(core: &Core, listeners: &[i32]) {
    for &fd in listeners {
        shutdown(fd, libc::SHUT_RDWR);
    }
    core.pool.clear();
    core.tick();
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}
