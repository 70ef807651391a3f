//! What the end-to-end tests share: the real binary in a directory of its own, real nginx, scripted peers, clients.
//! Owns: everything that is started; all of it ends with the test, also with one that panics. Never: waits without a bound.
//! Always: tests are independent: ports are reserved or chosen by the kernel, prefixes are temporary.

pub mod certificates;
pub mod client;
pub mod curl;
pub mod dns;
pub mod dnsmasq;
pub mod exposition;
pub mod gateway;
pub mod nginx;
pub mod otlp;
pub mod peer;
pub mod port;
pub mod process;
pub mod redis;
pub mod site;
pub mod slapd;

use std::time::Duration;
use std::time::Instant;

use ringway::config::Driver as WantedDriver;
use ringway::proxy::worker;

/// How long anything that should happen at once may take, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How the gateway under test talks to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// The driver for tests in which it does not matter: as the environment says, otherwise io_uring where there is one.
    pub fn any() -> Self {
        let epoll = std::env::var("RINGWAY_DRIVER").is_ok_and(|name| name == "epoll");
        if epoll || !Self::IoUring.is_there() { Self::Epoll } else { Self::IoUring }
    }

    /// Its name as a setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }

    /// Whether this machine has it.
    pub fn is_there(self) -> bool {
        self == Self::Epoll || worker::choose(WantedDriver::IoUring).is_ok()
    }
}

/// Makes of each function `fn name(driver: Driver)` one test for each driver. Where the kernel refuses io_uring its tests
/// say so and pass.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod epoll {
            $(#[test] fn $name() { super::$name($crate::harness::Driver::Epoll) })*
        }
        mod io_uring {
            $(#[test] fn $name() {
                let driver = $crate::harness::Driver::IoUring;
                match driver.is_there() {
                    true => super::$name(driver),
                    false => eprintln!("not run: this machine refuses io_uring"),
                }
            })*
        }
    };
}
pub(crate) use on_both_drivers;

/// Asks again until there is an answer, in short intervals. For what announces itself to nobody: a process that ends, a
/// file that grows, a socket that appears.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited {} s for: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}
