//! Counts a guest's xenstore requests in the trace that the C xenstored writes (`xenstore-control log on`).
//!
//! The relevant lines, where `PTR` is the daemon's name for a connection:
//! ```text
//! IN PTR 20260101 00:00:13 INTRODUCE (3 1044476 1 )
//! CREATE connection PTR
//! IN PTR 20260101 00:00:13 WRITE (device/vif/0/state 1)
//! DESTROY connection PTR
//! ```
//! The daemon answers one request of a connection before it reads the next. So its trace does not show which requests
//! the guest sent without waiting, and round trips cannot be counted.

/// The number of requests of the guest `domid` in the trace before the one request for `marker`, or in all of it.
///
/// # Errors
/// The guest is not introduced in the trace, or the marker is missing.
pub fn requests(trace: &str, domid: u16, marker: Option<&str>) -> Result<u64, String> {
    let introduction = format!("({domid} ");
    let mut lines = trace.lines();
    lines
        .find(|line| matches!(request(line), Some((_, "INTRODUCE", rest)) if rest.starts_with(&introduction)))
        .ok_or_else(|| format!("xenstored's trace does not introduce domain {domid}"))?;
    let connection = lines
        .find_map(|line| line.strip_prefix("CREATE connection "))
        .ok_or_else(|| format!("xenstored's trace has no connection of domain {domid}"))?;
    let marker = marker.map(|path| format!("({path} )"));
    let mut count = 0;
    for line in lines {
        if line.strip_prefix("DESTROY connection ") == Some(connection) {
            break;
        }
        let Some((from, _, rest)) = request(line) else {
            continue;
        };
        if Some(rest) == marker.as_deref() {
            return Ok(count);
        }
        count += u64::from(from == connection);
    }
    match marker {
        None => Ok(count),
        Some(marker) => Err(format!("xenstored's trace has no {marker}")),
    }
}

/// Connection, name and payload of a request.
fn request(line: &str) -> Option<(&str, &str, &str)> {
    let mut words = line.strip_prefix("IN ")?.splitn(5, ' ');
    let connection = words.next()?;
    let name = words.nth(2)?;
    Some((connection, name, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
IN 0x1 20260101 00:00:13 WRITE (/local/domain/3/name null)
IN 0x1 20260101 00:00:13 INTRODUCE (3 1044476 1 )
wrl: dom    0      2  msec      10000 credit      400 reserve          0 discard
CREATE connection 0x2
OUT 0x1 20260101 00:00:13 INTRODUCE (OK )
IN 0x2 20260101 00:00:13 WRITE (device/vif/0/state 1)
OUT 0x2 20260101 00:00:13 WRITE (OK )
IN 0x1 20260101 00:00:13 READ (/local/domain/3/device/vif/0/state )
IN 0x2 20260101 00:00:13 READ (device/vif/0/mac )
IN 0x4 20260101 00:00:13 READ (/stamp/first-frame )
IN 0x2 20260101 00:00:13 WRITE (data/ready 1)
DESTROY connection 0x2
IN 0x2 20260101 00:00:14 READ (/of-another )
";

    #[test]
    fn only_the_guests_requests_count() {
        assert_eq!(requests(TRACE, 3, None), Ok(3));
        assert_eq!(requests(TRACE, 3, Some("/stamp/first-frame")), Ok(2));
    }

    #[test]
    fn a_trace_without_the_guest_or_the_marker_is_an_error() {
        assert!(requests(TRACE, 4, None).is_err());
        assert!(requests(TRACE, 3, Some("/stamp/ready")).is_err());
        assert!(requests("", 3, None).is_err());
    }
}
