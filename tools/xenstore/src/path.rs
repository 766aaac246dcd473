//! Validity of paths (`docs/misc/xenstore.txt`, "Xenstore keys"). A path is checked before it is sent, so that the
//! error says what is wrong, and so that a name from a configuration file cannot reach another node than intended.

/// `XENSTORE_ABS_PATH_MAX` and `XENSTORE_REL_PATH_MAX` of `public/io/xs_wire.h`.
const ABSOLUTE_MAX: usize = 3072;
const RELATIVE_MAX: usize = 2048;

/// The error in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each has its message")]
pub enum PathError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than xenstore allows")]
    TooLong,
    #[error("it has a character other than letters, digits and -/_@")]
    Character,
    #[error("it has an empty component")]
    EmptyComponent,
}

/// Checks a path, absolute or relative to the caller's home.
///
/// # Errors
/// The reason for which xenstored would refuse it.
pub fn check(path: &str) -> Result<(), PathError> {
    let bound = match path.as_bytes().first() {
        None => return Err(PathError::Empty),
        Some(b'/' | b'@') => ABSOLUTE_MAX,
        Some(_) => RELATIVE_MAX,
    };
    if path.len() > bound {
        return Err(PathError::TooLong);
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte);
    if !path.bytes().all(legal) {
        return Err(PathError::Character);
    }
    if path != "/" && (path.ends_with('/') || path.contains("//")) {
        return Err(PathError::EmptyComponent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_every_kind() {
        for good in [
            "/",
            "/local/domain/0",
            "device/vif/0",
            "@releaseDomain",
            "/a-b_c@d",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", PathError::Empty),
            ("/a/", PathError::EmptyComponent),
            ("/a//b", PathError::EmptyComponent),
            ("//", PathError::EmptyComponent),
            ("/a\0b", PathError::Character),
            ("/a b", PathError::Character),
            ("/a.b", PathError::Character),
            ("/ä", PathError::Character),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn the_longest() {
        let absolute = |length| "/".to_owned() + &"a".repeat(length - 1);
        assert_eq!(check(&absolute(ABSOLUTE_MAX)), Ok(()));
        assert_eq!(check(&absolute(ABSOLUTE_MAX + 1)), Err(PathError::TooLong));
        assert_eq!(check(&"a".repeat(RELATIVE_MAX)), Ok(()));
        assert_eq!(
            check(&"a".repeat(RELATIVE_MAX + 1)),
            Err(PathError::TooLong)
        );
    }
}
