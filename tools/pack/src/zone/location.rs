//! Places on Earth (LOC, RFC 1876).

use super::cursor::{Cursor, not};
use super::scan::Wrong;

/// The length of the data in bytes, in the only version there is (0).
const OCTETS: usize = 16;
/// The equator and the prime meridian, in thousandths of a second of arc.
const MIDDLE: u32 = 1 << 31;
/// Centimetres from the base of altitudes up to the reference spheroid.
const BASE: i64 = 10_000_000;
/// The defaults of size and precisions, in centimetres: 1 m, 10,000 m and 10 m.
const DEFAULTS: [i64; 3] = [100, 1_000_000, 1000];
/// The largest size and precision in centimetres: 90,000 km.
const LARGEST: i64 = 9_000_000_000;

pub(super) fn scan(from: &mut Cursor<'_, '_>, out: &mut Vec<u8>) -> Result<(), Wrong> {
    let latitude = angle(from, 90, ["N", "S"])?;
    let longitude = angle(from, 180, ["E", "W"])?;
    let altitude = metres(
        from,
        "an altitude in metres",
        -BASE..=i64::from(u32::MAX) - BASE,
    )?;
    let altitude = u32::try_from(altitude + BASE).unwrap_or(u32::MAX);
    out.push(0);
    for default in DEFAULTS {
        let length = match from.peek() {
            Some(_) => metres(from, "a length from 0 to 90000000 metres", 0..=LARGEST)?,
            None => default,
        };
        out.push(power(length));
    }
    for number in [latitude, longitude, altitude] {
        out.extend(number.to_be_bytes());
    }
    Ok(())
}

/// Reads degrees, minutes and seconds, of which the last two are optional, and a direction.
fn angle(from: &mut Cursor<'_, '_>, most: u32, directions: [&str; 2]) -> Result<u32, Wrong> {
    let direction = |token: &super::scan::Token<'_>| {
        directions.iter().position(|direction| token.is(direction))
    };
    let mut all = 0;
    let first = from.peek().copied();
    for (index, (most, unit)) in [(most, 3_600_000), (59, 60_000), (59, 1000)]
        .into_iter()
        .enumerate()
    {
        if index > 0 && from.peek().and_then(direction).is_some() {
            break;
        }
        let expected = match index {
            0 => format!("degrees from 0 to {most}"),
            1 => format!(
                "minutes from 0 to 59, {} or {}",
                directions[0], directions[1]
            ),
            _ => format!(
                "seconds from 0 to 59.999, {} or {}",
                directions[0], directions[1]
            ),
        };
        let places = if index == 2 { 3 } else { 0 };
        let parse = |text: &str| {
            let number = fixed(text, places).filter(|_| !text.starts_with('-'))?;
            let number = u32::try_from(number).ok()?;
            let whole = if places == 3 { number / 1000 } else { number };
            (whole <= most).then_some(if places == 3 { number } else { number * unit })
        };
        all += from.parse(&expected, parse)?;
    }
    let expected = format!("{} or {}", directions[0], directions[1]);
    let token = from.word(&expected)?;
    let south_or_west = direction(token).ok_or_else(|| not(token, &expected))? == 1;
    if all > most * 3_600_000 {
        let token = first.unwrap_or(*token);
        return Err(not(&token, &format!("an angle of at most {most} degrees")));
    }
    Ok(if south_or_west {
        MIDDLE - all
    } else {
        MIDDLE + all
    })
}

/// Reads a length in metres, with or without `m`. Returns centimetres.
fn metres(
    from: &mut Cursor<'_, '_>,
    expected: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Result<i64, Wrong> {
    from.parse(expected, |text| {
        let number = text.strip_suffix(['m', 'M']).unwrap_or(text);
        fixed(number, 2).filter(|number| range.contains(number))
    })
}

/// A decimal number with at most `places` digits after the point, in units of the last digit.
fn fixed(text: &str, places: usize) -> Option<i64> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{part:0<places$}");
    let right = !whole.is_empty()
        && part.len() <= places
        && digits.len() <= 15
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .parse::<i64>()
        .ok()
        .filter(|_| right)
        .map(|number| sign * number)
}

/// Centimetres as one digit and a power of ten, rounded down.
fn power(mut length: i64) -> u8 {
    let mut exponent = 0;
    while length > 9 {
        length /= 10;
        exponent += 1;
    }
    u8::try_from(length << 4 | exponent).unwrap_or(u8::MAX)
}

/// Checks that the data is valid and of the known version. Returns its length.
pub(super) fn extent(rest: &[u8]) -> Result<usize, String> {
    let digits = |byte: &u8| byte >> 4 < 10 && byte & 15 < 10;
    let numbers = |at: usize| Some(u32::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let within = |at: usize, most: u32| {
        numbers(at).is_some_and(|angle| angle.abs_diff(MIDDLE) <= most * 3_600_000)
    };
    if rest.len() >= OCTETS
        && rest[0] == 0
        && rest[1..4].iter().all(digits)
        && within(4, 90)
        && within(8, 180)
    {
        return Ok(OCTETS);
    }
    Err("are no place of RFC 1876".to_owned())
}

pub(super) fn print(part: &[u8], out: &mut String) {
    let [0, size, horizontal, vertical, numbers @ ..] = part else {
        return;
    };
    for (at, directions) in [(0, ["N", "S"]), (4, ["E", "W"])] {
        let angle = number(numbers, at);
        let all = angle.abs_diff(MIDDLE);
        let direction = directions[usize::from(angle < MIDDLE)];
        let (degrees, minutes) = (all / 3_600_000, all / 60_000 % 60);
        let (seconds, thousandths) = (all / 1000 % 60, all % 1000);
        out.push_str(&format!(
            "{degrees} {minutes} {seconds}.{thousandths:03} {direction} "
        ));
    }
    let altitude = i64::from(number(numbers, 8)) - BASE;
    let sign = if altitude < 0 { "-" } else { "" };
    let altitude = altitude.unsigned_abs();
    out.push_str(&format!("{sign}{}.{:02}m", altitude / 100, altitude % 100));
    for length in [size, horizontal, vertical] {
        let (digit, exponent) = (u64::from(length >> 4), u32::from(length & 15));
        match exponent {
            0 => out.push_str(&format!(" 0.0{digit}m")),
            1 => out.push_str(&format!(" 0.{digit}0m")),
            _ => out.push_str(&format!(" {}m", digit * 10_u64.pow(exponent - 2))),
        }
    }
}

fn number(numbers: &[u8], at: usize) -> u32 {
    let bytes = numbers.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(MIDDLE, |bytes| u32::from_be_bytes(*bytes))
}
