//! Signals to another process.

use std::io::Error;

/// Sends `signal` to `pid`, which the pid file named.
pub fn send(pid: i32, signal: i32) -> Result<(), String> {
    // SAFETY: kill() takes two integers and touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } == 0 {
        return Ok(());
    }
    let error = Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EPERM) => Err(format!("process {pid} belongs to another user; run this as that user or as root")),
        Some(libc::ESRCH) => Err(format!("process {pid} has just ended")),
        _ => Err(format!("cannot signal process {pid}: {error}")),
    }
}
