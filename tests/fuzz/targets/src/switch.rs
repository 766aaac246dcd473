//! The switch with two hostile guests and one honest guest that has to be served.
//!
//! Input: [`mayfly_switch::fake::script`].

pub use mayfly_switch::fake::script::run;
