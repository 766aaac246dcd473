//! Dates that do not tell when a file's content changed are no validators (RFC 9110 sections 8.8.2 and 13.1.5).
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_http_tests::feed;
use mayfly_pack::{Options, pack_dir};
use mayfly_site::Pack;

/// The answer to a request for a site whose files have these contents and dates.
fn ask(files: &[(&str, &str, Duration)], epoch: Option<u64>, fields: &str) -> String {
    let site = tempfile::TempDir::new().unwrap();
    std::fs::create_dir(site.path().join("www")).unwrap();
    for (name, content, date) in files {
        let path = site.path().join("www").join(name);
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::open(path).unwrap();
        file.set_modified(UNIX_EPOCH + *date).unwrap();
    }
    let options = Options {
        epoch,
        ..Options::default()
    };
    let bytes = pack_dir(site.path(), &options).unwrap().to_vec().unwrap();
    let request = format!("GET /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let pack = Pack::open(&bytes).unwrap();
    let (answer, _) = feed(&pack, 2048, request.as_bytes(), usize::MAX, 1 << 16).unwrap();
    String::from_utf8(answer).unwrap()
}

/// The HTTP date of a time, as a client repeats it.
fn date(seconds: u64) -> String {
    String::from_utf8(mayfly_site::date::imf_fixdate(seconds).to_vec()).unwrap()
}

const LATE: u64 = 1_700_000_000;

#[test]
fn dates_that_a_tool_has_set() {
    let whole = Duration::from_secs;
    let exact = Duration::new(LATE, 5);
    let next = Duration::new(LATE + 1, 5);
    for (one, other, epoch, known) in [
        // The dates of files that people write.
        (exact, next, None, true),
        (exact, exact, None, true),
        (whole(LATE), whole(LATE + 1), None, true),
        // A package store, an archive without dates, container layers, a reproducible build.
        (whole(1), whole(1), None, false),
        (whole(1), next, None, false),
        (whole(0), whole(0), None, false),
        (whole(315_532_800), next, None, false),
        (whole(LATE), whole(LATE), None, false),
        (exact, next, Some(LATE - 1), false),
        (exact, next, Some(LATE + 1), true),
        (whole(LATE), next, Some(LATE), false),
    ] {
        let files = [("a.txt", "alphabet", one), ("b.txt", "b", other)];
        let seconds = one.as_secs().min(epoch.unwrap_or(u64::MAX));
        let about = format!("{one:?} {other:?} {epoch:?}");
        let plain = ask(&files, epoch, "");
        assert_eq!(plain.contains("Last-Modified: "), known, "{about}: {plain}");
        let since = ask(
            &files,
            epoch,
            &format!("If-Modified-Since: {}\r\n", date(seconds)),
        );
        let wanted = if known {
            "HTTP/1.1 304"
        } else {
            "HTTP/1.1 200"
        };
        assert!(since.starts_with(wanted), "{about}: {since}");
        let range = format!("Range: bytes=2-\r\nIf-Range: {}\r\n", date(seconds));
        let range = ask(&files, epoch, &range);
        let wanted = if known {
            "HTTP/1.1 206"
        } else {
            "HTTP/1.1 200"
        };
        assert!(range.starts_with(wanted), "{about}: {range}");
    }
}

#[test]
fn no_date_is_of_the_future() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let files = [
        ("a.txt", "alphabet", now + Duration::from_secs(400_000_000)),
        ("b.txt", "b", now),
    ];
    let answer = ask(&files, None, "");
    assert!(!answer.contains("Last-Modified: "), "{answer}");
}
