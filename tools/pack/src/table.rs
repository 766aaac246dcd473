//! The hash tables of a pack.

use mayfly_site::pack::PROBES;
use mayfly_site::pack::read::{home, tag};

/// A hash table of records with their hashes; `None` when a record would be too far from its home.
pub(crate) fn table(mut records: Vec<(u64, u32)>) -> Option<Vec<u8>> {
    if records.is_empty() {
        return Some(Vec::new());
    }
    let homes = u32::try_from(records.len() * 2).ok()?;
    // In the order of homes, each record gets the slot nearest to its home.
    records.sort_unstable_by_key(|&(hash, record)| (home(hash, homes), hash, record));
    let slots = homes as usize + PROBES - 1;
    let mut bytes = vec![0; slots * 8];
    let mut next = 0;
    for (hash, record) in records {
        let home = home(hash, homes) as usize;
        let slot = home.max(next);
        if slot - home >= PROBES {
            return None;
        }
        let place = &mut bytes[slot * 8..slot * 8 + 8];
        place[..4].copy_from_slice(&tag(hash).to_le_bytes());
        place[4..].copy_from_slice(&record.to_le_bytes());
        next = slot + 1;
    }
    Some(bytes)
}
