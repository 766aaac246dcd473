//! Debian's `verify-stream-v2` reads what is written here. It is a program in Python, which needs no Xen.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io::Write as _;

use mayfly_lab::verify_saved;
use mayfly_savefile::{HvmParam, PageBatch, SavedConfig, SavefileWriter, TscInfo};

/// A file with every record that is written, and full batches.
fn file() -> Vec<u8> {
    let config = SavedConfig::Json("{\"c_info\":{\"type\":\"pvh\"}}".to_owned());
    let mut writer = SavefileWriter::begin(Vec::new(), &config, (4, 17)).unwrap();
    writer.cpuid_policy(&[0; 24 * 3]).unwrap();
    writer.msr_policy(&[0; 16]).unwrap();
    writer.static_data_end().unwrap();
    let mut batch = PageBatch::default();
    for gfn in 0..2500 {
        match gfn % 5 {
            0 => batch.page(gfn).fill(7),
            _ => batch.zeros(gfn),
        }
        if batch.is_full() {
            writer.pages(&mut batch).unwrap();
        }
    }
    writer.pages(&mut batch).unwrap();
    let tsc = TscInfo {
        mode: 2,
        khz: 1_000_000,
        nsec: 5,
        incarnation: 1,
    };
    writer.tsc_info(&tsc).unwrap();
    writer.context(&[1; 2504 + 3]).unwrap();
    let (index, value) = (1, 0xf_effc);
    writer.params(&[HvmParam { index, value }]).unwrap();
    writer.finish().unwrap()
}

/// Has the checker read a file.
fn verify(file: &[u8]) -> Result<(), String> {
    let mut saved = tempfile::NamedTempFile::new().unwrap();
    saved.write_all(file).unwrap();
    verify_saved(saved.path(), &|_| {}).map_err(|error| format!("{error:#}"))
}

#[test]
fn debians_checker_accepts_the_file() {
    assert_eq!(verify(&file()), Ok(()));
}

#[test]
fn debians_checker_refuses_a_cut_file() {
    let mut file = file();
    file.truncate(file.len() - 24);
    let error = verify(&file).unwrap_err();
    assert!(error.contains("Stream truncated"), "{error}");
}
