//! A connection in memory.

use mayfly_http::{Connection, Shared};
use mayfly_site::Pages;
use mayfly_stream::{Input, Moment, Next};

/// The time of the test: later than all modification times of a site.
const MOMENT: Moment = Moment {
    now: 0,
    unix_seconds: Some(1_800_000_000),
};

/// Feeds a stream to a connection in pieces of at most `piece` bytes, each when the connection needs more input, with
/// room for `room` bytes at a time. Returns the bytes sent, and the counters.
///
/// # Errors
/// The connection is reset although no time passes; it makes no progress; or it consumes more than it was given.
pub fn feed<P: Pages>(
    pages: &P,
    head_max: usize,
    stream: &[u8],
    piece: usize,
    room: usize,
) -> Result<(Vec<u8>, Shared), String> {
    let mut connection = Connection::new(0, head_max);
    let mut shared = Shared::default();
    let (mut start, mut end) = (0, 0);
    let (mut sent, mut out) = (Vec::new(), vec![0; room]);
    loop {
        let bytes = stream.get(start..end).ok_or("more taken than given")?;
        let ended = end == stream.len();
        let input = Input { bytes, ended };
        let progress = connection.process(MOMENT, input, &mut out, pages, &mut shared);
        start += progress.consumed;
        let written = out.get(..progress.written);
        sent.extend_from_slice(written.ok_or("more written than there is room")?);
        match progress.next {
            Next::Close => return Ok((sent, shared)),
            Next::Abort => return Err("reset".into()),
            Next::Keep if progress.written > 0 => {}
            Next::Keep if ended => return Err("neither done nor getting on".into()),
            Next::Keep => end = stream.len().min(end.saturating_add(piece.max(1))),
        }
    }
}
