//! Chooses the variant of a file for a client (RFC 9110 section 12.5.3).

use super::request::{Request, members};
use mayfly_site::{Coding, Variant, Variants};

/// A weight of 1, in thousandths.
const ONE: u16 = 1000;

/// The weights that `Accept-Encoding` gives to each coding, and to all others.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    codings: [Option<u16>; 4],
    others: Option<u16>,
}

impl Weights {
    fn new<'i>(values: impl Iterator<Item = &'i [u8]>) -> Self {
        let mut weights = Self::default();
        for member in values.flat_map(members) {
            let mut parameters = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = parameters.next().unwrap_or_default();
            let Some(weight) = parameters.next().map_or(Some(ONE), weight) else {
                continue;
            };
            let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
            let coding = match name.len() {
                1 if is("*") => {
                    weights.others = Some(weight);
                    continue;
                }
                8 if is("identity") => Coding::Identity,
                4 if is("gzip") => Coding::Gzip,
                6 if is("x-gzip") => Coding::Gzip,
                2 if is("br") => Coding::Brotli,
                4 if is("zstd") => Coding::Zstd,
                _ => continue,
            };
            if let Some(place) = weights.codings.get_mut(coding as usize) {
                *place = Some(weight);
            }
        }
        weights
    }

    fn of(&self, coding: Coding) -> u16 {
        // The identity is acceptable unless the field excludes it.
        let unsaid = u16::from(coding == Coding::Identity);
        let said = self.codings.get(coding as usize).copied().flatten();
        said.or(self.others).unwrap_or(unsaid)
    }
}

/// `q=` of RFC 9110 section 12.4.2 in thousandths.
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let (whole, digits) = match value {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => ONE,
        _ => return None,
    };
    let mut unit = ONE;
    for digit in digits {
        unit /= 10;
        weight += unit * u16::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (weight <= ONE).then_some(weight)
}

/// The variant with the highest weight; among equals the first, which is the smallest. A client that accepts none gets
/// the identity rather than an error (RFC 9110 section 12.1).
pub(super) fn choose<'v, 'a>(
    request: &Request<'_, '_>,
    variants: &'v Variants<'a>,
) -> Option<&'v Variant<'a>> {
    let identity = identity(variants);
    if !request.negotiated {
        return identity;
    }
    let weights = Weights::new(request.values("accept-encoding"));
    let mut best = (0, identity);
    for variant in variants.iter().flatten() {
        let weight = weights.of(variant.coding);
        if weight > best.0 {
            best = (weight, Some(variant));
        }
    }
    best.1
}

/// The variant without a coding.
pub(super) fn identity<'v, 'a>(variants: &'v Variants<'a>) -> Option<&'v Variant<'a>> {
    let is_identity = |variant: &&Variant<'_>| variant.coding == Coding::Identity;
    variants.iter().flatten().find(is_identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (value, expected) in [
            ("", [1, 0, 0, 0]),
            ("gzip", [1, 1000, 0, 0]),
            ("GZIP, Br;q=0.5 , zstd ;Q=0.25", [1, 1000, 500, 250]),
            ("x-gzip;q=1.000", [1, 1000, 0, 0]),
            ("*", [1000, 1000, 1000, 1000]),
            ("*;q=0", [0, 0, 0, 0]),
            ("*;q=0, identity;q=0.001", [1, 0, 0, 0]),
            ("gzip;q=0, *;q=0.1", [100, 0, 100, 100]),
            ("identity;q=0, br;q=0.", [0, 0, 0, 0]),
            ("gzip;q=1.1, br;q=0.1234, zstd;q=.5", [1, 0, 0, 0]),
            ("gzip;q=2, br;q=, zstd;level=1", [1, 0, 0, 0]),
            ("gzip;q=0.9;x, deflate, , br", [1, 900, 1000, 0]),
        ] {
            let weights = Weights::new([value.as_bytes()].into_iter());
            let of = [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];
            assert_eq!(of.map(|coding| weights.of(coding)), expected, "{value}");
        }
    }
}
