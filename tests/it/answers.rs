//! Answers of upstreams at the edges of what RFC 9112 allows (requirements sections 1.1, 1.3, 1.9, 1.11 and 1.12), as raw
//! bytes: what is a 502 and the end of that connection, what is cut short where the client sees it, and what passes.

use serde_json::json;

use crate::harness::Driver;
use crate::harness::client::End;
use crate::harness::gateway::Gateway;
use crate::harness::on_both_drivers;
use crate::harness::peer::Peer;

on_both_drivers!(
    heads_of_doubtful_syntax_are_502_and_end_their_connection,
    framing_that_could_be_read_in_two_ways_is_502,
    odd_but_clear_answers_pass_and_keep_their_connection,
    a_chunked_answer_is_taken_strictly,
    trailers_of_an_answer_are_bounded_and_never_merged,
    interim_answers_are_passed_on_in_a_bounded_number,
    an_expectation_is_met_once_and_not_by_the_upstream_again,
    answers_to_head_and_of_204_and_304_carry_no_byte_of_a_body,
);

/// A gateway before an upstream that answers the path `/N` with the Nth text, ends its side and waits to be closed.
fn answering(driver: Driver, answers: &[Vec<u8>]) -> (Gateway, Peer) {
    let answers = answers.to_vec();
    let peer = Peer::scripted(move |accepted| {
        while let Some(arrived) = accepted.request() {
            let path = arrived.line().split(' ').nth(1).unwrap_or_default();
            let Some(answer) = path.get(1..).and_then(|n| n.parse::<usize>().ok()).and_then(|n| answers.get(n)) else {
                accepted.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
                continue;
            };
            accepted.send(answer);
            accepted.finish_sending();
            let _ = accepted.until_closed();
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"retries": 0}), json!({"strip_path": false}));
    (gateway, peer)
}

/// Each answer becomes a 502 of the gateway on a connection that goes on, and no upstream connection is used again.
#[track_caller]
fn each_is_502(driver: Driver, answers: &[Vec<u8>]) {
    let (gateway, peer) = answering(driver, answers);
    let mut client = gateway.connect();
    for (n, sent) in answers.iter().enumerate() {
        let shown = sent[..sent.len().min(120)].escape_ascii();
        let answer = client.ask(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, 502, "{shown}: {}{}", answer.head, answer.text());
        assert!(answer.text().starts_with("An invalid response was received"), "{shown}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("keep-alive"), "{shown}: the client is not to blame");
    }
    assert_eq!(peer.connections(), answers.len(), "no connection is used again");
    client.ask("GET /fine HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
}

fn heads_of_doubtful_syntax_are_502_and_end_their_connection(driver: Driver) {
    let lines = [
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 099 Odd",
        "HTTP/1.1 99 Odd",
        "HTTP/1.1 -99 Odd",
        "HTTP/1.1 2x0 Odd",
        "HTTP/1.1",
        "HTTP/1.2 200 OK",
        "HTTP/3 200 OK",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x07K",
        "HTTP/1.1 200 O\rK",
        "ICY 200 OK",
        "200 OK",
        "<html>an answer of HTTP/0.9</html>",
    ];
    let fields: [&[u8]; 16] = [
        b"X: a\x7fb",
        b"X: a\x01b",
        b"X: a\0b",
        b"X: a\rb",
        b"X: a\r",
        b"X: a\nEvil: b",
        b"X : a",
        b"X\t: a",
        b"\xc3\xa9: a",
        b"X Y: a",
        b": a",
        b"X",
        b" X: a",
        b"Y: b\r\n X: a",
        b"Y: b\r\n\tX: a",
        b"X(y): a",
    ];
    let of_line = |line: &&str| format!("{line}\r\nContent-Length: 2\r\n\r\nok").into_bytes();
    let of_field = |field: &&[u8]| [b"HTTP/1.1 200 OK\r\n", *field, b"\r\nContent-Length: 2\r\n\r\nok"].concat();
    let mut answers: Vec<Vec<u8>> = lines.iter().map(of_line).chain(fields.iter().map(of_field)).collect();
    let ends: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    ];
    answers.extend(ends.map(<[u8]>::to_vec));
    each_is_502(driver, &answers);
}

fn framing_that_could_be_read_in_two_ways_is_502(driver: Driver) {
    let fields = [
        "Content-Length: 2, 3",
        "Content-Length: 2,",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: ",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551618",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: ",
        "Transfer-Encoding: xchunked",
    ];
    let of = |fields: &&str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n2\r\nok\r\n0\r\n\r\n").into_bytes();
    let mut answers: Vec<Vec<u8>> = fields.iter().map(of).collect();
    answers.push(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec());
    // Where no body can be, broken framing is as little believed.
    answers.push(b"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n".to_vec());
    each_is_502(driver, &answers);
}

fn odd_but_clear_answers_pass_and_keep_their_connection(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.request() {
            accepted.send(match arrived.line().split(' ').nth(1).unwrap_or_default() {
                "/list" => &b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 02\r\n\r\nok"[..],
                "/no-reason" => b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
                "/empty-reason" => b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
                "/reason" => b"HTTP/1.1 200 caf\xc3\xa9\tx\r\nContent-Length: 2\r\n\r\nok",
                "/chunked" => {
                    b"HTTP/1.1 200 OK\r\ntransfer-ENCODING: Chunked\r\n\r\n0002;a=\"b;c\"\r\nok\r\n00;x\r\nT: u\r\n\r\n"
                }
                "/unknown" => b"HTTP/1.1 299 Own\r\nContent-Length: 2\r\n\r\nok",
                _ => b"HTTP/1.1 999 Own\r\nContent-Length: 2\r\n\r\nok",
            });
        }
    });
    let gateway = Gateway::with(driver, &[("workers", "1")]);
    gateway.proxy_to(peer.port);
    let mut client = gateway.connect();
    for path in ["/list", "/no-reason", "/empty-reason", "/reason", "/chunked", "/unknown", "/999"] {
        let answer = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!((answer.text().as_str(), answer.truncated), ("ok", false), "{path}: {}", answer.head);
        assert!(answer.header("content-length").is_none_or(|length| length == "2"), "{path}: {}", answer.head);
    }
    assert_eq!(peer.connections(), 1);
}

fn a_chunked_answer_is_taken_strictly(driver: Driver) {
    let floods = [format!("1;{}\r\nx\r\n", "e".repeat(5000)), format!("1;{}\r\nx\r\n", "e".repeat(60)).repeat(100)];
    let bodies = [
        "zz\r\n",
        "\r\n",
        "-1\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        " 1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\nx\r\n",
        "1\r\nxy\r\n",
        "1\r\nx\n",
        "00000000000000001\r\nx\r\n",
        "10000000000000000\r\nx\r\n",
        "ffffffffffffffff\r\nx\r\n",
        "1;a\0b\r\nx\r\n",
        "1;a\nb\r\nx\r\n",
        floods[0].as_str(),
        floods[1].as_str(),
    ];
    let answer = |first: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{first}{body}0\r\n\r\n").into_bytes()
    };
    // Behind so much that the head has left before it is seen.
    let large = format!("{:x}\r\n{}\r\n", 200_000, "y".repeat(200_000));
    let all: Vec<Vec<u8>> = bodies.iter().flat_map(|body| [answer("", body), answer(&large, body)]).collect();
    let (gateway, peer) = answering(driver, &all);
    for (n, body) in bodies.iter().enumerate() {
        let shown = &body[..body.len().min(60)];
        for n in [2 * n, 2 * n + 1] {
            let mut client = gateway.connect();
            client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let mut answer = client.head();
            client.body_of(&mut answer);
            assert!(answer.status == 502 || (answer.status == 200 && answer.truncated), "{shown:?}: {}", answer.head);
            assert!(n % 2 == 0 || answer.status == 200, "{shown:?}: an answer of 200 KB had not begun");
            if answer.status == 200 {
                assert_ne!(client.read_to_end(), End::Open, "{shown:?}");
                assert!(!client.rest.ends_with(b"0\r\n\r\n"), "{shown:?}");
            }
        }
    }
    assert_eq!(peer.connections(), all.len(), "no connection is used again");
    gateway.get("/fine").must_be(200);
}

fn trailers_of_an_answer_are_bounded_and_never_merged(driver: Driver) {
    let trailers =
        |lines: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{lines}\r\n");
    let line = format!("T: {}\r\n", "t".repeat(95));
    let answers = [
        trailers("Set-Cookie: evil\r\nContent-Length: 9\r\nX-Evil: 1\r\nConnection: close\r\n"),
        trailers(&line.repeat(80)),
        trailers(&line.repeat(90)),
        trailers("no colon\r\n"),
        trailers("X: a\0b\r\n"),
        trailers("X : a\r\n"),
        trailers("X: a\nY: b\r\n"),
    ];
    let (gateway, _peer) = answering(driver, &answers.map(String::into_bytes));
    for n in 0..7 {
        let mut client = gateway.connect();
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"));
        let mut answer = client.head();
        client.body_of(&mut answer);
        if n < 2 {
            assert_eq!((answer.status, answer.text().as_str(), answer.truncated), (200, "ok", false), "{n}");
            let lower = answer.head.to_lowercase();
            assert!(!lower.contains("evil") && !lower.contains("content-length"), "{}", answer.head);
        } else {
            assert!(answer.status == 502 || answer.truncated, "{n}: {}{}", answer.head, answer.text());
        }
    }
}

fn interim_answers_are_passed_on_in_a_bounded_number(driver: Driver) {
    let hints =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Gone\r\nX-Gone: 1\r\nContent-Length: 9\r\n\r\n";
    let end = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let answers = [
        format!("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Own\r\n\r\n{}{end}", hints.repeat(14)),
        format!("{}{end}", hints.repeat(17)),
        hints.repeat(1000),
        hints.to_owned(),
    ];
    let (gateway, _peer) = answering(driver, &answers.map(String::into_bytes));
    let mut client = gateway.connect();
    client.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses: Vec<u16> = (0..16)
        .map(|_| client.head())
        .map(|interim| {
            let fields: Vec<&str> = interim.headers.iter().map(|(name, _)| name.as_str()).collect();
            assert!(fields.is_empty() || fields == ["Link"], "{}", interim.head);
            interim.status
        })
        .collect();
    assert_eq!((statuses[0], statuses[1], &statuses[2..]), (102, 199, &[103; 14][..]));
    assert_eq!(client.response().must_be(200).text(), "ok");
    for n in 1..4 {
        let mut client = gateway.connect();
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut interim = 0;
        let last = loop {
            let head = client.head();
            match head.status {
                103 => interim += 1,
                _ => break head,
            }
        };
        assert_eq!(last.status, 502, "{n}: {}", last.head);
        assert_eq!(interim, if n == 3 { 1 } else { 16 }, "{n}");
    }
    let answer = gateway.connect().ask("GET /0 HTTP/1.0\r\n\r\n").must_be(200);
    assert!(answer.head.starts_with("HTTP/1.1 200 ") && answer.text() == "ok", "HTTP/1.0 knows no interim answers");
    let mut client = gateway.connect();
    client.send("GET /0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.head().status, 200);
}

fn an_expectation_is_met_once_and_not_by_the_upstream_again(driver: Driver) {
    let peer = Peer::scripted(|accepted| {
        while let Some(arrived) = accepted.head() {
            let refuses = arrived.line().contains("/refused");
            accepted.record(&arrived);
            if refuses {
                // Before a byte of the body was read.
                accepted.send("HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
                let _ = accepted.until_closed();
                return;
            }
            let mut arrived = arrived;
            accepted.send("HTTP/1.1 100 Continue\r\n\r\n");
            if accepted.body(&mut arrived).is_none() {
                return;
            }
            accepted.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let gateway = Gateway::start(driver);
    gateway.proxy_with(peer.port, json!({"retries": 0}), json!({"strip_path": false}));
    for buffering in [true, false] {
        gateway.patch("/routes/r", json!({"request_buffering": buffering}));
        let mut client = gateway.connect();
        client.send("POST /taken HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(client.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send("body");
        let mut answer = client.head();
        assert_eq!(answer.status, 200, "exactly one interim answer: {}", answer.head);
        client.body_of(&mut answer);
        // An early answer is relayed while the rest of the body is missing.
        client.send("POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 400000\r\n\r\n");
        assert_eq!(client.head().status, 100);
        client.send(vec![b'x'; if buffering { 400_000 } else { 200_000 }]);
        let answer = client.response().must_be(403);
        assert_eq!(answer.text(), "no", "buffering {buffering}");
        gateway.connect().ask("POST /taken HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmore").must_be(200);
    }
}

fn answers_to_head_and_of_204_and_304_carry_no_byte_of_a_body(driver: Driver) {
    let bodies = [
        "Content-Length: 4\r\n\r\nevil",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "\r\nevil",
        "Content-Length: 4, 4\r\n\r\n",
    ];
    let of = |status: &str| bodies.map(|body| format!("HTTP/1.1 {status}\r\n{body}").into_bytes());
    let answers: Vec<Vec<u8>> = ["200 OK", "204 None", "304 Same"].into_iter().flat_map(of).collect();
    let (gateway, _peer) = answering(driver, &answers);
    let mut client = gateway.connect();
    for n in 0..answers.len() {
        let method = if n < bodies.len() { "HEAD" } else { "GET" };
        client.send(format!("{method} /{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.head();
        let sent = answers[n].escape_ascii();
        assert_eq!(answer.status, [200, 204, 304][n / bodies.len()], "{sent}");
        // What its body would have been like may be told, but never of a 204.
        let lengths = answer.headers("content-length");
        assert!(lengths.is_empty() || (answer.status != 204 && lengths == ["4"]), "{sent}: {}", answer.head);
        assert_eq!(answer.headers("connection"), ["keep-alive"], "{sent}");
        let next = client.ask("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").must_be(200);
        assert_eq!(next.text(), "hello", "after {sent}");
    }
}
