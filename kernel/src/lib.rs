//! mayfly's guest: a PVH unikernel for Xen that answers DNS and HTTP. This crate is the part of it that is tested on a
//! host; the binary of the same name adds the code that runs on the machine only (`main.rs` and `machine/`).
//!
//! # The crates of the guest
//!
//! Each crate uses only those above it:
//!
//! | crate | what it is |
//! |---|---|
//! | [`mayfly_handoff`] | the interface between toolstack and guest: ELF note, structure of a connected network, sizing |
//! | [`mayfly_boot`] | the machine until the first Rust line, start info, the search for free RAM |
//! | [`mayfly_drivers`] | the Xen front ends, as state machines over one trait, [`mayfly_drivers::Hypervisor`] |
//! | [`mayfly_site`] | a site as the servers see it, the format of packed sites and its reader |
//! | [`mayfly_stream`] | the interface of a service over TCP: bytes in, bytes out |
//! | [`mayfly_dns`] | an authoritative DNS server over bytes |
//! | [`mayfly_http`] | an HTTP/1.1 server over bytes |
//! | `mayfly`, this one | boot order, event loop, sockets |
//!
//! # One boot
//!
//! 1. `boot/src/entry.s` enters 64-bit mode and calls `mayfly_main` in the binary, which finds Xen, RAM and the command
//!    line ([`cmdline`]).
//! 2. [`boot::boot`] starts the front ends and makes the services, and queues the first frame.
//! 3. [`guest::Guest::step`] is one turn of the event loop: it takes the frames that have arrived, has them served and
//!    flushes the rings.
//!
//! # One packet
//!
//! [`nic`] verifies checksums and is smoltcp's device. [`stack`] gives a DNS query to [`mayfly_dns`] at once and a TCP
//! segment to its connection, whose receive buffer [`mayfly_dns`] or [`mayfly_http`] reads in place. [`report`] prints
//! the counters of all of them, and [`timeline`] the phases of the boot.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod announce;
pub mod boot;
pub mod checksum;
pub mod cmdline;
pub mod copied;
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
