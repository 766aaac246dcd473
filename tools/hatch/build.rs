//! Link arguments of hatch: where the linker puts what runs at each start.
//!
//! With `HATCH_MAP`, hatch is linked at addresses of its own, and the linker writes its map to that file. This is for
//! `cargo xtask order`.

fn main() {
    println!("cargo::rerun-if-changed=order.ld");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/order.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    println!("cargo::rerun-if-env-changed=HATCH_MAP");
    if let Ok(map) = std::env::var("HATCH_MAP") {
        println!("cargo::rustc-link-arg-bins=-Wl,-Map={map},--image-base=0x20000000");
    }
}
