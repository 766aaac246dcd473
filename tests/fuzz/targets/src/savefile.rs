//! A saved guest's file, read to its end.

use mayfly_savefile::{PAGE, SavedRecord, open};

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
            SavedRecord::Pages(pages) => pages
                .iter()
                .map(|page| {
                    assert!(page.gfn < END);
                    let length = page.content.map_or(0, <[u8]>::len);
                    assert!(length == 0 || length == PAGE);
                    length
                })
                .sum(),
            SavedRecord::CpuidPolicy(bytes)
            | SavedRecord::MsrPolicy(bytes)
            | SavedRecord::Context(bytes) => bytes.len(),
            SavedRecord::Params(params) => params.len() * 16,
            SavedRecord::StaticDataEnd | SavedRecord::TscInfo(_) => 0,
        };
    }
    // No record has more than the file.
    assert!(bytes <= data.len());
}
