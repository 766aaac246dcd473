//! The daemon that starts services when somebody asks for them.
#![deny(unsafe_code)]

pub mod summon;
