//! The printing of errors.

use std::error::Error;

/// An error and its causes in one line, without repetitions: many errors contain their cause in their text and return
/// it as well.
#[must_use]
pub fn message(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::io;

    use super::*;

    #[derive(Debug)]
    struct Says(&'static str, io::Error);

    impl fmt::Display for Says {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Says {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        for text in ["cannot read it: gone", "the file: gone; look for it"] {
            assert_eq!(message(&Says(text, io::Error::other("gone"))), text);
        }
        let silent = Says("cannot read it", io::Error::other("gone"));
        assert_eq!(message(&silent), "cannot read it: gone");
    }
}
