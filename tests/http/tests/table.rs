//! Runs the table with a packed site, in memory.
#![allow(clippy::unwrap_used)]

use mayfly_http_tests::feed;
use mayfly_site::Pack;

/// The longest header section in a guest.
const HEAD_MAX: usize = 2048;

#[test]
fn table() {
    let options = mayfly_pack::Options::default();
    let packed = mayfly_pack::pack_dir(&mayfly_http_tests::site(), &options).unwrap();
    let mut bytes = Vec::new();
    packed.write(&mut bytes).unwrap();
    let pack = Pack::open(&bytes).unwrap();
    let cases = mayfly_http_tests::cases();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let mut errors = Vec::new();
    for case in &cases {
        for (step, room) in [(usize::MAX, 1 << 20), (1, 1 << 20), (7, 50)] {
            let result = case
                .run(&mut |stream| feed(&pack, HEAD_MAX, stream, step, room).map(|(sent, _)| sent));
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

/// Writes the seeds of the fuzz target: of each section, the first request with each kind of answer, after two bytes
/// for the fuzz target itself.
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
        // Longer requests teach a fuzzer nothing.
        if stream.len() <= 400 && kinds.insert((case.section, case.expected)) {
            let section = case.section.split(':').next().unwrap();
            let name = format!("{section}-{}", case.expected).to_lowercase();
            let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let seed = [&[6, 49], &stream[..]].concat();
            std::fs::write(folder.join(name), seed).unwrap();
        }
    }
}

/// The answer of the fuzz target's own site.
const VALIDATORS: &[u8] = b"HTTP/1.1 200 OK\r\nETag: \"tag\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
