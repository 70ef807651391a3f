//! HOT: no allocation per read or write.
//! A connection's two directions over monoio, behind types of our own.
//! Owns: the pending read of a socket. Never: drops a read that the kernel still works on while the connection lives.
//! Always: at most one read and one write are under way per connection.
//!
//! A [`Reader`] keeps its read under way by itself: waiting for it may be given up and taken up again without losing bytes
//! (a peer that closes a parked connection, or answers before it was asked, is seen at the next look, without a system
//! call). TLS becomes another half behind [`Reader::new`] and another variant of [`Writer`]; nothing else changes.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::IntoRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use monoio::io::AsyncWriteRent;
use monoio::io::CancelHandle;
use monoio::io::CancelableAsyncReadRent;
use monoio::io::Canceller;
use monoio::io::OwnedReadHalf;
use monoio::io::OwnedWriteHalf;
use monoio::io::Splitable;
use monoio::net::TcpStream;

use super::buffers::Buf;

/// What a finished read gives: bytes read (0: the peer closed its side) and the buffer it was lent.
pub type ReadDone = (io::Result<usize>, Buf);

/// What the pump is asked for.
struct Wanted {
    buf: Buf,
    may_be_cancelled: bool,
}

#[derive(Default)]
struct Slot {
    wanted: Cell<Option<Wanted>>,
    done: Cell<Option<ReadDone>>,
    busy: Cell<bool>,
    /// Whether the read under way, or the last one, may be cancelled.
    cancellable: Cell<bool>,
    /// Of the reads that may be cancelled, once there was one.
    canceller: Cell<Option<Canceller>>,
}

impl Slot {
    fn handle(&self) -> CancelHandle {
        let canceller = self.canceller.take().unwrap_or_default();
        let handle = canceller.handle();
        self.canceller.set(Some(canceller));
        handle
    }
}

/// The reading direction. The pump is one future for the life of the connection, polled by whoever holds the reader, so a
/// read costs no allocation and belongs to the connection rather than to the waiting code.
pub struct Reader {
    pump: Pin<Box<dyn Future<Output = ()>>>,
    slot: Rc<Slot>,
    fd: RawFd,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Without a read under way, closing the descriptor says the same and spares the call.
        if self.slot.busy.get() {
            shutdown(self.fd, libc::SHUT_RD);
        }
    }
}

impl Reader {
    /// Reads from `half`, of the socket `fd`.
    pub fn new<R: CancelableAsyncReadRent + 'static>(mut half: R, fd: RawFd) -> Self {
        let slot = Rc::new(Slot::default());
        let shared = slot.clone();
        let pump = Box::pin(async move {
            loop {
                let wanted = std::future::poll_fn(|_| shared.wanted.take().map_or(Poll::Pending, Poll::Ready)).await;
                let done = match wanted.may_be_cancelled {
                    true => half.cancelable_read(wanted.buf, shared.handle()).await,
                    false => half.read(wanted.buf).await,
                };
                shared.busy.set(false);
                shared.done.set(Some(done));
            }
        });
        Self { pump, slot, fd }
    }

    /// Lends a buffer and starts a read that appends to it. One read at a time.
    pub fn start(&mut self, buf: Buf) {
        self.begin(Wanted { buf, may_be_cancelled: false });
    }

    /// As [`Reader::start`], a read that [`Reader::cancel`] can end. It costs some hundred instructions more.
    pub fn start_cancellable(&mut self, buf: Buf) {
        self.begin(Wanted { buf, may_be_cancelled: true });
    }

    fn begin(&mut self, wanted: Wanted) {
        debug_assert!(!self.slot.busy.get(), "one read at a time");
        debug_assert!(wanted.buf.room() > 0, "a read without room looks like the end of the stream");
        self.slot.busy.set(true);
        self.slot.cancellable.set(wanted.may_be_cancelled);
        self.slot.wanted.set(Some(wanted));
        self.turn(&mut Context::from_waker(Waker::noop()));
    }

    /// Asks the kernel to give the read under way up. It ends soon: with what came meanwhile, or with an error that
    /// [`is_cancelled`] knows, and then nothing was taken from the socket.
    pub fn cancel(&self) {
        let canceller = self.slot.canceller.take();
        self.slot.canceller.set(canceller.map(Canceller::cancel));
    }

    /// Whether [`Reader::cancel`] can end the read under way.
    pub fn is_cancellable(&self) -> bool {
        self.slot.busy.get() && self.slot.cancellable.get()
    }

    /// Whether a read is under way or its result was not taken yet.
    pub fn is_started(&self) -> bool {
        if self.slot.busy.get() {
            return true;
        }
        let done = self.slot.done.take();
        let ready = done.is_some();
        self.slot.done.set(done);
        ready
    }

    fn turn(&mut self, cx: &mut Context<'_>) {
        let pending = self.pump.as_mut().poll(cx).is_pending();
        debug_assert!(pending, "the pump never ends");
    }

    /// The result of the read under way, when it is there. Giving up and asking again loses nothing.
    pub fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<ReadDone> {
        if let Some(done) = self.slot.done.take() {
            return Poll::Ready(done);
        }
        self.turn(cx);
        self.slot.done.take().map_or(Poll::Pending, Poll::Ready)
    }

    /// Whether the read under way has ended by now.
    pub fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_ended(cx).is_ready()
    }

    /// Ready when the read under way has ended; its result stays for [`Reader::poll_done`].
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_done(cx).map(|done| self.slot.done.set(Some(done)))
    }

    /// The result of a read that has ended, to be looked at in place.
    pub fn peek<T>(&self, look: impl FnOnce(&ReadDone) -> T) -> Option<T> {
        let done = self.slot.done.take()?;
        let seen = look(&done);
        self.slot.done.set(Some(done));
        Some(seen)
    }

    /// Waits for the read under way.
    pub async fn done(&mut self) -> ReadDone {
        std::future::poll_fn(|cx| self.poll_done(cx)).await
    }

    /// Starts a read and waits for it.
    pub async fn read(&mut self, buf: Buf) -> ReadDone {
        self.start(buf);
        self.done().await
    }

    /// Whether the read under way has not ended: a parked connection is usable only while this holds.
    pub fn is_quiet(&mut self) -> bool {
        self.poll_ended(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

/// Whether a read ended because it was given up.
pub fn is_cancelled(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED))
}

/// The writing direction.
pub enum Writer {
    /// Plain TCP.
    Tcp(OwnedWriteHalf<TcpStream>),
}

impl Writer {
    /// Writes all live bytes of `buf` and gives the buffer back, empty when all went out. `progress` is called whenever a
    /// part has gone, so that a deadline can be set for the next part rather than for all of them.
    pub async fn write_all(&mut self, mut buf: Buf, progress: impl Fn()) -> (io::Result<()>, Buf) {
        while !buf.is_empty() {
            let (result, back) = match self {
                Self::Tcp(half) => half.write(buf).await,
            };
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buf),
                Ok(count) => {
                    buf.consume(count);
                    if !buf.is_empty() {
                        progress();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }
}

/// An open connection of either side. Dropping it ends it: the socket is shut down first, so that a read under way
/// completes in the kernel and gives its buffer and descriptor back.
pub struct Conn {
    pub reader: Reader,
    pub writer: Writer,
    fd: RawFd,
}

impl Conn {
    /// Takes over a connected socket.
    pub fn new(stream: TcpStream) -> Self {
        let fd = stream.as_raw_fd();
        let (read_half, write_half) = stream.into_split();
        Self { reader: Reader::new(read_half, fd), writer: Writer::Tcp(write_half), fd }
    }

    /// As [`Conn::new`], of a socket that the runtime does not know.
    ///
    /// # Errors
    /// The runtime has no room for it.
    pub fn of_socket(socket: OwnedFd) -> io::Result<Self> {
        TcpStream::from_std(socket.into()).map(Self::new)
    }

    /// Lets go of the runtime and gives the socket back, open. A read under way is withdrawn, which must not happen unless
    /// [`Core::withdraws_reads`] says that nothing is lost by it. `None`, and the connection ends, when a read has ended
    /// whose result nobody took, and when the system is out of descriptors.
    ///
    /// [`Core::withdraws_reads`]: crate::proxy::core::Core::withdraws_reads
    pub fn into_socket(self) -> Option<OwnedFd> {
        let Self { reader, writer, fd } = self;
        let withdrawn = reader.slot.busy.replace(false);
        if !withdrawn && reader.is_started() {
            return None;
        }
        // A read keeps the descriptor until the kernel has let go of it.
        // Safety: the descriptor is open as long as the writer is.
        let copy = withdrawn.then(|| unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned());
        drop(reader);
        let Writer::Tcp(writer) = writer;
        // The other half went with the pump; this stands for it. Whole again the stream goes without ending anything, which
        // its writing half alone would not.
        let reader = OwnedReadHalf(writer.0.clone());
        let stream = reader.reunite(writer).ok()?;
        match copy {
            Some(copy) => copy.ok(),
            // Safety: the stream owned the descriptor and is gone.
            None => Some(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) }),
        }
    }

    /// The descriptor, for deadlines.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether the kernel holds bytes of the peer that were not read.
    pub fn has_unread(&self) -> bool {
        let mut count: libc::c_int = 0;
        // Safety: FIONREAD writes one int.
        let result = unsafe { libc::ioctl(self.fd, libc::FIONREAD, &raw mut count) };
        result != 0 || count > 0
    }

    /// Says that nothing more will be written; the peer may still write.
    pub fn shutdown_write(&self) {
        shutdown(self.fd, libc::SHUT_WR);
    }

    /// Chooses the congestion control of the socket; one that the system does not offer changes nothing.
    pub fn set_congestion(&self, name: &str) {
        // Safety: plain setsockopt with the length of the text.
        unsafe {
            let len = name.len() as libc::socklen_t;
            libc::setsockopt(self.fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_ptr().cast(), len);
        }
    }

    /// Ends the connection at once so that the peer sees a reset, not a regular end: for a truncated answer whose end the
    /// client would otherwise take for the regular one (HTTP/1.0 without a length). Operations under way complete.
    pub fn reset(&self) {
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        // Safety: connect reads the structure of the length given; for a TCP socket "no address" means abort.
        unsafe {
            libc::connect(self.fd, &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t);
        }
    }
}

/// Ends one or both directions of a socket; operations under way on it complete.
pub fn shutdown(fd: RawFd, how: libc::c_int) {
    // Safety: a plain system call on a descriptor; a wrong one gives an error that nobody needs.
    unsafe {
        libc::shutdown(fd, how);
    }
}
