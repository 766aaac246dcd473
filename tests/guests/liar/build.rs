//! Links the guest as the unikernel is linked.

fn main() {
    println!("cargo::rerun-if-changed=../../../linker.ld");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../linker.ld");
    for arg in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--gc-sections",
        "-T",
        script,
    ] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
