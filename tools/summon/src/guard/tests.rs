//! The rules as a program for the kernel.

#[path = "../../../switch/src/guard/cases.rs"]
mod cases;

use mayfly_switch::guard::link_local;

use super::program::{TC_ACT_OK, TC_ACT_SHOT};
use super::{Identity, interpreter, program};

/// Whether the program passes a frame. It reads nothing beyond the frame's end, and agrees with the switch, which has the same rules in
/// plain code.
#[track_caller]
fn is_let_pass(identity: &Identity, frame: &[u8]) -> bool {
    let program = program::of(identity);
    let passes = match interpreter::run(&program, frame, false) {
        Ok(TC_ACT_OK) => true,
        Ok(TC_ACT_SHOT) => false,
        other => panic!("{other:?}: {frame:02x?}"),
    };
    assert_eq!(passes, identity.check(frame).is_ok(), "{frame:02x?}");
    // With a VLAN tag that the kernel has taken out of the frame, nothing passes.
    assert_eq!(interpreter::run(&program, frame, true), Ok(TC_ACT_SHOT));
    passes
}
