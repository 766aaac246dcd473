//! The table against a packed site, in memory.
#![allow(clippy::unwrap_used)]

use mayfly::services::http::{Connection, Shared};
use mayfly::services::site::Pack;
use mayfly::services::{Input, Next};

/// The longest header section in a guest.
const HEAD_MAX: usize = 2048;

/// What a connection sends that gets a stream in pieces of `step` octets, and has room for `room` at a time.
fn exchange(pack: &Pack<'_>, stream: &[u8], step: usize, room: usize) -> Result<Vec<u8>, String> {
    let mut connection = Connection::new(0, HEAD_MAX);
    let mut shared = Shared::default();
    let (mut start, mut end) = (0, 0);
    let (mut sent, mut out) = (Vec::new(), vec![0; room]);
    loop {
        let input = Input {
            octets: &stream[start..end],
            ended: end == stream.len(),
        };
        let progress = connection.process(0, 1_800_000_000, input, &mut out, pack, &mut shared);
        start += progress.consumed;
        sent.extend_from_slice(&out[..progress.written]);
        match progress.next {
            Next::Close => return Ok(sent),
            Next::Abort => return Err("reset".into()),
            Next::Keep if progress.written > 0 => {}
            Next::Keep if input.ended => return Err("neither done nor getting on".into()),
            Next::Keep => end = stream.len().min(end + step),
        }
    }
}

#[test]
fn table() {
    let options = hatch::pack::Options::default();
    let packed = hatch::pack::pack_dir(&mayfly_http_tests::site(), &options).unwrap();
    let mut octets = Vec::new();
    packed.write(&mut octets).unwrap();
    let pack = Pack::open(&octets).unwrap();
    let cases = mayfly_http_tests::cases();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let mut errors = Vec::new();
    for case in &cases {
        for (step, room) in [(usize::MAX >> 1, 1 << 20), (1, 1 << 20), (7, 50)] {
            let result = case.run(&mut |stream| exchange(&pack, stream, step, room));
            if let Err(error) = result {
                errors.push(error);
                break;
            }
        }
    }
    assert!(
        errors.is_empty(),
        "{} of {}:\n{}",
        errors.len(),
        cases.len(),
        errors.join("\n\n")
    );
}

/// Of each section the first request with each kind of answer is where fuzzing starts from, behind
/// two octets of the fuzz target's own.
#[test]
#[ignore = "writes tests/fuzz/seeds/http: run it when the table has changed"]
fn write_seeds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/http");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut kinds = std::collections::BTreeSet::new();
    for case in mayfly_http_tests::cases() {
        let mut validators = |_: &[u8]| Ok(VALIDATORS.to_vec());
        let stream = case.stream(&mut validators).unwrap();
        // Longer ones teach a fuzzer nothing.
        if stream.len() <= 400 && kinds.insert((case.section, case.expected)) {
            let section = case.section.split(':').next().unwrap();
            let name = format!("{section}-{}", case.expected).to_lowercase();
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let seed = [&[6, 49], &stream[..]].concat();
            std::fs::write(folder.join(name), seed).unwrap();
        }
    }
}

/// What the fuzz target's own site answers with.
const VALIDATORS: &[u8] = b"HTTP/1.1 200 OK\r\nETag: \"tag\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
