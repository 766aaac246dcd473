//! Numbers of the three formats, under the names of Xen's headers and specifications.

// --- tools/xl/xl.h, xl_saverestore.c -----------------------------------------

/// `savefileheader_magic`.
pub(crate) const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";
/// `SAVEFILE_BYTEORDER_VALUE`.
pub(crate) const BYTEORDER: u32 = 0x0102_0304;
/// `XL_MANDATORY_FLAG_JSON`: the configuration is libxl's JSON.
pub(crate) const FLAG_JSON: u32 = 1 << 0;
/// `XL_MANDATORY_FLAG_STREAMv2`: libxl's stream follows.
pub(crate) const FLAG_STREAM_V2: u32 = 1 << 1;

// --- docs/specs/libxl-migration-stream.pandoc --------------------------------

/// The identifier, `LibxlFmt`.
pub(crate) const LIBXL_IDENT: &[u8; 8] = b"LibxlFmt";
pub(crate) const LIBXL_VERSION: u32 = 2;
/// Bit 0 of the options: big endian.
pub(crate) const LIBXL_BIG_ENDIAN: u32 = 1 << 0;
/// Bit 1 of the options: converted from the format of Xen 4.5 and before.
pub(crate) const LIBXL_LEGACY: u32 = 1 << 1;
pub(crate) const LIBXL_END: u32 = 0;
pub(crate) const LIBXL_LIBXC_CONTEXT: u32 = 1;
pub(crate) const LIBXL_EMULATOR_XENSTORE_DATA: u32 = 2;
pub(crate) const LIBXL_EMULATOR_CONTEXT: u32 = 3;
pub(crate) const LIBXL_CHECKPOINT_END: u32 = 4;
pub(crate) const LIBXL_CHECKPOINT_STATE: u32 = 5;

// --- docs/specs/libxc-migration-stream.pandoc, xg_sr_stream_format.h ----------

/// `IHDR_MARKER`.
pub(crate) const IMAGE_MARKER: u64 = u64::MAX;
/// `IHDR_ID`, `XENF`.
pub(crate) const IMAGE_IDENT: u32 = 0x5845_4e46;
/// `IHDR_VERSION_3`.
pub(crate) const IMAGE_VERSION: u32 = 3;
/// `IHDR_OPT_ENDIAN`.
pub(crate) const IMAGE_BIG_ENDIAN: u16 = 1 << 0;
/// `DHDR_TYPE_X86_HVM`, the type of PVH guests too.
pub(crate) const DOMAIN_X86_HVM: u32 = 2;
pub(crate) const PAGE_SHIFT: u16 = 12;

/// `REC_TYPE_*`.
pub(crate) const END: u32 = 0x0;
pub(crate) const PAGE_DATA: u32 = 0x1;
pub(crate) const X86_TSC_INFO: u32 = 0x8;
pub(crate) const HVM_CONTEXT: u32 = 0x9;
pub(crate) const HVM_PARAMS: u32 = 0xa;
pub(crate) const VERIFY: u32 = 0xd;
pub(crate) const CHECKPOINT: u32 = 0xe;
pub(crate) const CHECKPOINT_DIRTY_PFN_LIST: u32 = 0xf;
pub(crate) const STATIC_DATA_END: u32 = 0x10;
pub(crate) const X86_CPUID_POLICY: u32 = 0x11;
pub(crate) const X86_MSR_POLICY: u32 = 0x12;
/// `REC_TYPE_OPTIONAL`: a reader that does not know the record skips it. libxl has the same bit.
pub(crate) const OPTIONAL: u32 = 1 << 31;
/// `REC_LENGTH_MAX`.
pub(crate) const LENGTH_MAX: u32 = 128 << 20;

/// `XEN_DOMCTL_PFINFO_*` >> 28: a page with its content; a broken one; an allocated one without content; none.
pub(crate) const NOTAB: u64 = 0x0;
pub(crate) const BROKEN: u64 = 0xd;
pub(crate) const XALLOC: u64 = 0xe;
pub(crate) const XTAB: u64 = 0xf;
/// The place of the type in an entry of PAGE_DATA.
pub(crate) const TYPE_SHIFT: u32 = 60;
/// `PAGE_DATA_PFN_MASK`.
pub(crate) const PFN_MASK: u64 = (1 << 52) - 1;
