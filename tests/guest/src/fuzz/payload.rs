//! Payloads of the messages: DNS queries, HTTP requests, TCP options.

use super::mutate;
use crate::frames::{self, Question};
use crate::random::Random;

const REQUESTS: [&[u8]; 12] = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /.mayfly/boot HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET /%2e%2e/%41 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://mayfly.test/ HTTP/1.1\r\nHost: mayfly.test\r\nAccept: */*\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/2.0\r\n\r\n",
];

const NAMES: [&str; 9] = [
    "mayfly.test",
    "ns.mayfly.test",
    "www.mayfly.test",
    "a.b.wild.mayfly.test",
    "wild.mayfly.test",
    "nothing.mayfly.test",
    "example.com",
    "test",
    "",
];

/// A DNS query, changed in one of three times.
pub(super) fn query(random: &mut Random) -> Vec<u8> {
    let question = Question {
        name: random.pick(&NAMES),
        rtype: random.pick(&[1, 2, 5, 6, 15, 16, 28, 41, 251, 252, 255, 65]),
        edns: random.pick(&[None, Some(0), Some(512), Some(1232), Some(65535)]),
    };
    let mut query = frames::dns_query(&question);
    match random.below(6) {
        0 | 1 => mutate::bytes(random, &mut query),
        // A compression pointer, maybe to itself or forward.
        2 if query.len() > 14 => {
            let at = 12 + random.below(query.len() - 13);
            let to = random.below(query.len() + 4).to_be_bytes()[7];
            query[at] = 0xc0 | random.byte() & 1;
            query[at + 1] = to;
        }
        _ => {}
    }
    query
}

/// An HTTP request, changed in one of three times.
pub(super) fn request(random: &mut Random) -> Vec<u8> {
    let mut request = random.pick(&REQUESTS).to_vec();
    match random.below(8) {
        0 | 1 => mutate::bytes(random, &mut request),
        2 => {
            // A header section near or beyond the greatest size.
            let fill = random.below(2600);
            let at = request.len() - 2;
            let mut field = b"X-Long: ".to_vec();
            field.resize(8 + fill, b'a');
            field.extend(b"\r\n");
            request.splice(at..at, field);
        }
        3 => request = request.repeat(1 + random.below(12)),
        _ => {}
    }
    request
}

/// Options of a SYN: mostly sensible, else garbage.
pub(super) fn options(random: &mut Random) -> Vec<u8> {
    let mss = random
        .pick(&[1460_u16, 1460, 536, 100, 48, 1, 0, 65535])
        .to_be_bytes();
    let mut options = vec![2, 4, mss[0], mss[1]];
    if random.one_in(2) {
        options.extend([1, 3, 3, random.pick(&[0, 7, 14, 15, 255]), 4, 2]);
    }
    if random.one_in(3) {
        options.extend([8, 10, 1, 2, 3, 4, 0, 0, 0, 0]);
    }
    if random.one_in(4) {
        mutate::bytes(random, &mut options);
    }
    options
}
