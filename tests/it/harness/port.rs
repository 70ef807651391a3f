//! Ports that belong to one test: free, below those that the kernel gives to outgoing connections, and locked against the
//! other tests that run at the same time. For peers that are stopped and come back at the same address.

use std::fs::File;
use std::net::TcpListener;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A reserved port; nobody listens there yet.
pub struct Port {
    pub number: u16,
    /// The lock ends with the file.
    _lock: File,
}

impl Port {
    /// Reserves a port.
    #[track_caller]
    pub fn reserve() -> Self {
        let directory = std::env::temp_dir().join("ringway-test-ports");
        std::fs::create_dir_all(&directory).expect("the directory of temporary files can be written to");
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
        let start = clock ^ std::process::id().wrapping_mul(0x9E37_79B1);
        for step in 0..u32::from(COUNT) {
            let number = FIRST + (start.wrapping_add(step * 7) % u32::from(COUNT)) as u16;
            let Ok(lock) = File::create(directory.join(number.to_string())) else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port from {FIRST} on");
    }
}
