//! Character classes by table, and the search for the end of a line.

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) const TOKEN: u8 = 1;
/// `unreserved` and `sub-delims` of RFC 3986: a registered name without percent-encoding.
pub(super) const NAME: u8 = 2;
/// Bytes that a request target cannot contain (white space and control characters), or that make it other than a plain
/// path.
pub(super) const SPECIAL: u8 = 4;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    mark(&mut classes, b"!#$%&'*+-.^_`|~", TOKEN);
    mark(&mut classes, b"-._~!$&'()*+,;=", NAME);
    mark(&mut classes, b"?%#/\x7f", SPECIAL);
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_alphanumeric() {
            classes[byte as usize] |= TOKEN | NAME;
        } else if byte <= b' ' {
            classes[byte as usize] |= SPECIAL;
        }
        byte += 1;
    }
    classes
}

const fn mark(classes: &mut [u8; 256], bytes: &[u8], class: u8) {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] |= class;
        at += 1;
    }
}

/// Whether a byte belongs to a class.
pub(super) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// The index of the first LF, searched eight bytes at a time.
pub(super) fn line_feed(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    const LINE_FEEDS: u64 = ONES * b'\n' as u64;
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        // A zero byte causes a borrow, so the bytes above it may seem to be zero as well.
        let differences = u64::from_le_bytes(*word) ^ LINE_FEEDS;
        let zeros = differences.wrapping_sub(ONES) & !differences & HIGH;
        if zeros != 0 {
            return Some(index * 8 + (zeros.trailing_zeros() / 8) as usize);
        }
    }
    let at = rest.iter().position(|&byte| byte == b'\n')?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_feeds() {
        let mut bytes = [0x0b_u8; 40];
        assert_eq!(line_feed(&bytes), None);
        for start in 0..8 {
            for at in start..bytes.len() {
                bytes[at] = b'\n';
                // The bytes after the LF make no difference.
                for behind in [0, 9, 10, 11, 0x8a, 0xff] {
                    bytes[at + 1..].fill(behind);
                    assert_eq!(line_feed(&bytes[start..]), Some(at - start));
                }
                bytes[at..].fill(0x0b);
            }
        }
    }

    #[test]
    fn classes() {
        for byte in 0..=255_u8 {
            let letter = byte.is_ascii_alphanumeric();
            let token = letter || b"!#$%&'*+-.^_`|~".contains(&byte);
            let name = letter || b"-._~!$&'()*+,;=".contains(&byte);
            let special = byte <= b' ' || b"?%#/\x7f".contains(&byte);
            assert_eq!(is(byte, TOKEN), token);
            assert_eq!(is(byte, NAME), name);
            assert_eq!(is(byte, SPECIAL), special);
        }
    }
}
