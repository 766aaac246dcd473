//! Cookies and rates.

use super::rate::{Limiter, Verdict};
use super::*;

/// The test vectors of RFC 9018 appendix A.
#[test]
fn cookies_of_the_rfc() {
    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let byte = |digits| u8::from_str_radix(core::str::from_utf8(digits).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }
    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
    for (address, sent, now, secret, expected, is_valid) in [
        (
            "198.51.100.100",
            "2464c4abcf10c957",
            1_559_731_985,
            SECRET,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            false,
        ),
        (
            "198.51.100.100",
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            1_559_734_385,
            SECRET,
            "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
            true,
        ),
        (
            "203.0.113.203",
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            1_559_734_700,
            SECRET,
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
            false,
        ),
        (
            "203.0.113.203",
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            1_559_727_985,
            SECRET,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            true,
        ),
        (
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            1_559_741_961,
            "445536bcd2513298075a5d379663c962",
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
            false,
        ),
    ] {
        let secret = bytes(secret).try_into().unwrap();
        let address = address.parse().unwrap();
        let cookie = Cookie::read(&bytes(sent), &secret, address, now).unwrap();
        assert_eq!(cookie.is_valid, is_valid, "{sent} {now}");
        assert_eq!(cookie.reply[..], bytes(expected), "{sent} {now}");
    }
}

#[test]
fn age_of_cookies() {
    let secret = [3; 16];
    let now = 1_000_000;
    let fresh = Cookie::read(b"12345678", &secret, ADDRESS, now).unwrap();
    for (later, is_valid, is_kept) in [
        (now, true, true),
        (now + 1799, true, true),
        (now + 1800, true, false),
        (now + 3600, true, false),
        (now + 3601, false, false),
        (now - 300, true, false),
        (now - 301, false, false),
    ] {
        let again = Cookie::read(&fresh.reply, &secret, ADDRESS, later).unwrap();
        assert_eq!(again.is_valid, is_valid, "{later}");
        assert_eq!(again.reply == fresh.reply, is_kept, "{later}");
    }
    // Another address, secret, or byte.
    let other = "198.51.100.8".parse().unwrap();
    assert!(
        !Cookie::read(&fresh.reply, &secret, other, now)
            .unwrap()
            .is_valid
    );
    assert!(
        !Cookie::read(&fresh.reply, &[4; 16], ADDRESS, now)
            .unwrap()
            .is_valid
    );
    for at in 0..24 {
        let mut forged = fresh.reply;
        forged[at] ^= 1;
        assert!(
            !Cookie::read(&forged, &secret, ADDRESS, now)
                .unwrap()
                .is_valid
        );
    }
    for length in 0..64 {
        let read = Cookie::read(&std::vec![0; length], &secret, ADDRESS, now);
        assert_eq!(read.is_some(), length == 8 || (16..=40).contains(&length));
    }
}

#[test]
fn rates() {
    let limit = NonZeroU16::new(100);
    let mut limiter = Limiter::new(limit, 5);
    let mut sent = |now, address: &str, count| {
        let address = address.parse().unwrap();
        let verdicts = (0..count).map(|_| limiter.count(now, address));
        let verdicts: Vec<_> = verdicts.collect();
        let count = |verdict| verdicts.iter().filter(|known| **known == verdict).count();
        [Verdict::Send, Verdict::Truncate, Verdict::Drop].map(count)
    };
    // A second's worth at once; of what is more, every other one is answered with TC.
    assert_eq!(sent(1000, "192.0.2.1", 300), [100, 100, 100]);
    // The rest of the /24 has had it as well; another has not.
    assert_eq!(sent(1000, "192.0.2.200", 2), [0, 1, 1]);
    assert_eq!(sent(1000, "192.0.3.1", 2), [2, 0, 0]);
    // What is not used in the meantime comes back, up to a second's worth.
    assert_eq!(sent(1100, "192.0.2.1", 12), [10, 1, 1]);
    assert_eq!(sent(9999, "192.0.2.1", 102), [100, 1, 1]);
    // Half a day later the clock of the buckets wraps.
    assert_eq!(
        sent(u64::from(u32::MAX) / 64 - 100, "192.0.2.1", 102),
        [100, 1, 1]
    );
    assert_eq!(
        sent(u64::from(u32::MAX) / 64 + 100, "192.0.2.1", 22),
        [20, 1, 1]
    );
    // A /56.
    assert_eq!(sent(1000, "2001:db8:0:100::1", 100), [100, 0, 0]);
    assert_eq!(sent(1000, "2001:db8:0:1ff::2", 2), [0, 1, 1]);
    assert_eq!(sent(1000, "2001:db8:0:200::1", 1), [1, 0, 0]);

    let mut limiter = Limiter::new(None, 5);
    assert!((0..100_000).all(|_| limiter.count(0, ADDRESS) == Verdict::Send));
}

/// A victim is sent no more bytes than were sent in its name; who has a cookie, or comes over TCP,
/// gets all.
#[test]
fn no_amplifier() {
    let zones = zones();
    let config = ServerConfig::new([7; 16]);
    let limit = u32::from(ServerConfig::RATE_LIMIT.get());
    let mut server = Server::new(config);
    let message = query_edns("nothing.nsec3.test", A, 1232, DO);
    let mut ask = |message: &[u8], transport| ask_of(&mut server, &zones, message, transport);
    for _ in 0..limit {
        assert!(ask(&message, Transport::Udp).unwrap().len() > 512);
    }
    let answers: Vec<_> = (0..100).map(|_| ask(&message, Transport::Udp)).collect();
    assert_eq!(answers.iter().flatten().count(), 50);
    for answer in answers.iter().flatten() {
        assert!(answer.len() <= message.len());
        assert_eq!(
            dump(answer),
            "0 qr tc rd; nothing.nsec3.test. 1/1;;; OPT . 1232 0x8000 \"\""
        );
    }
    assert!(ask(&message, Transport::Tcp).unwrap().len() > 512);

    let with = |option: &[u8]| {
        let length = u16::try_from(option.len()).unwrap().to_be_bytes();
        let option = [b"\0\x0a", &length[..], option].concat();
        let question = question("nothing.nsec3.test", A, IN);
        [header(0, [1, 0, 0, 1]), question, opt(1232, DO, &option)].concat()
    };
    let first = ask(&with(b"12345678"), Transport::Udp);
    let first = first
        .or_else(|| ask(&with(b"12345678"), Transport::Udp))
        .unwrap();
    let cookie = &first[first.len() - 24..];
    for _ in 0..10 {
        assert!(ask(&with(cookie), Transport::Udp).unwrap().len() > 512);
    }
    assert_eq!(server.stats.cookies, 10);
    assert_eq!((server.stats.slipped, server.stats.truncated), (51, 0));
    assert!(matches!(server.stats.limited, 50 | 51));
}
