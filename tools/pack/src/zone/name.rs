//! Domain names: from text and to text.

use std::fmt::Write as _;

use super::scan::{shown, unescape};

/// The greatest length in bytes of a name in wire form, and of a label (RFC 1035 section 2.3.4).
const NAME: usize = 255;
const LABEL: usize = 63;

/// Appends a name to `out` in wire form. A name without a dot at its end is below the origin.
///
/// # Errors
///
/// The reason for which it is not a name. `out` then has a part of it.
pub(crate) fn scan(text: &[u8], origin: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    match text {
        b"@" => {
            out.extend_from_slice(origin);
            return Ok(());
        }
        b"." => {
            out.push(0);
            return Ok(());
        }
        _ => {}
    }
    let bad = |what: &str| Err(format!("`{}` is not a domain name: {what}", shown(text)));
    let mut length_at = out.len();
    out.push(0);
    let mut absolute = false;
    let ended = unescape(text, |byte, escaped| {
        if absolute {
            // The last dot was not the end of the name.
            absolute = false;
            length_at = out.len();
            out.push(0);
        }
        if byte == b'.' && !escaped {
            let length = out.len() - length_at - 1;
            out[length_at] = match u8::try_from(length) {
                Ok(0) => return Err("a label is empty".to_owned()),
                Ok(length) if usize::from(length) <= LABEL => length,
                _ => return Err(format!("a label is longer than {LABEL} bytes")),
            };
            absolute = true;
        } else {
            out.push(byte);
        }
        if out.len() - start > NAME + LABEL {
            return Err(format!("it is longer than {NAME} bytes"));
        }
        Ok(())
    });
    if let Err(what) = ended {
        return bad(&what);
    }
    if absolute {
        out.push(0);
    } else {
        let length = out.len() - length_at - 1;
        out[length_at] = match u8::try_from(length) {
            Ok(0) => return bad("it is empty"),
            Ok(length) if usize::from(length) <= LABEL => length,
            _ => return bad(&format!("a label is longer than {LABEL} bytes")),
        };
        out.extend_from_slice(origin);
    }
    if out.len() - start > NAME {
        return bad(&format!("it is longer than {NAME} bytes"));
    }
    Ok(())
}

/// The length of the uncompressed name at the start of these bytes.
///
/// # Errors
///
/// There is no whole name.
pub(crate) fn extent(bytes: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    loop {
        match bytes.get(at) {
            Some(0) if at < NAME => return Ok(at + 1),
            Some(&length @ 1..64) => at += 1 + usize::from(length),
            _ => return Err("have no whole name where one is".to_owned()),
        }
    }
}

/// A name as bytes whose order is the canonical order of names (RFC 4034 section 6.1): labels from the top down in
/// lower case, each followed by a NUL. A name below another begins with the bytes of that one.
pub(crate) fn canonical_key(name: &[u8], out: &mut Vec<u8>) {
    let mut labels = [&name[..0]; 128];
    let mut count = 0;
    let mut rest = name;
    while let Some((&length, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(length.into()) else {
            break;
        };
        if length == 0 {
            break;
        }
        labels[count] = label;
        count += 1;
        rest = tail;
    }
    for label in labels[..count].iter().rev() {
        for byte in *label {
            match byte.to_ascii_lowercase() {
                byte @ (0 | 1) => out.extend([1, 1 + byte]),
                byte => out.push(byte),
            }
        }
        out.push(0);
    }
}

/// A name in wire form as a master file writes it.
pub(crate) fn presentation(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&length, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(length.into()) else {
            break;
        };
        if length == 0 {
            break;
        }
        for &byte in label {
            match byte {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                b'!'..=b'~' => text.push(char::from(byte)),
                _ => {
                    let _ = write!(text, "\\{byte:03}");
                }
            }
        }
        text.push('.');
        rest = tail;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_wire_and_back() {
        for (text, wanted) in [
            ("@", Ok("\\@.o.")),
            ("a", Ok("a.o.")),
            ("a.b.", Ok("a.b.")),
            (".", Ok(".")),
            ("a\\.b", Ok("a\\.b.o.")),
            ("a\\.", Ok("a\\..o.")),
            ("\\@", Ok("\\@.o.")),
            ("\\000\\065\\032", Ok("\\000A\\032.o.")),
            ("*", Ok("*.o.")),
            ("", Err("it is empty")),
            ("..", Err("a label is empty")),
            (".a", Err("a label is empty")),
            ("a..b", Err("a label is empty")),
            ("a\\", Err("escapes nothing")),
            ("a\\1", Err("three")),
        ] {
            let mut out = b"before".to_vec();
            let got = scan(text.as_bytes(), b"\x01o\0", &mut out).map(|()| presentation(&out[6..]));
            match wanted {
                // The origin itself.
                Ok(_) if text == "@" => assert_eq!(got.as_deref(), Ok("o.")),
                Ok(wanted) => assert_eq!(got.as_deref(), Ok(wanted), "{text}"),
                Err(wanted) => assert!(got.is_err_and(|what| what.contains(wanted)), "{text}"),
            }
        }
    }

    #[test]
    fn lengths() {
        let scan = |text: &str, origin: &[u8]| {
            let mut out = Vec::new();
            scan(text.as_bytes(), origin, &mut out).map(|()| out.len())
        };
        assert_eq!(scan(&"x".repeat(63), b"\0"), Ok(65));
        assert!(scan(&"x".repeat(64), b"\0").is_err());
        assert!(scan(&format!("{}.", "x".repeat(64)), b"\0").is_err());
        let three = format!("{0}.{0}.{0}", "x".repeat(63));
        assert_eq!(
            scan(&format!("{three}.{}.", "x".repeat(61)), b"\0"),
            Ok(255)
        );
        assert!(scan(&format!("{three}.{}.", "x".repeat(62)), b"\0").is_err());
        assert!(scan(&format!("{three}.{}", "x".repeat(61)), b"\x01o\0").is_err());
        assert!(scan(&"x.".repeat(100_000), b"\0").is_err());
    }

    #[test]
    fn extents() {
        assert_eq!(extent(b"\x01a\0more"), Ok(3));
        assert_eq!(extent(b"\0"), Ok(1));
        for wrong in [&b""[..], b"\x01a", b"\x05a\0", b"\xc0\x0c", b"\x40a"] {
            assert!(extent(wrong).is_err());
        }
        let long = [&b"\x01a".repeat(127)[..], b"\0"].concat();
        assert_eq!(extent(&long), Ok(255));
        assert!(extent(&[&b"\x01a"[..], &long].concat()).is_err());
    }
}
