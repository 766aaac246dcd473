//! Secrets: one root key, and from it a key for each purpose.
//!
//! The root key is the exclusive or of 32 random bytes of the CPU and 32 random bytes of the toolstack, so it is as
//! good as the better of the two. Values that differ between guests and between boots (times, the MAC address) are
//! mixed in by a keyed hash. If neither source gives random bytes, these values are all that the key is made of.
//!
//! The key of a purpose is a keyed hash of the purpose's label. The hash is SipHash-2-4 (Aumasson and Bernstein, 2012),
//! a pseudorandom function; one half of the root key is its key, the other half is part of its input. An attacker who
//! learns the key of one purpose, or anything made with it, learns nothing about the root key or another purpose's key.
//! SipHash is linked anyway, for DNS cookies (RFC 9018), and suffices here: 128 bits of key and short inputs. BLAKE2s,
//! BLAKE3 or ChaCha20 would do the same with kibibytes more of image.

use core::hash::Hasher as _;

use mayfly_handoff::network::Preconnected;
use siphasher::sip::SipHasher24;

/// The size in bytes of the root key, and of the random bytes of each source.
pub const ROOT: usize = 32;

/// The purpose of a secret. The key of one purpose tells nothing about the key of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The DNS server: its cookies and the table of its rate limit.
    Dns,
    /// The hash of the table of connections.
    Connections,
    /// Initial sequence numbers (RFC 6528).
    Sequence,
    /// SYN cookies (RFC 4987).
    SynCookie,
    /// smoltcp's random numbers, except for sequence numbers: identifiers and delays.
    Smoltcp,
}

impl Purpose {
    /// The label, seven bytes long, so that it forms one block of SipHash together with the number of the key's half.
    const fn label(self) -> &'static [u8; 7] {
        match self {
            Self::Dns => b"dns    ",
            Self::Connections => b"connect",
            Self::Sequence => b"sequenc",
            Self::SynCookie => b"cookies",
            Self::Smoltcp => b"smoltcp",
        }
    }
}

/// The machine's own sources of the root key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entropy {
    /// Random bytes of the CPU.
    pub cpu: Option<[u8; ROOT]>,
    /// Times that differ from boot to boot: the TSC and Xen's clocks.
    pub times: [u64; 3],
}

/// All sources of the root key.
#[derive(Clone, Copy, Default)]
pub struct Sources<'a> {
    /// Random bytes of the CPU.
    pub cpu: Option<[u8; ROOT]>,
    /// Random bytes of the toolstack.
    pub toolstack: Option<[u8; ROOT]>,
    /// Values that are no secret but differ between guests and boots: times, addresses.
    pub differing: &'a [[u8; 8]],
}

impl Entropy {
    /// The root key of a guest, with the random bytes in `network` if the toolstack has connected it; and whether any
    /// source of the key is random.
    #[must_use]
    pub fn root(&self, network: Option<&Preconnected>) -> (Root, bool) {
        let [a, b, c] = self.times.map(u64::to_le_bytes);
        let [d, e, f, g, h, i] = network.map_or([0; 6], |network| network.mac);
        let sources = Sources {
            cpu: self.cpu,
            toolstack: network
                .and_then(|network| network.random)
                .map(|random| random.0),
            differing: &[a, b, c, [d, e, f, g, h, i, 0, 0]],
        };
        (Root::new(&sources), sources.is_random())
    }
}

impl Sources<'_> {
    /// Whether a source is random, so that nobody can guess the root key.
    #[must_use]
    pub fn is_random(&self) -> bool {
        self.cpu.is_some() || self.toolstack.is_some()
    }
}

/// The root key. It never leaves this module; only keys made of it do.
#[derive(Clone)]
pub struct Root {
    key: [u8; 16],
    message: [u8; 16],
}

impl Root {
    /// The root key from these sources.
    #[must_use]
    pub fn new(sources: &Sources<'_>) -> Self {
        let mut root = [0; ROOT];
        for source in [sources.cpu, sources.toolstack].into_iter().flatten() {
            for (to, from) in root.iter_mut().zip(source) {
                *to ^= from;
            }
        }
        let (mut key, mut message) = ([0; 16], [0; 16]);
        let (first, second) = root.split_at(16);
        key.copy_from_slice(first);
        message.copy_from_slice(second);
        // 64 bits hold more than the uncertainty of times and addresses.
        let hash = keyed_hash(&message, &[sources.differing.as_flattened()]);
        for (to, from) in key.iter_mut().zip(hash.to_le_bytes()) {
            *to ^= from;
        }
        Self { key, message }
    }

    /// The key of a purpose.
    #[must_use]
    pub fn key(&self, purpose: Purpose) -> [u8; 16] {
        let mut key = [0; 16];
        for (half, number) in key.chunks_exact_mut(8).zip(self.numbers(purpose)) {
            half.copy_from_slice(&number.to_le_bytes());
        }
        key
    }

    /// The key of a purpose as two numbers.
    #[must_use]
    pub fn numbers(&self, purpose: Purpose) -> [u64; 2] {
        [self.half(0, purpose), self.half(1, purpose)]
    }

    /// Half of the key of a purpose that needs no more.
    #[must_use]
    pub fn number(&self, purpose: Purpose) -> u64 {
        self.half(0, purpose)
    }

    fn half(&self, number: u8, purpose: Purpose) -> u64 {
        let mut input = [number; 24];
        let (label, message) = input[1..].split_at_mut(7);
        label.copy_from_slice(purpose.label());
        message.copy_from_slice(&self.message);
        keyed_hash(&self.key, &[&input])
    }
}

/// SipHash-2-4 under a key, over all pieces in order.
#[inline(never)]
#[must_use]
pub fn keyed_hash(key: &[u8; 16], pieces: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    for piece in pieces {
        hasher.write(piece);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    const PURPOSES: [Purpose; 5] = [
        Purpose::Dns,
        Purpose::Connections,
        Purpose::Sequence,
        Purpose::SynCookie,
        Purpose::Smoltcp,
    ];

    #[test]
    fn each_source_and_each_purpose_makes_another_key() {
        let mut keys = BTreeSet::new();
        let mut roots = 0;
        for cpu in [None, Some([1; ROOT]), Some([2; ROOT])] {
            for toolstack in [None, Some([4; ROOT]), Some([8; ROOT])] {
                for differing in [&[][..], &[[7; 8]], &[[7; 8], [8; 8]]] {
                    let sources = Sources {
                        cpu,
                        toolstack,
                        differing,
                    };
                    assert_eq!(sources.is_random(), cpu.or(toolstack).is_some());
                    let root = Root::new(&sources);
                    keys.extend(PURPOSES.map(|purpose| root.key(purpose)));
                    roots += 1;
                }
            }
        }
        assert_eq!(keys.len(), roots * PURPOSES.len());
    }

    #[test]
    fn each_bit_of_each_source_changes_about_half_of_a_key() {
        let key = |sources: Sources<'_>| u128::from_le_bytes(Root::new(&sources).key(Purpose::Dns));
        let random = core::array::from_fn(|i| u8::try_from(i * 7 + 1).unwrap());
        let sources = Sources {
            cpu: Some(random),
            toolstack: Some([0x5a; ROOT]),
            differing: &[[1; 8], [2; 8]],
        };
        let before = key(sources);
        for bit in 0..ROOT * 8 {
            let mut changed = random;
            changed[bit / 8] ^= 1 << (bit % 8);
            for sources in [
                Sources {
                    cpu: Some(changed),
                    ..sources
                },
                Sources {
                    toolstack: Some(changed),
                    ..sources
                },
            ] {
                let bits = (key(sources) ^ before).count_ones();
                assert!((30..98).contains(&bits), "bit {bit}: {bits}");
            }
        }
        for bit in 0..64 {
            let differing = &[[1; 8], (2_u64 ^ 1 << bit).to_le_bytes()];
            let bits = (key(Sources {
                differing,
                ..sources
            }) ^ before)
                .count_ones();
            assert!((30..98).contains(&bits), "bit {bit}: {bits}");
        }
    }
}
