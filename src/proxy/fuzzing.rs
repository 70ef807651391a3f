//! Fuzz targets of framing: what one connection carries, read by the code that reads connections, without a socket.
//! Never: part of the product; built for tests and by cargo-fuzz (`fuzz/`) only.
//! Always: what is read of a connection does not depend on where its bytes were cut.

use crate::http::framing::ResponseFraming;
use crate::http::framing::request_framing;
use crate::http::framing::response_framing;
use crate::http::head::RequestHead;
use crate::http::head::ResponseHead;
use crate::http::parse::HeadLimits;
use crate::http::parse::Progress;
use crate::http::parse::has_end;
use crate::http::parse::parse_request;
use crate::http::parse::parse_response;
use crate::limits;
use crate::proxy::body::RequestBody;
use crate::proxy::buffers::Buf;
use crate::proxy::connection::leave_request;
use crate::proxy::fault::Fault;
use crate::proxy::relay::ResponseBody;
use crate::stdx::fuzzing::splits;

/// What was read of a connection, in order.
#[derive(Debug, PartialEq)]
enum Event {
    /// A whole message: start line and fields, and the body.
    Message(Vec<u8>, Vec<u8>),
    /// Head and part of the body of a message that goes on.
    Unfinished(Vec<u8>, Vec<u8>),
    /// The head was refused; the bytes from there on.
    BadHead(u16, Vec<u8>),
    /// The framing or the body of this message was refused.
    BadBody(Vec<u8>, Fault),
    /// No head is complete; the bytes from there on.
    Waiting(Vec<u8>),
}

/// How a body that did not come whole with its head is read.
#[derive(Clone, Copy)]
enum Mode {
    Gathered,
    Streamed,
}

struct Pieces<'a> {
    text: &'a [u8],
    at: usize,
    ends: std::slice::Iter<'a, usize>,
}

impl<'a> Pieces<'a> {
    fn new(text: &'a [u8], ends: &'a [usize]) -> Self {
        Self { text, at: 0, ends: ends.iter() }
    }

    /// The next piece; a read brings at least one byte.
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = *self.ends.find(|&&end| end > self.at)?;
        let piece = &self.text[self.at..end];
        self.at = end;
        Some(piece)
    }
}

fn buf_of(piece: &[u8]) -> Buf {
    let mut buf = Buf::with_capacity(piece.len());
    buf.extend(piece);
    buf
}

fn requests_in_pieces(text: &[u8], ends: &[usize], mode: Mode) -> Vec<Event> {
    let mut pieces = Pieces::new(text, ends);
    let (mut buf, mut extra, mut events) = (buf_of(b""), Vec::new(), Vec::new());
    let mut body = RequestBody::default();
    loop {
        let mut head = RequestHead::default();
        loop {
            match parse_request(buf.bytes(), &HeadLimits::REQUEST, &mut head) {
                Ok(Progress::Complete) => break,
                Ok(Progress::NeedMore) => {}
                Err(bad) => {
                    events.push(Event::BadHead(bad.status(), text[pieces.at - buf.len()..].to_vec()));
                    return events;
                }
            }
            let Some(piece) = pieces.next() else {
                events.push(Event::Waiting(buf.bytes().to_vec()));
                return events;
            };
            buf.extend(piece);
        }
        let shown = buf.bytes()[..head.len].to_vec();
        let begun = request_framing(&head, buf.bytes()).map_err(|bad| Fault::refused(bad.status()));
        let begun = begun.and_then(|framing| {
            body.begin(framing, head.len, false);
            body.take_at_hand(buf.bytes())
        });
        if let Err(fault) = begun {
            events.push(Event::BadBody(shown, fault));
            return events;
        }
        let mut data = body.bytes(buf.bytes()).to_vec();
        while !body.is_complete() {
            let Some(piece) = pieces.next() else {
                events.push(Event::Unfinished(shown, data));
                return events;
            };
            let taken = match mode {
                Mode::Gathered if body.declared_length().is_some() => {
                    buf.extend(piece);
                    let taken = body.take_at_hand(buf.bytes());
                    data = body.bytes(buf.bytes()).to_vec();
                    taken
                }
                _ => {
                    let mut piece = buf_of(piece);
                    let taken = body.take_piece(&mut piece, &mut extra);
                    data.extend_from_slice(if taken.is_ok() { piece.bytes() } else { &[] });
                    taken
                }
            };
            if let Err(fault) = taken {
                events.push(Event::BadBody(shown, fault));
                return events;
            }
        }
        events.push(Event::Message(shown, data));
        leave_request(&mut buf, &mut extra, body.taken());
    }
}

/// Any bytes as what a client sends on one connection: requests with bodies, pipelined, in pieces.
pub fn requests(text: &[u8]) {
    let whole = requests_in_pieces(text, &[text.len()], Mode::Streamed);
    for ends in splits(text) {
        for mode in [Mode::Gathered, Mode::Streamed] {
            must_be_same(&whole, &requests_in_pieces(text, &ends, mode), &ends);
        }
    }
}

/// Without an end of a head in sight a refusal may wait until the bytes have doubled.
fn must_be_same(whole: &[Event], pieces: &[Event], ends: &[usize]) {
    match (whole, pieces) {
        ([same @ .., Event::BadHead(_, left)], [others @ .., Event::Waiting(waiting)])
            if same == others && left == waiting && !has_end(left) => {}
        _ => assert_eq!(whole, pieces, "cut at {ends:?}"),
    }
}

fn responses_in_pieces(text: &[u8], ends: &[usize]) -> Vec<Event> {
    let mut pieces = Pieces::new(text, ends);
    let (mut buf, mut events) = (buf_of(b""), Vec::new());
    loop {
        let mut head = ResponseHead::default();
        loop {
            match parse_response(buf.bytes(), &HeadLimits::RESPONSE, &mut head) {
                Ok(Progress::Complete) => break,
                Ok(Progress::NeedMore) => {}
                Err(_) => {
                    events.push(Event::BadHead(502, text[pieces.at - buf.len()..].to_vec()));
                    return events;
                }
            }
            let Some(piece) = pieces.next() else {
                events.push(Event::Waiting(buf.bytes().to_vec()));
                return events;
            };
            buf.extend(piece);
        }
        let shown = buf.bytes()[..head.len].to_vec();
        let Ok(framing) = response_framing(&head, buf.bytes(), false) else {
            events.push(Event::BadBody(shown, Fault::Truncated));
            return events;
        };
        buf.consume(head.len);
        if head.status < 200 && events.len() < limits::INTERIM_RESPONSES_MAX {
            events.push(Event::Message(shown, Vec::new()));
            continue;
        }
        // The final answer of this connection: bytes behind it end it, whenever they come.
        let (mut body, mut data) = (ResponseBody::new(framing), Vec::new());
        loop {
            if body.take(&mut buf).is_none() {
                events.push(Event::BadBody(shown, Fault::Truncated));
                return events;
            }
            data.extend_from_slice(buf.bytes());
            if body.complete {
                events.push(Event::Message(shown, data));
                return events;
            }
            match pieces.next() {
                Some(piece) => buf = buf_of(piece),
                None if framing == ResponseFraming::UntilClose => {
                    events.push(Event::Message(shown, data));
                    return events;
                }
                None => {
                    events.push(Event::Unfinished(shown, data));
                    return events;
                }
            }
        }
    }
}

/// Any bytes as what an upstream answers to one request: interim answers, an answer and its body, in pieces.
pub fn responses(text: &[u8]) {
    let whole = responses_in_pieces(text, &[text.len()]);
    for ends in splits(text) {
        must_be_same(&whole, &responses_in_pieces(text, &ends), &ends);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdx::fuzzing::check;

    const WORDS: &[&str] = &[
        "\r\n",
        "\r\n\r\n",
        "0\r\n\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "3\r\nabc\r\n",
        "\n",
    ];

    #[test]
    fn the_requests_of_a_connection_do_not_depend_on_where_it_is_cut() {
        check("requests", WORDS, 4000, requests);
    }

    #[test]
    fn the_answers_of_a_connection_do_not_depend_on_where_it_is_cut() {
        check("responses", WORDS, 4000, responses);
    }
}
