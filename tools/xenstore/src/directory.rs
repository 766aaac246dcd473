//! Lists of children, read in parts if they are longer than a message.

use super::error::Error;
use super::request::Request;

/// The number of times that a list is read again because it changed.
const RESTARTS: u32 = 32;
/// The longest accepted list, in bytes: far beyond what xenstored's own quotas allow for one node.
const LIST_MAX: usize = 16 << 20;

/// Reads a list by `DIRECTORY_PART path offset`. Each answer has a generation count, then as many names as fit from
/// that offset on, and an empty name after the last. `ask` sends one request and waits for its answer.
pub(super) fn in_parts(
    path: &str,
    mut ask: impl FnMut(Request<'_>) -> Result<Vec<u8>, Error>,
) -> Result<Vec<String>, Error> {
    'anew: for _ in 0..RESTARTS {
        let mut generation = None;
        let mut list = Vec::new();
        while list.len() < LIST_MAX {
            let part = ask(Request::directory_part(path, list.len()))?;
            let Some(end) = part.iter().position(|byte| *byte == 0) else {
                return Err(wrong(path, "a part of it has no generation count"));
            };
            let (this, names_too) = part.split_at(end);
            let more = names_too.get(1..).unwrap_or_default();
            if generation.get_or_insert_with(|| this.to_vec()) != this {
                continue 'anew;
            }
            if more.is_empty() {
                return Err(wrong(path, "a part of it is empty"));
            }
            list.extend_from_slice(more);
            if list == [0] || list.ends_with(&[0, 0]) {
                list.pop();
                return names(path, &list);
            }
        }
        return Err(wrong(path, "it has no end"));
    }
    Err(wrong(path, "it changes faster than it can be read"))
}

pub(super) fn names(path: &str, list: &[u8]) -> Result<Vec<String>, Error> {
    let Ok(list) = std::str::from_utf8(list) else {
        return Err(wrong(path, "it is not UTF-8"));
    };
    Ok(list.split_terminator('\0').map(String::from).collect())
}

fn wrong(path: &str, why: &'static str) -> Error {
    Error::Answer {
        what: Request::directory(path).what(),
        why,
    }
}
