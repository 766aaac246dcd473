//! Link arguments of the guest binary, and of nothing else.

fn main() {
    println!("cargo::rerun-if-changed=../linker.ld");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker.ld");
    for arg in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        // A segment starts on a page of its own in memory; in the file it need not.
        "-Wl,-z,max-page-size=4096",
        "-Wl,--gc-sections",
        "-T",
        script,
    ] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
