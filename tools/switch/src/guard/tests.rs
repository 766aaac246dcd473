//! The rules in plain code.

#[path = "cases.rs"]
mod cases;

use super::{Identity, link_local};

fn is_let_pass(identity: &Identity, frame: &[u8]) -> bool {
    identity.check(frame).is_ok()
}
