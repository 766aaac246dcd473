//! Requests, with payloads as `docs/misc/xenstore.txt` defines them.

use std::borrow::Cow;
use std::fmt;

use super::error::Error;
use super::path;
use super::wire::{MessageKind, PAYLOAD_MAX};

/// The greatest length of a path in an error message.
const SHOWN: usize = 100;

/// A pending request. [`Store::answer`](super::Store::answer) takes it.
#[derive(Debug)]
#[must_use = "its answer is kept until it is taken or forgotten"]
pub struct RequestId(pub(super) u32);

/// A transaction that xenstored has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub(super) u32);

/// The access of a domain to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// No access.
    None,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Reading and writing.
    Both,
}

/// One entry of a node's permissions. The first entry names the owner, and the access of all domains that are not
/// named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// The access.
    pub access: Access,
    /// The domain.
    pub domid: u16,
}

impl Perm {
    /// `nDOMID`: as the first entry, an owner whose node no other domain can access.
    #[must_use]
    pub const fn none(domid: u16) -> Self {
        Self {
            access: Access::None,
            domid,
        }
    }

    /// `rDOMID`: read access.
    #[must_use]
    pub const fn read(domid: u16) -> Self {
        Self {
            access: Access::Read,
            domid,
        }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let access = match text.as_bytes().first()? {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return None,
        };
        let domid = text.get(1..)?.parse().ok()?;
        Some(Self { access, domid })
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
#[must_use = "it has to be sent"]
pub struct Request<'a> {
    pub(super) kind: MessageKind,
    pub(super) transaction: u32,
    /// The path, to which the rules for paths apply. Its NUL is added if more follows it.
    path: Option<&'a str>,
    rest: Cow<'a, [u8]>,
    /// Whether a word contains a NUL, so that xenstored would take it for two.
    split: bool,
}

impl<'a> Request<'a> {
    fn of(kind: MessageKind, path: &'a str) -> Self {
        Self {
            kind,
            transaction: 0,
            path: Some(path),
            rest: Cow::Borrowed(&[]),
            split: false,
        }
    }

    fn words(kind: MessageKind, words: &[&str]) -> Self {
        let rest = words
            .iter()
            .flat_map(|word| word.bytes().chain([0]))
            .collect();
        let split = words.iter().any(|word| word.contains('\0'));
        Self {
            kind,
            transaction: 0,
            path: None,
            rest: Cow::Owned(rest),
            split,
        }
    }

    /// Reads the value of a node.
    pub fn read(path: &'a str) -> Self {
        Self::of(MessageKind::Read, path)
    }

    /// Sets a node's value. Creates the node and those above it if need be.
    pub fn write(path: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            rest: Cow::Borrowed(value.as_ref()),
            ..Self::of(MessageKind::Write, path)
        }
    }

    /// Creates an empty node, and those above it, unless the node exists.
    pub fn mkdir(path: &'a str) -> Self {
        Self::of(MessageKind::Mkdir, path)
    }

    /// Removes a node and all below it.
    pub fn rm(path: &'a str) -> Self {
        Self::of(MessageKind::Rm, path)
    }

    /// Lists the names directly below a node, each with its NUL.
    pub fn directory(path: &'a str) -> Self {
        Self::of(MessageKind::Directory, path)
    }

    pub(super) fn directory_part(path: &'a str, offset: usize) -> Self {
        let offset = format!("{offset}\0").into_bytes();
        Self {
            rest: Cow::Owned(offset),
            ..Self::of(MessageKind::DirectoryPart, path)
        }
    }

    /// Reads a node's permissions.
    pub fn get_perms(path: &'a str) -> Self {
        Self::of(MessageKind::GetPerms, path)
    }

    /// Sets a node's permissions.
    pub fn set_perms(path: &'a str, perms: &[Perm]) -> Self {
        let mut rest = String::new();
        for perm in perms {
            rest += &perm.to_string();
            rest.push('\0');
        }
        Self {
            rest: Cow::Owned(rest.into_bytes()),
            ..Self::of(MessageKind::SetPerms, path)
        }
    }

    /// Watches a path: an [`Event`](super::WatchEvent) comes at every change at or below it, and one at once.
    pub fn watch(path: &'a str, token: &str) -> Self {
        Self {
            path: Some(path),
            ..Self::words(MessageKind::Watch, &[token])
        }
    }

    /// Removes a watch.
    pub fn unwatch(path: &'a str, token: &str) -> Self {
        Self {
            path: Some(path),
            ..Self::words(MessageKind::Unwatch, &[token])
        }
    }

    /// Introduces a domain to xenstored, with its xenstore page and its event channel.
    pub fn introduce(domid: u16, gfn: u64, port: u32) -> Self {
        let [domid, gfn, port] = [domid.to_string(), gfn.to_string(), port.to_string()];
        Self::words(MessageKind::Introduce, &[&domid, &gfn, &port])
    }

    /// Releases a domain.
    pub fn release(domid: u16) -> Self {
        Self::words(MessageKind::Release, &[&domid.to_string()])
    }

    /// Tells that a domain that had shut down goes on, so that its next end is reported again.
    pub fn resume(domid: u16) -> Self {
        Self::words(MessageKind::Resume, &[&domid.to_string()])
    }

    /// Whether a domain was introduced: `T` or `F`.
    pub fn is_domain_introduced(domid: u16) -> Self {
        Self::words(MessageKind::IsDomainIntroduced, &[&domid.to_string()])
    }

    /// The path of a domain's home.
    pub fn get_domain_path(domid: u16) -> Self {
        Self::words(MessageKind::GetDomainPath, &[&domid.to_string()])
    }

    /// Opens a transaction; [`Store::transaction`](super::Store::transaction) takes the answer.
    pub fn transaction_start() -> Self {
        Self::words(MessageKind::TransactionStart, &[""])
    }

    /// Ends a transaction. The answer is EAGAIN if it conflicts and cannot be committed.
    pub fn transaction_end(transaction: TransactionId, commit: bool) -> Self {
        let word = if commit { "T" } else { "F" };
        Self::words(MessageKind::TransactionEnd, &[word]).within(transaction)
    }

    /// A control command of the daemon, as `xenstore-control` gives it.
    pub fn control(words: &[&str]) -> Self {
        Self::words(MessageKind::Control, words)
    }

    /// The same request, within a transaction.
    pub fn within(self, transaction: TransactionId) -> Self {
        Self {
            transaction: transaction.0,
            ..self
        }
    }

    /// Request and path, for a message.
    pub(super) fn what(&self) -> String {
        let kind = match self.kind {
            MessageKind::Control => "a command",
            MessageKind::Directory | MessageKind::DirectoryPart => "to list",
            MessageKind::Read => "to read",
            MessageKind::GetPerms => "the permissions of",
            MessageKind::Watch => "to watch",
            MessageKind::Unwatch => "to unwatch",
            MessageKind::TransactionStart => "a transaction",
            MessageKind::TransactionEnd => "a transaction's end",
            MessageKind::Introduce => "to introduce domain",
            MessageKind::Release => "to release domain",
            MessageKind::GetDomainPath => "the home of domain",
            MessageKind::Write => "to write",
            MessageKind::Mkdir => "to make",
            MessageKind::Rm => "to remove",
            MessageKind::SetPerms => "to set the permissions of",
            MessageKind::IsDomainIntroduced => "whether there is domain",
            MessageKind::Resume => "to resume domain",
            MessageKind::SetTarget => "to set the target of domain",
            MessageKind::ResetWatches => "to take back all watches",
        };
        match (self.path, self.kind) {
            (Some(path), _) => format!("{kind} {}", shown(path)),
            (None, MessageKind::TransactionStart | MessageKind::TransactionEnd) => kind.to_owned(),
            (None, _) => {
                let first = self
                    .rest
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default();
                format!("{kind} {}", shown(&String::from_utf8_lossy(first)))
            }
        }
    }

    /// The payload, checked.
    pub(super) fn payload(&self) -> Result<Vec<u8>, Error> {
        if self.split {
            return Err(Error::Request {
                what: self.what(),
                why: "one of its words has a NUL",
            });
        }
        let mut payload = Vec::with_capacity(self.path.map_or(0, str::len) + 1 + self.rest.len());
        if let Some(path) = self.path {
            path::check(path).map_err(|why| Error::Path {
                path: shown(path),
                why,
            })?;
            payload.extend_from_slice(path.as_bytes());
            payload.push(0);
        }
        payload.extend_from_slice(&self.rest);
        if payload.len() > PAYLOAD_MAX {
            return Err(Error::Request {
                what: self.what(),
                why: "it is longer than 4096 bytes",
            });
        }
        Ok(payload)
    }
}

/// The beginning of a path.
fn shown(path: &str) -> String {
    let mut end = path.len().min(SHOWN);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    match path.get(..end) {
        Some(all) if all.len() == path.len() => path.to_owned(),
        start => format!("{}...", start.unwrap_or_default()),
    }
}
