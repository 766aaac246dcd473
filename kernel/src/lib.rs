//! The host-tested part of the guest: all but its boot path and what only runs on the machine itself.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod announce;
pub mod boot;
pub mod checksum;
pub mod cmdline;
pub mod guest;
pub mod last_words;
pub mod line;
pub mod nic;
pub mod ranges;
pub mod report;
pub mod secrets;
pub mod stack;
pub mod timeline;
pub mod wall;
