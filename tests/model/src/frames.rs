//! Frames for tests.

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or_else(|_| panic!("{bytes} bytes are no IPv4 packet"))
}

/// The one's complement sum of 16-bit words, folded.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = sum.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// A TCP packet over IPv4 with `payload` bytes of payload and a blank checksum.
///
/// # Panics
/// If it is longer than an IPv4 packet can be.
#[must_use]
pub fn tcp(seq: u32, payload: usize) -> Vec<u8> {
    tcp_between([2; 12], [[10, 0, 2, 80], [10, 0, 2, 2]], seq, payload)
}

/// The same between these MAC addresses, the receiver's first, and these IPv4 addresses, the sender's first.
///
/// # Panics
/// If it is longer than an IPv4 packet can be.
#[must_use]
pub fn tcp_between(macs: [u8; 12], addresses: [[u8; 4]; 2], seq: u32, payload: usize) -> Vec<u8> {
    let mut frame = macs.to_vec();
    frame.extend([8, 0]);
    let total = length(40 + payload).to_be_bytes();
    let mut ip = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend(addresses.as_flattened());
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(&ip);
    let message = length(20 + payload).to_be_bytes();
    let pseudo = sum(&[&ip[12..20], &[0, 6], &message].concat());
    let mut segment = vec![0, 80, 0x30, 0x39];
    segment.extend(seq.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x50, 0x18, 0x10, 0]);
    segment.extend(pseudo.to_be_bytes());
    segment.extend([0, 0]);
    frame.extend(segment);
    frame.extend((0..payload).map(|at| ((seq as usize + at) % 251).to_le_bytes()[0]));
    frame
}
