//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.

/// First read of a client connection: holds nearly every request head with a small body. Grows up to the head limit.
pub const CLIENT_READ_BYTES: usize = 4 << 10;
/// Room for a response head and a small body, read in one piece.
pub const UPSTREAM_READ_BYTES: usize = 20 << 10;
/// Room kept in front of a response, so that the rewritten head and the body leave in one write without a copy of the body.
pub const RESPONSE_HEADROOM_BYTES: usize = 2 << 10;
/// Each of the two buffers that carry a streamed body.
pub const STREAM_BUFFER_BYTES: usize = 128 << 10;
/// A request body up to this size is held in memory until the upstream has answered, so that a failed try can be repeated;
/// a longer one is streamed.
pub const REQUEST_BODY_HELD_BYTES: usize = 64 << 10;
/// Bytes of an unwanted request body that are read and thrown away so that the connection can be kept; beyond it is closed.
pub const REQUEST_BODY_DRAINED_BYTES: u64 = 256 << 10;
/// How long the rest of a refused request is listened to before the connection is closed, so that the answer is not lost to
/// a reset.
pub const LINGER_MS: u64 = 2_000;
/// Interim (1xx) answers that one upstream may send before its answer.
pub const INTERIM_RESPONSES_MAX: usize = 16;
/// Bytes of a trailer section (RFC 9112 section 7.1.2).
pub const TRAILER_BYTES_MAX: usize = 8 << 10;
/// Period of the sweep that looks for overdue sockets, and so the precision of every data-plane timeout.
pub const SWEEP_MS: u64 = 50;
/// How long a request waits for the first resolution of its service's host name.
pub const FIRST_RESOLUTION_MS: u64 = 5_000;
/// How long a write waits for the acknowledgement of a core before that core is reported instead of waited for.
pub const ACKNOWLEDGE_MS: u64 = 5_000;
/// Finished-request records gathered by a core before they are handed to the log writer.
pub const RECORD_BATCH_BYTES: usize = 64 << 10;
/// Batches of records that may wait for the log writer; beyond it records are dropped and counted.
pub const RECORD_BATCHES_WAITING_MAX: usize = 64;
/// Entries of a round-robin list. Weights whose exact list would be longer are scaled down to fit.
pub const RING_ENTRIES_MAX: usize = 1 << 16;
/// Submission queue of one core's ring; its completion queue is four times as long.
pub const URING_ENTRIES: u32 = 4096;

const _: () = assert!(RESPONSE_HEADROOM_BYTES < UPSTREAM_READ_BYTES, "a response needs room behind the headroom");
const _: () = assert!(REQUEST_BODY_HELD_BYTES as u64 <= REQUEST_BODY_DRAINED_BYTES, "what may be held may be drained");
