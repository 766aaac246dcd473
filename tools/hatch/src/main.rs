//! mayfly's tool for the host.
#![cfg_attr(not(test), no_main)]
#![deny(unsafe_code)]

mod cli;
#[cfg(not(test))]
mod entry;
