//! mayfly's guest: a PVH unikernel for Xen that answers DNS and HTTP. This crate is all of it that a host can test;
//! the binary of the same name adds what only runs on the machine itself (`main.rs` and `machine/`).
//!
//! # Where to read on
//!
//! The guest is made of these crates, each of which uses only those above it:
//!
//! | crate | what it is |
//! |---|---|
//! | [`mayfly_handoff`] | what a toolstack tells the guest: ELF note, structure of a connected network, sizing |
//! | [`mayfly_boot`] | the machine until the first Rust line, start info, which RAM is free |
//! | [`mayfly_drivers`] | the Xen front ends, as state machines over one trait, [`mayfly_drivers::Hypervisor`] |
//! | [`mayfly_site`] | what a site is to its servers, the format of packed sites and its reader |
//! | [`mayfly_stream`] | how a service over TCP is called: bytes in, bytes out |
//! | [`mayfly_dns`] | an authoritative DNS server over bytes |
//! | [`mayfly_http`] | an HTTP/1.1 server over bytes |
//! | `mayfly`, this one | boot order, event loop, sockets |
//!
//! # One birth
//!
//! 1. `boot/src/entry.s` enters 64-bit mode and calls `mayfly_main` in the binary, which finds Xen, RAM and the command
//!    line ([`cmdline`]).
//! 2. [`boot::boot`] starts the front ends and makes the services, and queues the first frame.
//! 3. [`guest::Guest::step`] is one turn of the event loop: it takes what has come, has it served and flushes the rings.
//!
//! # One packet
//!
//! [`nic`] verifies checksums and is the device of smoltcp; [`stack`] sends a DNS query to [`mayfly_dns`] at once and
//! a TCP segment to its connection, where [`mayfly_dns`] or [`mayfly_http`] looks at the receive buffer in place. What
//! is counted on the way is told by [`report`]; when each phase of the boot was reached, by [`timeline`].
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
