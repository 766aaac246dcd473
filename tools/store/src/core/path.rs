//! Paths, names and numbers in requests (Xen's `docs/misc/xenstore.txt`, "Xenstore keys").

use mayfly_xenstore::{ErrorCode, check_path};

/// The directory of the domains' homes.
const HOMES: &str = "/local/domain/";

/// Returns a domain's home, in which its relative paths begin.
pub(super) fn home(domid: u16) -> String {
    format!("{HOMES}{domid}")
}

/// Reads the only string of a payload: it ends in a NUL and has no other.
pub(super) fn one(payload: &[u8]) -> Result<&[u8], ErrorCode> {
    match payload.split_last() {
        Some((0, text)) if !text.contains(&0) => Ok(text),
        _ => Err(ErrorCode::EINVAL),
    }
}

/// Splits a payload into its first string and the bytes behind the NUL of that.
pub(super) fn first(payload: &[u8]) -> Result<(&[u8], &[u8]), ErrorCode> {
    let end = payload.iter().position(|byte| *byte == 0);
    let (text, rest) = payload.split_at(end.ok_or(ErrorCode::EINVAL)?);
    Ok((text, rest.get(1..).unwrap_or_default()))
}

/// Splits a payload into its strings, each of which ends in a NUL. Bytes behind the last NUL are ignored.
pub(super) fn strings(payload: &[u8]) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = payload.split(|byte| *byte == 0).collect();
    all.pop();
    all
}

/// Reads a number as C's `atoi` does, which both other daemons use: digits up to the first byte that is no digit.
pub(super) fn number(text: &[u8]) -> i64 {
    let (sign, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0_i64, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    sign * value
}

/// Reads the number of a domain.
pub(super) fn domid(text: &[u8]) -> Option<u16> {
    u16::try_from(number(text)).ok()
}

/// Returns the absolute path of a node.
///
/// # Errors
/// EINVAL if `text` is no valid path, or if the path is longer than `longest` bytes below its domain's home.
pub(super) fn resolve(text: &[u8], home: &str, longest: usize) -> Result<String, ErrorCode> {
    let text = std::str::from_utf8(text).map_err(|_| ErrorCode::EINVAL)?;
    let checked = check_path(text).map_err(|_| ErrorCode::EINVAL);
    let path = match text.as_bytes().first() {
        Some(b'/') => text.to_owned(),
        Some(b'@') | None => return Err(ErrorCode::EINVAL),
        Some(_) => format!("{home}/{text}"),
    };
    checked?;
    let own = match path
        .strip_prefix(HOMES)
        .and_then(|rest| rest.split_once('/'))
    {
        Some((number, own)) if number.bytes().all(|byte| byte.is_ascii_digit()) => own,
        _ => &path,
    };
    if own.len() > longest {
        return Err(ErrorCode::EINVAL);
    }
    Ok(path)
}

/// Returns the names in an absolute path. The root's path has none.
pub(super) fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_begin_at_home() {
        let resolve = |text: &str| resolve(text.as_bytes(), "/local/domain/7", 2048);
        assert_eq!(resolve("a/b").unwrap(), "/local/domain/7/a/b");
        assert_eq!(resolve("/a").unwrap(), "/a");
        for bad in ["", "/a/", "//", "/a//b", "@a", "/ä", "/a b", "a/"] {
            assert_eq!(resolve(bad), Err(ErrorCode::EINVAL), "{bad}");
        }
        let long = format!("/local/domain/7/{}", "a".repeat(2048));
        assert!(resolve(&long).is_ok());
        assert_eq!(resolve(&format!("{long}a")), Err(ErrorCode::EINVAL));
        assert_eq!(
            resolve(&format!("/{}", "a".repeat(2048))),
            Err(ErrorCode::EINVAL)
        );
    }

    #[test]
    fn numbers_are_read_as_atoi_reads_them() {
        assert_eq!([number(b"12x"), number(b"-3"), number(b"x")], [12, -3, 0]);
        assert_eq!(domid(b"99999999999999999999"), None);
        assert_eq!(domid(b"-1"), None);
    }
}
