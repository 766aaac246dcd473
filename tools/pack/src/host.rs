//! Names of hosts.

/// A host name with A-labels in place of labels that have letters beyond ASCII: `xn--bcher-kva.example` for
/// `bücher.example`.
///
/// # Errors
///
/// The reason for which it is not a valid name.
pub(crate) fn ascii(name: &str) -> Result<String, String> {
    if name.is_ascii() {
        return Ok(name.to_owned());
    }
    idna::domain_to_ascii_strict(name)
        .map_err(|_| format!("`{name}` is not a valid internationalized host name (RFC 5891)"))
}

/// Whether a name is a host name: at least two labels of letters, digits and hyphens, the last one not a number (RFC
/// 1123 section 2.1).
pub(crate) fn is_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let label = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    labels.len() >= 2
        && name.len() <= 253
        && labels.iter().all(label)
        && !labels
            .last()
            .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for name in [
            "example.test",
            "a.b",
            "www.example.test",
            "1.a",
            "xn--a.b-c",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "a",
            "",
            ".",
            "a.",
            ".a",
            ".well-known",
            "v1.2",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "10.0.0.1",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn letters_beyond_ascii() {
        let wanted = "xn--bcher-kva.example";
        assert_eq!(ascii("bücher.example").as_deref(), Ok(wanted));
        assert_eq!(ascii("Bücher.Example").as_deref(), Ok(wanted));
        assert_eq!(ascii("A.test").as_deref(), Ok("A.test"));
        assert!(ascii("ü b.example").is_err());
    }
}
