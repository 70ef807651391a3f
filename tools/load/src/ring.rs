//! What the three programs beside this file share: a thin loop over io_uring, sockets, and the little HTTP they need.
//! Owns: submission and waiting. Never: allocates per operation. Always: one thread, one ring.
//!
//! An operation is named by a `u64` of its owner's choosing, which comes back with its result.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::IoUring;
use io_uring::opcode;
use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::types::SubmitArgs;
use io_uring::types::Timespec;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

const ENTRIES: u32 = 4096;

/// One thread's ring.
pub struct Ring {
    ring: IoUring,
    done: Vec<(u64, i32)>,
}

impl Ring {
    /// A ring with the flags that the gateway's own cores use.
    pub fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(ENTRIES * 4).setup_single_issuer().setup_defer_taskrun();
        Ok(Self { ring: builder.build(ENTRIES)?, done: Vec::with_capacity(ENTRIES as usize) })
    }

    fn push(&mut self, operation: Entry, name: u64) {
        let operation = operation.user_data(name);
        // SAFETY: every buffer handed to an operation belongs to a connection that is freed only once the operation is back.
        while unsafe { self.ring.submission().push(&operation) }.is_err() {
            self.ring.submit().expect("the kernel takes operations");
        }
    }

    /// Accepts one connection; the result is its descriptor.
    pub fn accept(&mut self, listener: RawFd, name: u64) {
        self.push(opcode::Accept::new(Fd(listener), std::ptr::null_mut(), std::ptr::null_mut()).build(), name);
    }

    /// Connects; `to` must stay where it is until the result is there.
    pub fn connect(&mut self, fd: RawFd, to: &SockAddr, name: u64) {
        self.push(opcode::Connect::new(Fd(fd), to.as_ptr().cast(), to.len()).build(), name);
    }

    /// Reads into a buffer that stays where it is until the result is there.
    pub fn recv(&mut self, fd: RawFd, into: &mut [u8], name: u64) {
        self.push(opcode::Recv::new(Fd(fd), into.as_mut_ptr(), into.len() as u32).build(), name);
    }

    /// Writes from a buffer that stays where it is until the result is there.
    pub fn send(&mut self, fd: RawFd, from: &[u8], name: u64) {
        let send = opcode::Send::new(Fd(fd), from.as_ptr(), from.len() as u32).flags(libc::MSG_NOSIGNAL);
        self.push(send.build(), name);
    }

    /// Submits, waits until something is done or the time is over, and gives (name, result) of all that is done.
    pub fn wait(&mut self, at_most: Option<Duration>) -> io::Result<Vec<(u64, i32)>> {
        let waited = match at_most {
            None => self.ring.submit_and_wait(1),
            Some(time) => {
                let time = Timespec::new().sec(time.as_secs()).nsec(time.subsec_nanos());
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))
            }
        };
        match waited {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        let mut done = std::mem::take(&mut self.done);
        done.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        Ok(done)
    }

    /// Takes the memory of [`Ring::wait`]'s answer back.
    pub fn give_back(&mut self, mut done: Vec<(u64, i32)>) {
        done.clear();
        self.done = done;
    }
}

/// A listening socket whose connections send at once; at no particular address it still serves this machine alone.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if addr.ip().is_unspecified() {
        socket.bind_device(Some(b"lo"))?;
    }
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// A socket that is not connected yet and sends at once.
pub fn socket(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Length of the head that begins a message, its blank line included, once it is whole.
pub fn head_len(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// Value of the first field of that name, in any case.
pub fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let line = head.split(|byte| *byte == b'\n').find(|line| {
        line.len() > name.len() && line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
    })?;
    Some(std::str::from_utf8(&line[name.len() + 1..]).ok()?.trim())
}

/// The value behind `--name`, or what to say of its absence.
pub fn option<T: std::str::FromStr>(name: &str, default: Option<T>) -> T {
    let mut words = std::env::args().skip_while(|word| *word != format!("--{name}")).skip(1);
    match (words.next(), default) {
        (Some(word), _) => word.parse().unwrap_or_else(|_| exit(&format!("--{name}: {word} is not understood"))),
        (None, Some(default)) => default,
        (None, None) => exit(&format!("--{name} is needed")),
    }
}

/// Whether `--name` was given.
pub fn flag(name: &str) -> bool {
    std::env::args().any(|word| word == format!("--{name}"))
}

/// Ends with a message.
pub fn exit(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2)
}
