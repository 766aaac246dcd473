//! Byte ranges (RFC 9110 section 14).

/// The greatest number of parts in one response. A request for more gets the whole, as section 14.2 allows.
pub(super) const PARTS_MAX: usize = 16;
/// The greatest number of range specifiers in a request that gets a partial answer.
const SPECIFIERS_MAX: usize = 64;

/// A part of a representation: the offset of its first byte, and the offset after its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) end: usize,
}

/// Parts that do not overlap, in the requested order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    spans: [Span; PARTS_MAX],
    count: usize,
}

impl Parts {
    pub(super) fn spans(&self) -> &[Span] {
        self.spans.get(..self.count).unwrap_or_default()
    }

    /// Adds a span, merged into the first span that it touches. `None` when there are too many.
    fn add(&mut self, mut span: Span) -> Option<()> {
        let mut place = None;
        let mut at = 0;
        while let Some(&other) = self.spans().get(at) {
            if span.first > other.end || other.first > span.end {
                at += 1;
                continue;
            }
            span.first = span.first.min(other.first);
            span.end = span.end.max(other.end);
            self.spans.get_mut(at..self.count)?.rotate_left(1);
            self.count -= 1;
            // The wider span may touch one that the narrower span did not.
            place = Some(place.map_or(at, |place: usize| place.min(at)));
            at = 0;
        }
        *self.spans.get_mut(self.count)? = span;
        self.count += 1;
        let place = place.unwrap_or(self.count - 1);
        self.spans.get_mut(place..self.count)?.rotate_right(1);
        Some(())
    }
}

/// Evaluates a `Range` field for a representation of `length` bytes: the parts that it selects, empty if it cannot be
/// satisfied; `None` if it is to be ignored.
///
/// Overlapping and adjacent ranges become one, so that no response is longer than the
/// representation and its framing.
pub(super) fn select(value: &[u8], length: usize) -> Option<Parts> {
    let (unit, set) = value.split_at_checked("bytes=".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let (mut parts, mut count) = (Parts::default(), 0);
    for specifier in super::request::members(set) {
        count += 1;
        if count > SPECIFIERS_MAX {
            return None;
        }
        let dash = specifier.iter().position(|&byte| byte == b'-')?;
        let (first, last) = specifier.split_at_checked(dash)?;
        let last = last.get(1..)?;
        let span = match (first, last) {
            (b"", b"") => return None,
            (b"", suffix) => {
                let suffix = position(suffix)?;
                if suffix > 0 && length == 0 {
                    // The range is satisfiable (section 14.1.2), but there is no part to name.
                    return None;
                }
                Span {
                    first: length.saturating_sub(suffix),
                    end: length,
                }
            }
            (first, b"") => Span {
                first: position(first)?,
                end: length,
            },
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                if last < first {
                    return None;
                }
                Span {
                    first,
                    end: length.min(last.saturating_add(1)),
                }
            }
        };
        if span.first < span.end {
            parts.add(span)?;
        }
    }
    (count > 0).then_some(parts)
}

/// A decimal number, digits only. A number larger than any file is capped.
fn position(digits: &[u8]) -> Option<usize> {
    let value = super::request::decimal(digits).ok()?;
    Some(usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The parts as `first-last`; `W` for the whole, `U` for an unsatisfiable range.
    fn text(value: &str, length: usize) -> String {
        match select(value.as_bytes(), length) {
            None => "W".into(),
            Some(parts) if parts.spans().is_empty() => "U".into(),
            Some(parts) => {
                let text = parts
                    .spans()
                    .iter()
                    .map(|span| format!("{}-{}", span.first, span.end - 1));
                text.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn ranges() {
        let spread: Vec<_> = (0..17).map(|n| format!("{0}-{0}", n * 2)).collect();
        let (sixteen, seventeen) = (spread[..16].join(","), spread.join(","));
        let same = std::vec!["0-0"; 64].join(",");
        for (value, length, expected) in [
            ("bytes=0-0", 10, "0-0"),
            ("bytes=0-", 10, "0-9"),
            ("Bytes=3-100", 10, "3-9"),
            ("bytes=-3", 10, "7-9"),
            ("bytes=-30", 10, "0-9"),
            ("bytes=-0", 10, "U"),
            ("bytes=10-", 10, "U"),
            ("bytes=9-9", 10, "9-9"),
            ("bytes=0-18446744073709551616", 10, "0-9"),
            ("bytes=99999999999999999999-", 10, "U"),
            ("bytes=0-1,3-4", 10, "0-1 3-4"),
            ("bytes= 3-4 , 0-1", 10, "3-4 0-1"),
            ("bytes=0-1,,2-3,", 10, "0-3"),
            ("bytes=0-5,3-7", 10, "0-7"),
            ("bytes=8-8,0-1,3-4,1-3", 10, "8-8 0-4"),
            ("bytes=3-4,8-8,0-1,2-2", 10, "0-4 8-8"),
            ("bytes=20-,0-0", 10, "0-0"),
            ("bytes=20-,30-40", 10, "U"),
            ("bytes=0-", 0, "U"),
            ("bytes=-1", 0, "W"),
            ("bytes=-0", 0, "U"),
            ("bytes=", 10, "W"),
            ("bytes=,", 10, "W"),
            ("bytes=-", 10, "W"),
            ("bytes=2-1", 10, "W"),
            ("bytes=0-1,2-1", 10, "W"),
            ("bytes=a-b", 10, "W"),
            ("bytes=0", 10, "W"),
            ("bytes=0 - 1", 10, "W"),
            ("bytes=0-1-2", 10, "W"),
            ("bytes=--1", 10, "W"),
            ("bytes 0-1", 10, "W"),
            ("lines=0-1", 10, "W"),
            ("b", 10, "W"),
        ] {
            assert_eq!(text(value, length), expected, "{value}");
        }
        assert_eq!(text(&format!("bytes={sixteen}"), 99).split(' ').count(), 16);
        assert_eq!(text(&format!("bytes={seventeen}"), 99), "W");
        assert_eq!(text(&format!("bytes={same}"), 99), "0-0");
        assert_eq!(text(&format!("bytes={same},0-0"), 99), "W");
        let most = usize::MAX;
        assert_eq!(
            text("bytes=0-18446744073709551615", most),
            format!("0-{}", most - 1)
        );
    }

    proptest! {
        #![proptest_config(mayfly_seeds::cases(256))]

        /// The bytes selected are those asked for; the parts neither overlap nor touch.
        #[test]
        fn parts_are_what_was_asked_for(
            spans in prop::collection::vec((0..40_usize, 0..40_usize), 1..12),
            length in 1..40_usize,
        ) {
            let asked = |byte| spans.iter().any(|&(first, size)| (first..=first + size).contains(&byte));
            let list: Vec<_> = spans.iter().map(|(first, size)| format!("{first}-{}", first + size)).collect();
            match select(format!("bytes={}", list.join(",")).as_bytes(), length) {
                None => prop_assert!(false),
                Some(parts) => {
                    let times = |byte| parts.spans().iter().filter(|span| (span.first..span.end).contains(&byte)).count();
                    for byte in 0..100 {
                        prop_assert_eq!(times(byte), usize::from(byte < length && asked(byte)));
                    }
                    for span in parts.spans() {
                        prop_assert!(span.first < span.end && span.end <= length);
                        prop_assert_eq!(times(span.end), 0);
                    }
                }
            }
        }
    }
}
