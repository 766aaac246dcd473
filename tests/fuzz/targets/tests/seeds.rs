//! Each fuzzer passes on the inputs that it begins with.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;

use mayfly_fuzz_targets::{dns, dns_tcp, http, pack, savefile, store, switch};

fn pass(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../seeds")
        .join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        run(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no inputs for {target}");
}

#[test]
fn dns_passes() {
    pass("dns", dns::run);
}

#[test]
fn dns_over_tcp_passes() {
    pass("dns_tcp", dns_tcp::run);
}

#[test]
fn http_passes() {
    pass("http", http::run);
}

#[test]
fn pack_passes() {
    pass("pack", pack::run);
}

#[test]
fn savefile_passes() {
    pass("savefile", savefile::run);
}

#[test]
fn store_passes() {
    pass("store", store::run);
}

#[test]
fn store_state_passes() {
    pass("store_state", store::run_state);
}

#[test]
fn switch_passes() {
    pass("switch", switch::run);
}
