//! Decimal numbers as xenstore has them, without `core::fmt`, which costs more than the whole handshake.

/// A number as ASCII digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal {
    digits: [u8; 10],
    start: usize,
}

impl Decimal {
    /// The digits of a number, without leading zeros.
    #[must_use]
    pub(crate) fn new(number: u32) -> Self {
        let mut digits = [b'0'; 10];
        let mut start = digits.len();
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            let [low, ..] = (rest % 10).to_le_bytes();
            *digit += low;
            rest /= 10;
            start -= 1;
            if rest == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    /// The digits.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or(&[])
    }
}

/// The number that consists of these digits and nothing else.
#[must_use]
pub(crate) fn parse(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn prints_and_parses_the_same_numbers() {
        for number in [0, 1, 9, 10, 99, 100, 4095, 1_000_000_000, u32::MAX] {
            assert_eq!(
                Decimal::new(number).as_bytes(),
                number.to_string().as_bytes()
            );
            assert_eq!(parse(number.to_string().as_bytes()), Some(number));
        }
        for text in ["", "-1", "+1", " 1", "1 ", "0x1", "4294967296", "1\0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
