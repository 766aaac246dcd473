//! The records of the format. Numbers have the byte order of the machine.

use std::fmt;

use mayfly_xenstore::{Access, Perm};

const IDENT: &[u8; 8] = b"xenstore";
/// The version that is written. Version 2 (Xen 4.22) has more records and fields, which are skipped when they are read.
const VERSION: u32 = 1;
const NEWEST: u32 = 2;
/// The flag for numbers in big-endian order.
const FLAGS: u32 = if cfg!(target_endian = "big") { 1 } else { 0 };
const ALIGNMENT: usize = 8;

/// The type of a record.
const END: u32 = 0;
const GLOBAL: u32 = 1;
const CONNECTION: u32 = 2;
const WATCH: u32 = 3;
const NODE: u32 = 5;
const WATCH_EXTENDED: u32 = 8;

/// `conn-type`.
const RING: u16 = 0;
const SOCKET: u16 = 1;
/// `DOMID_INVALID`: a domain without a target.
const NO_TARGET: u16 = 0x7ff4;
/// `XS_STATE_NODE_PERM_IGNORE`: the entry is about a domain that is gone.
const STALE: u8 = 1;

/// The reason for which a state cannot be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFault {
    /// It does not begin like a state.
    NotState,
    /// It has a version that is not known, or numbers in the other byte order.
    Version,
    /// It ends within a record.
    Cut,
    /// The text names what is wrong in a record.
    Bad(&'static str),
    /// The text names what does not fit into a record.
    TooLong(&'static str),
}

impl fmt::Display for StateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotState => f.write_str("this is not the state of a xenstored"),
            Self::Version => f.write_str("its version or byte order is not known"),
            Self::Cut => f.write_str("it ends within a record"),
            Self::Bad(what) => write!(f, "wrong {what}"),
            Self::TooLong(what) => write!(f, "{what} is longer than a record can say"),
        }
    }
}

impl std::error::Error for StateFault {}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A domain's ring: the domain, the domain whose rights it has as well, and the local port (0 without one).
    Ring {
        domid: u16,
        target: Option<u16>,
        port: u32,
    },
    /// A file descriptor.
    Socket(i32),
}

/// A connection, with the bytes that were received and not processed, and those that are to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection<'a> {
    pub(super) number: u32,
    pub(super) peer: Peer,
    pub(super) input: &'a [u8],
    /// The rest of a message that has been sent in part, at the beginning of `output`.
    pub(super) begun: usize,
    pub(super) output: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Watch<'a> {
    pub(super) connection: u32,
    /// The path as the client gave it, relative or not.
    pub(super) path: &'a [u8],
    pub(super) token: &'a [u8],
}

/// A node. The permissions of `@introduceDomain` and `@releaseDomain` are nodes as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) path: &'a [u8],
    pub(super) value: &'a [u8],
    /// The permissions, each with whether it is about a domain that is gone.
    pub(super) perms: Vec<(Perm, bool)>,
}

/// A parsed state.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SavedState<'a> {
    pub(super) listener: i32,
    pub(super) events: i32,
    pub(super) connections: Vec<Connection<'a>>,
    pub(super) watches: Vec<Watch<'a>>,
    /// A node comes after its parent.
    pub(super) nodes: Vec<Node<'a>>,
}

impl<'a> SavedState<'a> {
    /// Parses a state. Unknown records are skipped, and so are transactions: they ended with the predecessor.
    ///
    /// # Errors
    /// See [`StateFault`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StateFault> {
        let mut input = Input(bytes);
        if input.bytes(IDENT.len()) != Ok(IDENT) {
            return Err(StateFault::NotState);
        }
        // Only the version is always in big-endian order.
        let version = u32::from_be_bytes(input.array().map_err(|_| StateFault::NotState)?);
        if !(1..=NEWEST).contains(&version) || input.word() != Ok(FLAGS) {
            return Err(StateFault::Version);
        }
        let mut state = Self {
            listener: -1,
            events: -1,
            ..Self::default()
        };
        loop {
            let kind = input.word()?;
            let length = size(input.word()?);
            let body = Input(input.bytes(length)?);
            // The C xenstored counts the padding in the length; the document does not.
            let padding = length.next_multiple_of(ALIGNMENT) - length;
            input.bytes(padding.min(input.0.len()))?;
            match kind {
                END => return Ok(state),
                GLOBAL => state.global(body)?,
                CONNECTION => state.connections.push(connection(body)?),
                WATCH => state.watches.push(watch(body, false)?),
                WATCH_EXTENDED => state.watches.push(watch(body, true)?),
                NODE => state.nodes.extend(node(body)?),
                _ => {}
            }
        }
    }

    fn global(&mut self, mut body: Input<'_>) -> Result<(), StateFault> {
        self.listener = body.number()?;
        self.events = body.number()?;
        Ok(())
    }

    /// Returns all file descriptors that the state names: that of the listening socket, that of the event channels, and
    /// those of the clients.
    #[must_use]
    pub fn descriptors(&self) -> (i32, i32, Vec<i32>) {
        let sockets = self.connections.iter().filter_map(|it| match it.peer {
            Peer::Socket(descriptor) => Some(descriptor),
            Peer::Ring { .. } => None,
        });
        (self.listener, self.events, sockets.collect())
    }

    /// Returns the bytes of the state.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, StateFault> {
        let mut out = IDENT.to_vec();
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&FLAGS.to_ne_bytes());
        let global = [self.listener, self.events].map(i32::to_ne_bytes);
        put(&mut out, GLOBAL, &[&global.concat()])?;
        for connection in &self.connections {
            put_connection(&mut out, connection)?;
            // The C xenstored finds a watch's connection among those that it has read.
            let watches = self.watches.iter();
            for watch in watches.filter(|watch| watch.connection == connection.number) {
                let lengths = [
                    short(watch.path.len() + 1, "a watched path")?,
                    short(watch.token.len() + 1, "a token")?,
                ];
                let lengths = lengths.map(u16::to_ne_bytes).concat();
                let number = watch.connection.to_ne_bytes();
                let body = [&number, &*lengths, watch.path, &[0], watch.token, &[0]];
                put(&mut out, WATCH, &body)?;
            }
        }
        for node in &self.nodes {
            put_node(&mut out, node)?;
        }
        put(&mut out, END, &[])?;
        Ok(out)
    }
}

/// Reads numbers and bytes from the front of a slice.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], StateFault> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(StateFault::Cut)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateFault> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| StateFault::Cut)
    }

    fn word(&mut self) -> Result<u32, StateFault> {
        self.array().map(u32::from_ne_bytes)
    }

    fn number(&mut self) -> Result<i32, StateFault> {
        self.array().map(i32::from_ne_bytes)
    }

    fn short(&mut self) -> Result<u16, StateFault> {
        self.array().map(u16::from_ne_bytes)
    }

    /// Reads a string of `length` bytes with its NUL, and returns it without the NUL.
    fn string(&mut self, length: u16, what: &'static str) -> Result<&'a [u8], StateFault> {
        match self.bytes(length.into())?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(text),
            _ => Err(StateFault::Bad(what)),
        }
    }
}

fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn connection(mut body: Input<'_>) -> Result<Connection<'_>, StateFault> {
    let number = body.word()?;
    let kind = body.short()?;
    // Flags of fields behind the data, which version 2 has.
    body.short()?;
    let mut spec = Input(body.bytes(8)?);
    let peer = match kind {
        RING => {
            let (domid, target, port) = (spec.short()?, spec.short()?, spec.word()?);
            Peer::Ring {
                domid,
                target: (target != NO_TARGET).then_some(target),
                port,
            }
        }
        SOCKET => Peer::Socket(spec.number()?),
        _ => return Err(StateFault::Bad("type of a connection")),
    };
    let (input, begun, output) = (body.short()?, body.short()?, body.word()?);
    let input = body.bytes(input.into())?;
    let output = body.bytes(size(output))?;
    let begun = usize::from(begun);
    if begun > output.len() {
        return Err(StateFault::Bad("length of a message that is sent in part"));
    }
    Ok(Connection {
        number,
        peer,
        input,
        begun,
        output,
    })
}

fn watch(mut body: Input<'_>, is_extended: bool) -> Result<Watch<'_>, StateFault> {
    let connection = body.word()?;
    let (path, token) = (body.short()?, body.short()?);
    if is_extended {
        // The depth, which is ignored, and padding.
        body.word()?;
    }
    Ok(Watch {
        connection,
        path: body.string(path, "path of a watch")?,
        token: body.string(token, "token of a watch")?,
    })
}

/// Returns `None` for a node of a transaction.
fn node(mut body: Input<'_>) -> Result<Option<Node<'_>>, StateFault> {
    let [connection, transaction] = [body.word()?, body.word()?];
    let (path, value) = (body.short()?, body.short()?);
    let (_, count) = (body.short()?, body.short()?);
    if connection != 0 || transaction != 0 {
        return Ok(None);
    }
    let mut perms = Vec::with_capacity(count.into());
    for _ in 0..count {
        let [letter, flags] = body.array()?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return Err(StateFault::Bad("permission of a node")),
        };
        let domid = body.short()?;
        perms.push((Perm { access, domid }, flags & STALE != 0));
    }
    if perms.is_empty() {
        return Err(StateFault::Bad("node without an owner"));
    }
    Ok(Some(Node {
        path: body.string(path, "path of a node")?,
        value: body.bytes(value.into())?,
        perms,
    }))
}

fn short(length: usize, what: &'static str) -> Result<u16, StateFault> {
    u16::try_from(length).map_err(|_| StateFault::TooLong(what))
}

/// Adds a record with the parts of its body, and its padding.
fn put(out: &mut Vec<u8>, kind: u32, body: &[&[u8]]) -> Result<(), StateFault> {
    let length: usize = body.iter().map(|part| part.len()).sum();
    let padded = length.next_multiple_of(ALIGNMENT);
    let said = u32::try_from(padded).map_err(|_| StateFault::TooLong("a record"))?;
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&said.to_ne_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
    out.resize(out.len() + padded - length, 0);
    Ok(())
}

fn put_connection(out: &mut Vec<u8>, connection: &Connection<'_>) -> Result<(), StateFault> {
    let (kind, spec) = match connection.peer {
        Peer::Ring {
            domid,
            target,
            port,
        } => {
            let domains = [domid, target.unwrap_or(NO_TARGET)].map(u16::to_ne_bytes);
            (
                RING,
                [domains.concat(), port.to_ne_bytes().to_vec()].concat(),
            )
        }
        Peer::Socket(descriptor) => (SOCKET, [descriptor, 0].map(i32::to_ne_bytes).concat()),
    };
    let output = u32::try_from(connection.output.len());
    let output = output.map_err(|_| StateFault::TooLong("a connection's output"))?;
    let shorts = [
        short(connection.input.len(), "a connection's input")?,
        short(connection.begun, "a message that is sent in part")?,
    ];
    let body = [
        &connection.number.to_ne_bytes(),
        &*[kind, 0].map(u16::to_ne_bytes).concat(),
        &spec,
        &shorts.map(u16::to_ne_bytes).concat(),
        &output.to_ne_bytes(),
        connection.input,
        connection.output,
    ];
    put(out, CONNECTION, &body)
}

fn put_node(out: &mut Vec<u8>, node: &Node<'_>) -> Result<(), StateFault> {
    let shorts = [
        short(node.path.len() + 1, "a path")?,
        short(node.value.len(), "a value")?,
        0,
        short(node.perms.len(), "a list of permissions")?,
    ];
    let mut perms = Vec::new();
    for (Perm { access, domid }, is_stale) in &node.perms {
        let letter = match access {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        };
        perms.extend_from_slice(&[letter, if *is_stale { STALE } else { 0 }]);
        perms.extend_from_slice(&domid.to_ne_bytes());
    }
    let shorts = shorts.map(u16::to_ne_bytes).concat();
    put(
        out,
        NODE,
        &[&[0; 8], &shorts, &perms, node.path, &[0], node.value],
    )
}
