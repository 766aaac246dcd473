//! Link arguments of hatch: where the linker puts what runs at each start.

fn main() {
    println!("cargo::rerun-if-changed=order.ld");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/order.ld");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
}
