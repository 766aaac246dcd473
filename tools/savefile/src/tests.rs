//! Files that are written and read back, and files that lie.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::format;

const END: u64 = 0x10_0000;
const TSC: TscInfo = TscInfo {
    mode: 2,
    khz: 1_000_000,
    nsec: 77,
    incarnation: 3,
};

/// What a reader has found.
#[derive(Debug, Default, PartialEq)]
struct Found {
    order: Vec<&'static str>,
    pages: Vec<(u64, Option<Vec<u8>>)>,
    context: Vec<u8>,
    params: Vec<HvmParam>,
    tsc: Option<TscInfo>,
}

fn read_all(source: impl Read) -> Result<(SavedConfig, Found), Error> {
    let (config, body) = open(source)?;
    let mut records = body.records(END)?;
    let mut found = Found::default();
    while let Some(record) = records.next_record()? {
        found.order.push(match record {
            SavedRecord::CpuidPolicy(_) => "cpuid",
            SavedRecord::MsrPolicy(_) => "msrs",
            SavedRecord::StaticDataEnd => "static",
            SavedRecord::Pages(pages) => {
                let pages = pages.iter();
                let pages = pages.map(|page| (page.gfn, page.content.map(<[u8]>::to_vec)));
                found.pages.extend(pages);
                "pages"
            }
            SavedRecord::TscInfo(info) => {
                found.tsc = Some(info);
                "tsc"
            }
            SavedRecord::Context(context) => {
                found.context = context.to_vec();
                "context"
            }
            SavedRecord::Params(params) => {
                found.params = params;
                "params"
            }
        });
    }
    // Nothing comes after the end.
    assert!(matches!(records.next_record(), Ok(None)));
    Ok((config, found))
}

fn json() -> SavedConfig {
    SavedConfig::Json("{\"c_info\":{\"name\":\"web\"}}".to_owned())
}

/// A small guest's file, all of it but the end.
fn begun() -> SavefileWriter<Vec<u8>> {
    let mut writer = SavefileWriter::begin(Vec::new(), &json(), (4, 17)).unwrap();
    writer.cpuid_policy(&[1; 48]).unwrap();
    writer.msr_policy(&[2; 16]).unwrap();
    writer.static_data_end().unwrap();
    let mut batch = PageBatch::default();
    batch.zeros(0);
    batch.page(1).copy_from_slice(&[7; PAGE]);
    batch.zeros(2);
    writer.pages(&mut batch).unwrap();
    assert!(batch.is_empty());
    writer
}

/// A small guest's file.
pub(crate) fn sample() -> Vec<u8> {
    let mut writer = begun();
    writer.tsc_info(&TSC).unwrap();
    writer.context(&[9; 101]).unwrap();
    let (index, value) = (1, 0xf_effc);
    writer.params(&[HvmParam { index, value }]).unwrap();
    writer.finish().unwrap()
}

/// The sample with a record of libxc in front of its END.
fn with(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut file = sample();
    let end = file.split_off(file.len() - 16);
    file.extend(kind.to_le_bytes());
    file.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    file.extend(body);
    file.resize(file.len() + body.len().next_multiple_of(8) - body.len(), 0);
    file.extend(end);
    file
}

fn pages(count: u32, entries: &[u64], content: usize) -> Vec<u8> {
    let mut body = count.to_le_bytes().to_vec();
    body.extend([0; 4]);
    body.extend(entries.iter().flat_map(|entry| entry.to_le_bytes()));
    body.resize(body.len() + content, 0xaa);
    body
}

fn error_of(file: &[u8]) -> String {
    read_all(file).expect_err("it was read").to_string()
}

#[test]
fn what_is_written_is_read() {
    let (config, found) = read_all(&sample()[..]).unwrap();
    assert_eq!(config, json());
    let order = [
        "cpuid", "msrs", "static", "pages", "tsc", "context", "params",
    ];
    assert_eq!(found.order, order);
    let pages = [(0, None), (1, Some(vec![7; PAGE])), (2, None)];
    assert_eq!(found.pages, pages);
    assert_eq!((found.tsc, found.context), (Some(TSC), vec![9; 101]));
    let (index, value) = (1, 0xf_effc);
    assert_eq!(found.params, [HvmParam { index, value }]);
    let cfg = SavedConfig::Cfg("name = \"web\"\n".to_owned());
    let mut writer = SavefileWriter::begin(Vec::new(), &cfg, (4, 20)).unwrap();
    writer.static_data_end().unwrap();
    writer.context(&[1]).unwrap();
    writer.params(&[]).unwrap();
    let file = writer.finish().unwrap();
    assert_eq!(read_all(&file[..]).unwrap().0, cfg);
}

/// A pipe gives as many bytes as it has, and a signal may come at any time.
struct Pipe<'a>(&'a [u8], usize);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = buffer.len().min(self.1 % 61 + 1);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_pipe_is_read_as_a_file_is() {
    let file = sample();
    let (_, from_pipe) = read_all(Pipe(&file, 0)).unwrap();
    assert_eq!(from_pipe, read_all(&file[..]).unwrap().1);
}

/// Every cut file is an error, which says so.
#[test]
fn a_cut_file_is_an_error() {
    let file = sample();
    for length in 0..file.len() {
        let error = error_of(&file[..length]);
        let expected = match length {
            0..32 => "is no file of `xl save`",
            _ => "it is cut: it ends at byte",
        };
        assert!(error.contains(expected), "{length}: {error}");
    }
}

/// A length that lies about what follows reserves no memory for it.
#[test]
fn a_lying_length_takes_no_memory() {
    let mut file = begun().finish().unwrap();
    file.truncate(file.len() - 16);
    file.extend(format::PAGE_DATA.to_le_bytes());
    file.extend(format::LENGTH_MAX.to_le_bytes());
    file.extend([0; 100]);
    let (_, body) = open(&file[..]).unwrap();
    let mut records = body.records(END).unwrap();
    let error = loop {
        match records.next_record() {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Cut { .. }), "{error}");
    assert!(records.body_capacity() <= 2 << 20);
}

#[test]
fn records_that_cannot_be_are_errors() {
    const ZEROS: u64 = format::XALLOC << format::TYPE_SHIFT;
    for (kind, body, expected) in [
        (format::PAGE_DATA, pages(0, &[], 0), "has 0 pages"),
        (format::PAGE_DATA, vec![0; 4], "shorter than its entries"),
        (
            format::PAGE_DATA,
            pages(2, &[0, 1], 4096),
            "4096 bytes for 2 pages",
        ),
        (
            format::PAGE_DATA,
            pages(u32::MAX, &[0], 4096),
            "shorter than",
        ),
        (format::PAGE_DATA, pages(1, &[0], 4095), "4095 bytes for 1"),
        (format::PAGE_DATA, pages(1, &[0], 8192), "8192 bytes for 1"),
        (
            format::PAGE_DATA,
            pages(1, &[ZEROS], 4096),
            "4096 bytes for 0",
        ),
        (format::PAGE_DATA, pages(1, &[END], 4096), "page 0x100000"),
        (
            format::PAGE_DATA,
            pages(1, &[ZEROS | END], 0),
            "page 0x100000",
        ),
        (
            format::PAGE_DATA,
            pages(1, &[1 << 52], 4096),
            "reserved bits",
        ),
        (format::PAGE_DATA, pages(1, &[1 << 60], 4096), "of type 0x1"),
        (
            format::X86_TSC_INFO,
            vec![0; 24],
            "X86_TSC_INFO comes twice",
        ),
        (format::HVM_CONTEXT, vec![0; 8], "HVM_CONTEXT comes twice"),
        (format::HVM_PARAMS, vec![0; 8], "HVM_PARAMS comes twice"),
        (format::STATIC_DATA_END, vec![], "after STATIC_DATA_END"),
        (
            format::X86_CPUID_POLICY,
            vec![0; 24],
            "after STATIC_DATA_END",
        ),
        (format::CHECKPOINT, vec![], "a checkpoint"),
        (0x2, vec![0; 8], "the mandatory record 0x2"),
        (0x13, vec![], "the mandatory record 0x13"),
        (format::END, vec![0; 8], "END has 8 bytes"),
    ] {
        let error = error_of(&with(kind, &body));
        assert!(error.contains(expected), "{kind:#x} {expected}: {error}");
    }
}

#[test]
fn bodies_that_are_not_valid_are_errors() {
    let first = |kind: u32, body: &[u8]| {
        let mut writer = SavefileWriter::begin(Vec::new(), &json(), (4, 17)).unwrap();
        if !matches!(kind, format::X86_CPUID_POLICY | format::X86_MSR_POLICY) {
            writer.static_data_end().unwrap();
        }
        let mut file = writer.finish().unwrap();
        file.truncate(file.len() - 16);
        file.extend(kind.to_le_bytes());
        file.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        file.extend(body);
        file.extend([0; 8]);
        error_of(&file)
    };
    let mut params = vec![2, 0, 0, 0, 0, 0, 0, 0];
    params.extend([0; 16]);
    for (kind, body, expected) in [
        (
            format::X86_TSC_INFO,
            vec![0; 23],
            "X86_TSC_INFO is not valid",
        ),
        (
            format::X86_TSC_INFO,
            vec![1; 24],
            "X86_TSC_INFO is not valid",
        ),
        (
            format::X86_TSC_INFO,
            vec![0; 25],
            "X86_TSC_INFO has 25 bytes",
        ),
        (format::HVM_CONTEXT, vec![], "HVM_CONTEXT is empty"),
        (format::HVM_PARAMS, params, "HVM_PARAMS is not valid"),
        (format::HVM_PARAMS, vec![0; 24], "HVM_PARAMS is not valid"),
        (format::HVM_PARAMS, vec![0; 9000], "at most 4104 are taken"),
        (
            format::X86_CPUID_POLICY,
            vec![0; 25],
            "X86_CPUID_POLICY has 25",
        ),
        (format::X86_MSR_POLICY, vec![0; 17], "X86_MSR_POLICY has 17"),
        (format::X86_MSR_POLICY, vec![0; 70_000], "at most 65536"),
        (format::PAGE_DATA | format::END, vec![0; 8], "has 0 pages"),
    ] {
        let error = first(kind, &body);
        assert!(error.contains(expected), "{kind:#x} {expected}: {error}");
    }
}

#[test]
fn the_order_of_the_records_is_kept() {
    let mut early = SavefileWriter::begin(Vec::new(), &json(), (4, 17)).unwrap();
    early.context(&[1]).unwrap();
    let error = error_of(&early.finish().unwrap());
    assert!(error.contains("HVM_CONTEXT stands before"), "{error}");
    let error = error_of(&begun().finish().unwrap());
    assert!(error.contains("ends without HVM_CONTEXT"), "{error}");
    let mut writer = begun();
    writer.context(&[1]).unwrap();
    let error = error_of(&writer.finish().unwrap());
    assert!(error.contains("ends without HVM_PARAMS"), "{error}");
}

/// Records that are not needed are skipped, as is the mark of a stream that repeats its pages.
#[test]
fn what_is_optional_is_skipped() {
    let expected = read_all(&sample()[..]).unwrap();
    for kind in [format::OPTIONAL | 0x55, format::VERIFY] {
        let body: &[u8] = if kind == format::VERIFY {
            &[]
        } else {
            &[1; 13]
        };
        assert_eq!(read_all(&with(kind, body)[..]).unwrap(), expected);
    }
    let mut file = sample();
    let end = file.split_off(file.len() - 8);
    for (kind, expected) in [
        (format::LIBXL_EMULATOR_CONTEXT, "a device model"),
        (format::LIBXL_CHECKPOINT_END, "a checkpoint"),
        (0x77, "record 0x77 of libxl"),
        (format::OPTIONAL | 0x77, ""),
    ] {
        let mut file = file.clone();
        file.extend(kind.to_le_bytes());
        file.extend([4, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
        file.extend(&end);
        match expected {
            "" => drop(read_all(&file[..]).unwrap()),
            _ => assert!(error_of(&file).contains(expected)),
        }
    }
}

/// More than 1,024 pages in a record, and pages that come again, are as the specification allows.
#[test]
fn large_records_and_repeated_pages_are_taken() {
    let entries: Vec<u64> = (0..3000).map(|n| n % 2000).collect();
    let file = with(format::PAGE_DATA, &pages(3000, &entries, 3000 * PAGE));
    let (_, found) = read_all(&file[..]).unwrap();
    assert_eq!(found.pages.len(), 3 + 3000);
    assert_eq!(found.pages[3 + 2500], (500, Some(vec![0xaa; PAGE])));
}

/// Each header's fields, with a value that they cannot have.
#[test]
fn headers_are_checked() {
    let file = sample();
    let SavedConfig::Json(text) = json() else {
        unreachable!();
    };
    let libxl = 48 + 4 + text.len() + 1;
    for (at, byte, expected) in [
        (0, 0, "is no file of"),
        (32, 9, "another byte order"),
        (36, 1, "Xen 4.5 and before"),
        (36, 7, "mandatory flags 0x4"),
        (44, 0, "no configuration"),
        (48 + 3, 1, "the configuration has"),
        (52, 0xff, "is not text"),
        (libxl, 0, "no stream of libxl"),
        (libxl + 11, 3, "version 3 of libxl"),
        (libxl + 15, 1, "big-endian"),
        (libxl + 15, 2, "Xen 4.5 and before"),
        (libxl + 15, 4, "the options 0x4"),
        (libxl + 16, 5, "record 0x5 of libxl"),
        (libxl + 20, 1, "LIBXC_CONTEXT has a length"),
        (libxl + 24, 1, "no stream of libxc"),
        (libxl + 32, 1, "no stream of libxc"),
        (libxl + 39, 2, "version 2 of libxc"),
        (libxl + 41, 1, "big-endian"),
        (libxl + 41, 2, "reserved bits"),
        (libxl + 48, 1, "type 1, and not PVH"),
        (libxl + 52, 13, "header is not valid"),
    ] {
        let mut file = file.clone();
        file[at] = byte;
        let error = error_of(&file);
        assert!(error.contains(expected), "{at} {expected}: {error}");
    }
}

/// The inputs that the fuzzer begins with.
#[test]
fn seeds() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fuzz/seeds/savefile"
    );
    for (name, file) in [
        ("sample", sample()),
        ("optional", with(format::OPTIONAL | 1, &[1; 13])),
        ("verify", with(format::VERIFY, &[])),
        ("checkpoint", with(format::CHECKPOINT, &[])),
        ("no-state", begun().finish().unwrap()),
    ] {
        let path = format!("{folder}/{name}");
        if std::fs::read(&path).ok().as_deref() != Some(&file) {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(path, file).unwrap();
        }
    }
}

/// A page of a property test: a gfn, and a byte that fills it, or none.
fn any_page() -> impl Strategy<Value = (u64, Option<u8>)> {
    (0..END, any::<Option<u8>>())
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(128))]

    #[test]
    fn all_pages_are_read_back(
        wanted in prop::collection::vec(any_page(), 0..40),
        context in prop::collection::vec(any::<u8>(), 1..300),
        params in prop::collection::vec((any::<u64>(), any::<u64>()), 0..40),
        size in 1..17_usize,
    ) {
        let mut writer = SavefileWriter::begin(Vec::new(), &json(), (4, 17)).unwrap();
        writer.static_data_end().unwrap();
        for part in wanted.chunks(size) {
            let mut batch = PageBatch::default();
            for (gfn, fill) in part {
                match fill {
                    Some(fill) => batch.page(*gfn).fill(*fill),
                    None => batch.zeros(*gfn),
                }
            }
            writer.pages(&mut batch).unwrap();
        }
        writer.context(&context).unwrap();
        let params: Vec<_> = params.iter().map(|(index, value)| HvmParam { index: *index, value: *value }).collect();
        writer.params(&params).unwrap();
        let file = writer.finish().unwrap();
        let (_, found) = read_all(Pipe(&file, 0)).unwrap();
        let wanted: Vec<_> = wanted.iter().map(|(gfn, fill)| (*gfn, fill.map(|fill| vec![fill; PAGE]))).collect();
        prop_assert_eq!(found.pages, wanted);
        prop_assert_eq!(found.context, context);
        prop_assert_eq!(found.params, params);
    }

    /// Nothing panics, whichever bytes are changed.
    #[test]
    fn changed_files_are_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut file = sample();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok((_, found)) = read_all(&file[..]) {
            prop_assert!(found.pages.iter().all(|(gfn, _)| *gfn < END));
        }
    }
}
