//! The last words of a guest: one line at `data/mayfly/error` below its domain path, written before it shuts down.

use mayfly_xenstore::Store;

use crate::paths;

/// The number of characters of a guest's line that are shown.
const SHOWN: usize = 500;

/// The last words of a guest, for a terminal; `None` if it has written none.
///
/// # Errors
/// xenstored's.
pub fn last(store: &mut dyn Store, domid: u16) -> Result<Option<String>, mayfly_xenstore::Error> {
    Ok(store.find(&paths::error(domid))?.as_deref().and_then(shown))
}

/// The first line of a guest's text, cut to `SHOWN` characters and to printable ASCII: a guest may write any bytes.
#[must_use]
pub fn shown(text: &str) -> Option<String> {
    let line = text.trim().lines().next()?;
    let mut characters = line.chars();
    let mut shown = String::new();
    for c in characters.by_ref().take(SHOWN) {
        match c {
            ' '..='~' => shown.push(c),
            c => shown.extend(c.escape_default()),
        }
    }
    if characters.next().is_some() {
        shown += "...";
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_harmless() {
        assert_eq!(shown(""), None);
        assert_eq!(shown(" \n"), None);
        let plain = "ip=x is no address: \"x\"";
        assert_eq!(shown(plain).as_deref(), Some(plain));
        assert_eq!(shown("one\ntwo").as_deref(), Some("one"));
        assert_eq!(
            shown("\u{1b}[2J\t\u{202e}\u{e9}").as_deref(),
            Some("\\u{1b}[2J\\t\\u{202e}\\u{e9}")
        );
        let long = shown(&"x".repeat(4000)).unwrap();
        assert_eq!(long.len(), SHOWN + 3);
        assert!(shown(&"\u{1b}".repeat(4000)).unwrap().len() <= 6 * SHOWN + 3);
    }
}
