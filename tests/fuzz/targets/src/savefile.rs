//! A saved guest's file, read to its end.

use mayfly_savefile::{PAGE, Record, open};

/// The end of the guest's frames.
const END: u64 = 0x10_0000;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok((_, body)) = open(data) else {
        return;
    };
    let Ok(mut records) = body.records(END) else {
        return;
    };
    let mut bytes = 0;
    while let Ok(Some(record)) = records.next_record() {
        bytes += match record {
            Record::Pages(pages) => pages
                .iter()
                .map(|page| {
                    assert!(page.gfn < END);
                    let length = page.content.map_or(0, <[u8]>::len);
                    assert!(length == 0 || length == PAGE);
                    length
                })
                .sum(),
            Record::CpuidPolicy(bytes) | Record::MsrPolicy(bytes) | Record::Context(bytes) => {
                bytes.len()
            }
            Record::Params(params) => params.len() * 16,
            Record::StaticDataEnd | Record::TscInfo(_) => 0,
        };
    }
    // No record has more than the file.
    assert!(bytes <= data.len());
}
