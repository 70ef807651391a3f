//! HOT: no allocation, no formatting.
//! The chunked coding (RFC 9112 section 7.1), read over any split of the bytes, and written.
//! Owns: the syntax and the limits of chunks and trailers (requirements 1.3). Never: copies body bytes, but to compact
//! them in place. Always: extensions and trailers are checked and dropped; after an error the decoder stays in error.

use crate::http::fields::{is_token_byte, is_value_byte};
use crate::http::target::hex_value;
use crate::limits;
use std::ops::Range;

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// What follows the data of every chunk but the last.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Why a chunked body is refused: 400 to a client if nothing was answered yet, 502 if from an upstream, and close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChunk {
    /// The size is not 1..=16 hexadecimal digits, or above `limits::BODY_LENGTH_MAX`.
    Size,
    /// A control byte in an extension, or a line that does not end in CRLF.
    Line,
    /// The data is not followed by CRLF: its size was a lie.
    DataEnd,
    /// More bytes of extensions than `limits::CHUNK_EXTENSION_BYTES_MAX`, per chunk or per MiB.
    ExtensionTooLong,
    /// A trailer line that is no field.
    Trailer,
    /// More bytes of trailers than `limits::TRAILER_BYTES_MAX`.
    TrailerTooLong,
}

impl BadChunk {
    /// The status to answer a request with.
    pub fn status(self) -> u16 {
        400
    }

    /// What was wrong, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Size => "malformed chunk size",
            Self::Line => "malformed chunk line",
            Self::DataEnd => "no CRLF after the data of a chunk",
            Self::ExtensionTooLong => "chunk extensions above their limit",
            Self::Trailer => "malformed trailer",
            Self::TrailerTooLong => "trailers above their limit",
        }
    }
}

/// What one call of `feed` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    /// Bytes of the input that are done with; call again with the rest.
    pub consumed: usize,
    /// Which of them are body data; may be empty.
    pub data: Range<usize>,
    /// The body has ended; what is left of the input belongs to the next message.
    pub finished: bool,
}

/// What `decode_in_place` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of body data, now at the front of the buffer.
    pub data_len: usize,
    /// Bytes of the input that are done with; less than all only if `finished`.
    pub consumed: usize,
    /// The body has ended; what is left of the input belongs to the next message.
    pub finished: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// In the digits of a size.
    #[default]
    Size,
    Extension,
    /// After the CR of a size line.
    SizeLf,
    Data,
    /// After the data, before CR.
    DataCr,
    DataLf,
    /// At the start of a trailer line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Finished,
    Failed(BadChunk),
}

/// Reads one chunked body, in pieces cut anywhere.
#[derive(Clone, Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Digits of the size read so far.
    digits: u32,
    /// The size while it is read, then the data bytes of the chunk still to come.
    remaining: u64,
    /// Data bytes announced so far.
    body_bytes: u64,
    extension_bytes_chunk: u64,
    extension_bytes: u64,
    trailer_bytes: u32,
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the body has ended.
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Reads on until data was found, the body ended or the input did.
    ///
    /// # Errors
    /// `BadChunk`, now and in every later call.
    #[inline]
    pub fn feed(&mut self, input: &[u8]) -> Result<Chunked, BadChunk> {
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Data => {
                    let len = self.remaining.min((input.len() - at) as u64);
                    self.remaining -= len;
                    if self.remaining == 0 {
                        self.state = State::DataCr;
                    }
                    let end = at + len as usize;
                    return Ok(Chunked { consumed: end, data: at..end, finished: false });
                }
                State::Finished => break,
                State::Failed(error) => return Err(error),
                _ => {
                    self.step(input[at]).inspect_err(|&error| self.state = State::Failed(error))?;
                    at += 1;
                }
            }
        }
        Ok(Chunked { consumed: at, data: at..at, finished: self.is_finished() })
    }

    /// Reads all of `buf`, or up to the end of the body, and moves the body data to its front. Bytes after the body
    /// stay where they are, from `consumed` on.
    ///
    /// # Errors
    /// `BadChunk`; the buffer is of no further use.
    pub fn decode_in_place(&mut self, buf: &mut [u8]) -> Result<Compacted, BadChunk> {
        let (mut data_len, mut consumed) = (0, 0);
        while consumed < buf.len() && !self.is_finished() {
            let found = self.feed(&buf[consumed..])?;
            let data = found.data.start + consumed..found.data.end + consumed;
            let len = data.len();
            if len > 0 && data.start != data_len {
                buf.copy_within(data, data_len);
            }
            data_len += len;
            consumed += found.consumed;
        }
        Ok(Compacted { data_len, consumed, finished: self.is_finished() })
    }

    /// One byte outside of data.
    fn step(&mut self, byte: u8) -> Result<(), BadChunk> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => self.extension()?,
            (State::Size, _) => self.digit(byte)?,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, _) if is_value_byte(byte) => self.extension()?,
            (State::SizeLf, b'\n') => self.begin_data(),
            (State::Extension | State::SizeLf, _) => return Err(BadChunk::Line),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(BadChunk::DataEnd),
            (state, _) => self.trailer(state, byte)?,
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        let value = hex_value(byte).ok_or(BadChunk::Size)?;
        if self.digits == limits::CHUNK_SIZE_DIGITS_MAX {
            return Err(BadChunk::Size);
        }
        self.digits += 1;
        // Sixteen digits fit, so none is lost by the shift.
        self.remaining = self.remaining << 4 | u64::from(value);
        if self.remaining > limits::BODY_LENGTH_MAX { Err(BadChunk::Size) } else { Ok(State::Size) }
    }

    /// Counts a byte of an extension. The allowance grows with the body, so that bytes without use cannot exceed a
    /// fixed share of a long one.
    fn extension(&mut self) -> Result<State, BadChunk> {
        self.extension_bytes_chunk += 1;
        self.extension_bytes += 1;
        let mebibytes_begun = 1 + (self.body_bytes >> 20);
        let allowed = limits::CHUNK_EXTENSION_BYTES_MAX.saturating_mul(mebibytes_begun);
        if self.extension_bytes_chunk > limits::CHUNK_EXTENSION_BYTES_MAX || self.extension_bytes > allowed {
            return Err(BadChunk::ExtensionTooLong);
        }
        Ok(State::Extension)
    }

    fn begin_data(&mut self) -> State {
        (self.digits, self.extension_bytes_chunk) = (0, 0);
        self.body_bytes = self.body_bytes.saturating_add(self.remaining);
        if self.remaining == 0 { State::TrailerStart } else { State::Data }
    }

    fn trailer(&mut self, state: State, byte: u8) -> Result<State, BadChunk> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > limits::TRAILER_BYTES_MAX {
            return Err(BadChunk::TrailerTooLong);
        }
        Ok(match (state, byte) {
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, _) if is_token_byte(byte) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_value_byte(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Finished,
            _ => return Err(BadChunk::Trailer),
        })
    }
}

/// The line before the data of a chunk: its size in hexadecimal digits and CRLF.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLine {
    bytes: [u8; 18],
    start: u8,
}

impl ChunkLine {
    /// The line of a chunk of `data_len` bytes, which must not be 0: that would be the last chunk.
    pub fn new(data_len: u64) -> Self {
        debug_assert!(data_len > 0, "an empty chunk ends the body");
        let mut bytes = *b"0000000000000000\r\n";
        bytes[..16].copy_from_slice(&crate::http::encode::hex16(data_len));
        Self { bytes, start: (data_len.leading_zeros() / 4).min(15) as u8 }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

/// Appends a whole chunk to `out`; nothing if there is no data.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    out.extend_from_slice(ChunkLine::new(data.len() as u64).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(CHUNK_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data, bytes consumed and whether the body ended, reading `text` cut at `cuts` (sorted, the last one its length).
    fn decoded(text: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let (mut decoder, mut data, mut consumed) = (ChunkDecoder::new(), Vec::new(), 0);
        for &cut in cuts {
            while consumed < cut && !decoder.is_finished() {
                let found = decoder.feed(&text[consumed..cut])?;
                data.extend_from_slice(&text[consumed + found.data.start..consumed + found.data.end]);
                consumed += found.consumed;
            }
        }
        Ok((data, consumed, decoder.is_finished()))
    }

    fn decoded_in_place(text: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), BadChunk> {
        let (mut decoder, mut data, mut from, mut consumed) = (ChunkDecoder::new(), Vec::new(), 0, 0);
        for &cut in cuts {
            let mut piece = text[from..cut].to_vec();
            let found = decoder.decode_in_place(&mut piece)?;
            data.extend_from_slice(&piece[..found.data_len]);
            assert_eq!(piece[found.consumed..], text[from + found.consumed..cut]);
            (from, consumed) = (cut, consumed + found.consumed);
        }
        Ok((data, consumed, decoder.is_finished()))
    }

    #[track_caller]
    fn check(text: &str, want: Result<(&str, usize, bool), BadChunk>) {
        let text = text.as_bytes();
        let want = want.map(|(data, left, finished)| (data.as_bytes().to_vec(), text.len() - left, finished));
        assert_eq!(decoded(text, &[text.len()]), want, "{}", text.escape_ascii());
        let singles: Vec<usize> = (1..=text.len()).collect();
        assert_eq!(decoded(text, &singles), want, "{} in single bytes", text.escape_ascii());
        assert_eq!(decoded_in_place(text, &[text.len()]), want, "{} in place", text.escape_ascii());
    }

    #[test]
    fn bodies_are_read_to_their_end_and_no_further() {
        check("0\r\n\r\n", Ok(("", 0, true)));
        check("3\r\nabc\r\n0\r\n\r\nGET /", Ok(("abc", 5, true)));
        check("3\r\nabc\r\n00A\r\n0123456789\r\n000\r\n\r\n", Ok(("abc0123456789", 0, true)));
        check("1;a=b;c=\"d e\"\r\nx\r\n0;z\r\n\r\n", Ok(("x", 0, true)));
        check("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\nrest", Ok(("x", 4, true)));
        check("5\r\nabc", Ok(("abc", 0, false)));
        check("", Ok(("", 0, false)));
        check("0000000000000001\r\nx\r\n0\r\n\r\n", Ok(("x", 0, true)));
    }

    #[test]
    fn bad_chunks_are_refused() {
        for size in
            ["zz\r\n", "\r\n", ";a\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1 ;a\r\n", "1,\r\n", "\0"]
        {
            check(size, Err(BadChunk::Size));
        }
        check("00000000000000001\r\n", Err(BadChunk::Size));
        check("8000000000000000\r\n", Err(BadChunk::Size));
        check("FFFFFFFFFFFFFFFFF\r\n", Err(BadChunk::Size));
        for line in ["1\n", "1\r\r\n", "1;a\n", "1;a\0\r\n", "1;a\rb\r\n", "1;a=\"\x01\"\r\n"] {
            check(line, Err(if line == "1\n" { BadChunk::Size } else { BadChunk::Line }));
        }
        for end in ["1\r\nxx\r\n", "1\r\nx\n", "1\r\nx\rx", "1\r\nx0\r\n"] {
            check(end, Err(BadChunk::DataEnd));
        }
        for trailer in [
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\nA\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\n: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: b\r\n c\r\n",
            "0\r\nA: \0\r\n",
            "0\r\nA: b\rc",
        ] {
            check(trailer, Err(BadChunk::Trailer));
        }
    }

    #[test]
    fn an_error_is_final() {
        let mut decoder = ChunkDecoder::new();
        assert_eq!(decoder.feed(b"x"), Err(BadChunk::Size));
        assert_eq!(decoder.feed(b"1\r\nx\r\n0\r\n\r\n"), Err(BadChunk::Size));
        assert!(!decoder.is_finished());
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |bytes: usize| format!("1;{}\r\nx\r\n", "e".repeat(bytes - 1));
        let end = "0\r\n\r\n";
        check(&format!("{}{end}", extension(4096)), Ok(("x", 0, true)));
        check(&extension(4097), Err(BadChunk::ExtensionTooLong));
        check(&extension(8).repeat(600), Err(BadChunk::ExtensionTooLong));
        let mebibyte = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        let text = format!("{}{mebibyte}{}{end}", extension(4096), extension(4096));
        assert_eq!(decoded(text.as_bytes(), &[text.len()]).map(|found| found.2), Ok(true));
        check(&format!("0\r\nA: {}\r\n\r\n", "t".repeat(8100)), Ok(("", 0, true)));
        check(&format!("0\r\nA: {}\r\n\r\n", "t".repeat(8200)), Err(BadChunk::TrailerTooLong));
        check(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(2000)), Err(BadChunk::TrailerTooLong));
    }

    #[test]
    fn what_is_written_is_read() {
        for (len, line) in
            [(1u64, "1\r\n"), (16, "10\r\n"), (0xdead_beef, "deadbeef\r\n"), (u64::MAX, "ffffffffffffffff\r\n")]
        {
            assert_eq!(ChunkLine::new(len).as_bytes(), line.as_bytes());
        }
        let mut out = Vec::new();
        push_chunk(&mut out, b"hello");
        push_chunk(&mut out, b"");
        push_chunk(&mut out, &[b'x'; 300]);
        out.extend_from_slice(LAST_CHUNK);
        let (data, consumed, finished) = decoded(&out, &[out.len()]).unwrap();
        assert_eq!((data.len(), consumed, finished), (305, out.len(), true));
    }
}
