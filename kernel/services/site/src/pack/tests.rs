//! Tests of the parts of the reader, which need no packer. Whole packs are tested where they are made (`tools/pack`).

use core::cmp::Ordering;
use core::fmt::Write as _;

use alloc::string::String;
use alloc::vec::Vec;

use super::read::{Table, entry, hash, home, part, same_name, search, tag, u16_at, u32_at, u64_at};
use super::*;

#[test]
fn reads_stay_inside() {
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(u16_at(&bytes, 6), Ok(0x0807));
    assert_eq!(u32_at(&bytes, 4), Ok(0x0807_0605));
    assert_eq!(u64_at(&bytes, 0), Ok(0x0807_0605_0403_0201));
    assert_eq!(part(&bytes, 8, 0), Ok(&[][..]));
    assert_eq!(entry::<2>(&bytes, 1, 2), Ok([7, 8]));
    for at in [7, 8, 9, usize::MAX] {
        assert_eq!(u16_at(&bytes, at), Err(Broken));
        assert_eq!(u32_at(&bytes, at), Err(Broken));
        assert_eq!(part(&bytes, at, 2), Err(Broken));
        assert_eq!(part(&bytes, 2, at), Err(Broken));
        assert_eq!(entry::<2>(&bytes, 1, at), Err(Broken));
        assert_eq!(entry::<2>(&bytes, u32::MAX, at), Err(Broken));
    }
}

#[test]
fn search_finds_the_place() {
    for count in 0..20 {
        for place in 0..=count {
            assert_eq!(search(count, |index| Ok(index < place)), Ok(place));
        }
    }
    assert_eq!(search(9, |_| Err(Broken)), Err(Broken));
    let mut asked = 0;
    let odd = search(usize::MAX, |index| {
        asked += 1;
        Ok(index % 3 == 0)
    });
    assert!(odd.is_ok() && asked <= 64);
}

#[test]
fn names_are_the_same_but_for_case() {
    for (one, other, same) in [
        (
            &b"\x03www\x07example\x04test\0"[..],
            &b"\x03wWw\x07EXAMPLE\x04test\0"[..],
            true,
        ),
        (
            b"\x03www\x07example\x04test\0",
            b"\x03www\x07example\x04tes_\0",
            false,
        ),
        (b"\x01@\0", b"\x01`\0", false),
        (b"\x09aaaaaaaa[\0", b"\x09aaaaaaaa{\0", false),
        (b"\x01\x10\0", b"\x010\0", false),
        (b"\x01a\0", b"\x01ab\0", false),
    ] {
        assert_eq!(same_name(one, other), same);
        assert_eq!(same_name(other, one), same);
        assert_eq!(one.eq_ignore_ascii_case(other), same);
    }
}

#[test]
fn order_of_rfc_4034() {
    // The example of section 6.1.
    let names: [&[u8]; 9] = [
        b"\x07example\0",
        b"\x01a\x07example\0",
        b"\x08yljkjljk\x01a\x07example\0",
        b"\x01Z\x01a\x07example\0",
        b"\x04zABC\x01a\x07EXAMPLE\0",
        b"\x01z\x07example\0",
        b"\x01\x01\x01z\x07example\0",
        b"\x01*\x01z\x07example\0",
        b"\x01\xc8\x01z\x07example\0",
    ];
    for (index, one) in names.iter().enumerate() {
        for (other_index, other) in names.iter().enumerate() {
            assert_eq!(canonical_order(one, other), Some(index.cmp(&other_index)));
        }
    }
    assert_eq!(canonical_order(b"\0", b"\0"), Some(Ordering::Equal));
    assert_eq!(canonical_order(b"\0", b"\x01a"), None);
}

#[test]
fn hashes_tell_lengths_apart() {
    let zeros = [0; 40];
    let mut hashes: Vec<u64> = (0..40).map(|bytes| hash(7, &zeros[..bytes])).collect();
    hashes.extend((0..40).map(|at| {
        let mut bytes = zeros;
        bytes[at] = 1;
        hash(7, &bytes)
    }));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 80);
}

#[test]
fn tables_are_searched_within_bounds() {
    const HASH: u64 = 0xffff_ffff_0000_0005;
    let none = Table::new(&[]);
    assert_eq!(none.find(HASH, |record| Ok(Some(record))), Ok(None));
    // A table with one home: a record in its last slot, and one slot beyond.
    let mut slots = [[0; 8]; PROBES];
    for slot in &mut slots {
        slot[..4].copy_from_slice(&4_u32.to_le_bytes());
        slot[4] = 9;
    }
    slots[PROBES - 1][..4].copy_from_slice(&tag(HASH).to_le_bytes());
    let bytes = slots.concat();
    assert_eq!(home(HASH, 1), 0);
    let table = Table::new(&bytes);
    assert_eq!(table.find(HASH, |record| Ok(Some(record))), Ok(Some(9)));
    assert_eq!(table.find(HASH, |_| Ok(None::<()>)), Ok(None));
    assert_eq!(
        table.find(HASH, |_| Err::<Option<()>, _>(Broken)),
        Err(Broken)
    );
    // An empty slot ends it; too short a table has no homes.
    let mut empty = bytes.clone();
    empty[..8].fill(0);
    assert_eq!(
        Table::new(&empty).find(HASH, |record| Ok(Some(record))),
        Ok(None)
    );
    let short = Table::new(&bytes[8..]);
    assert_eq!(short.find(HASH, |record| Ok(Some(record))), Ok(None));
}

#[test]
fn what_is_no_pack_gives_one_line() {
    for (bytes, line) in [
        (&b""[..], "0 bytes are too few for a pack"),
        (&[0; 159], "159 bytes are too few for a pack"),
        (&[0; 160], "it is not a pack made by hatch"),
    ] {
        let error = Pack::open(bytes).unwrap_err();
        let mut text = String::new();
        write!(text, "{error}").unwrap();
        assert_eq!(text, line);
    }
}
