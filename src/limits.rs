//! Every bound of the program, with its unit in its name. A bound that an operator may change is a setting
//! (`config`), and its default stands here.

// ---- HTTP messages (`http`) ----

/// Longest request line accepted by default, bytes without its CRLF. Above: 414.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;
/// Longest single field line of a request accepted by default, bytes without its CRLF. Above: 400, as Kong says.
pub const REQUEST_FIELD_BYTES_MAX: usize = 8 << 10;
/// Longest request head accepted by default, bytes with the empty line that ends it. Above: 400, as Kong says.
pub const REQUEST_HEAD_BYTES_MAX: usize = 48 << 10;
/// Most fields of a request head accepted by default. Above: 431.
pub const REQUEST_FIELDS_MAX: usize = 128;
/// Longest response head accepted from an upstream by default, bytes with the empty line that ends it. Above: 502.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 40 << 10;
/// Most fields of a response head accepted by default. Above: 502.
pub const RESPONSE_FIELDS_MAX: usize = 256;
/// Most fields of any head, whatever the settings say: the parser's table lives on the stack.
pub const FIELDS_MAX: usize = 256;
/// Largest body length that a head may announce, bytes: what fits a signed 64-bit offset on every peer.
pub const BODY_LENGTH_MAX: u64 = i64::MAX as u64;

/// Most hexadecimal digits of a chunk size, leading zeros included.
pub const CHUNK_SIZE_DIGITS_MAX: u32 = 16;
/// Most bytes of extensions of one chunk, and of all chunks per MiB of body begun.
pub const CHUNK_EXTENSION_BYTES_MAX: u64 = 4 << 10;
/// Most bytes of the trailer section of a chunked body.
pub const TRAILER_BYTES_MAX: u32 = 8 << 10;

const _: () = assert!(REQUEST_FIELDS_MAX <= FIELDS_MAX && RESPONSE_FIELDS_MAX <= FIELDS_MAX);
const _: () = assert!(REQUEST_LINE_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
const _: () = assert!(REQUEST_FIELD_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
