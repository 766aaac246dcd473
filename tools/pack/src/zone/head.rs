//! The part of a record before its data: TTL, class and type.

use super::cursor::{Cursor, not};
use super::scan::{Token, Wrong};
use super::time::seconds;
use super::types;

/// The greatest TTL in seconds (RFC 2181 section 8).
pub(super) const TTL_MAX: u32 = i32::MAX as u32;

const IN: u16 = 1;

/// Whether a token can only be a TTL before a type.
pub(super) fn is_ttl(token: &Token<'_>) -> bool {
    !token.quoted && token.text.first().is_some_and(u8::is_ascii_digit)
}

/// The number of a class (RFC 3597 section 5).
fn class(token: &Token<'_>) -> Option<u16> {
    let named = [
        ("IN", IN),
        ("CH", 3),
        ("HS", 4),
        ("NONE", 254),
        ("ANY", 255),
    ];
    let known = named.iter().find(|(name, _)| token.is(name));
    let numbered = || types::numbered(token.text, "CLASS").filter(|_| !token.quoted);
    known.map(|(_, number)| *number).or_else(numbered)
}

/// Whether a token is a class.
pub(super) fn is_class(token: &Token<'_>) -> bool {
    class(token).is_some()
}

/// Reads TTL and class, in either order, and the type.
pub(super) fn head(cursor: &mut Cursor<'_, '_>) -> Result<(Option<u32>, u16), Wrong> {
    const EXPECTED: &str = "a TTL, a class or a type";
    let (mut ttl, mut known) = (None, false);
    loop {
        let token = cursor.word(EXPECTED)?;
        if ttl.is_none() && is_ttl(token) {
            let seconds = seconds(token.text).ok_or_else(|| not(token, EXPECTED))?;
            ttl = Some(bounded(seconds, token)?);
        } else if let Some(class) = class(token).filter(|_| !known) {
            if class != IN {
                let what = format!("class {}: only IN is served", token.shown());
                return Err(Wrong::new(token.place, what));
            }
            known = true;
        } else {
            let rtype = types::number(token.text);
            let rtype = rtype.ok_or_else(|| not(token, if known { "a type" } else { EXPECTED }))?;
            if types::is_elsewhere(rtype) {
                let what = format!("{}: a zone holds no such records", types::name(rtype));
                return Err(Wrong::new(token.place, what));
            }
            return Ok((ttl, rtype));
        }
    }
}

/// A TTL that does not exceed [`TTL_MAX`].
pub(super) fn bounded(ttl: u32, token: &Token<'_>) -> Result<u32, Wrong> {
    if ttl <= TTL_MAX {
        return Ok(ttl);
    }
    let what = format!("TTL {ttl} is above {TTL_MAX} (RFC 2181 section 8)");
    Err(Wrong::new(token.place, what))
}
