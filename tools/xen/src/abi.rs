//! The parts of Xen's public headers that the domain builder uses, under the headers' names.
//!
//! Source: Xen 4.17 `xen/include/public`, and 4.18 to 4.20 where a comment says so. Sizes and offsets are asserted
//! below each struct. Nothing here touches memory: a value becomes bytes, and [`super::sys`] copies those.
#![allow(non_camel_case_types, reason = "the headers' names")]

use std::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The size of a frame in bytes.
pub const PAGE_SIZE: usize = 4096;

// --- xen.h -------------------------------------------------------------------

/// `__HYPERVISOR_memory_op`.
pub(crate) const MEMORY_OP: u64 = 12;
/// `__HYPERVISOR_multicall`.
pub(crate) const MULTICALL: u64 = 13;
/// `__HYPERVISOR_xen_version`.
pub(crate) const XEN_VERSION: u64 = 17;
/// `__HYPERVISOR_sched_op`.
pub(crate) const SCHED_OP: u64 = 29;
/// `__HYPERVISOR_event_channel_op`.
pub(crate) const EVENT_CHANNEL_OP: u64 = 32;
/// `__HYPERVISOR_hvm_op`.
pub(crate) const HVM_OP: u64 = 34;
/// `__HYPERVISOR_sysctl`.
pub(crate) const SYSCTL: u64 = 35;
/// `__HYPERVISOR_domctl`.
pub(crate) const DOMCTL: u64 = 36;
/// `DOMID_FIRST_RESERVED`.
pub(crate) const DOMID_FIRST_RESERVED: u16 = 0x7ff0;

// --- version.h ---------------------------------------------------------------

/// `XENVER_version`: major version << 16 | minor version.
pub(crate) const XENVER_VERSION: u64 = 0;

// --- memory.h ----------------------------------------------------------------

/// `XENMEM_populate_physmap`.
pub(crate) const XENMEM_POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_maximum_gpfn`. Its argument is the domid alone.
pub(crate) const XENMEM_MAXIMUM_GPFN: u64 = 14;
/// `XENMEM_set_memory_map`.
pub(crate) const XENMEM_SET_MEMORY_MAP: u64 = 13;
/// `XENMEM_resource_grant_table`.
pub(crate) const XENMEM_RESOURCE_GRANT_TABLE: u32 = 1;
/// `XENMEM_resource_grant_table_id_shared`.
pub(crate) const XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0;

/// `struct xen_memory_reservation`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_memory_reservation {
    pub(crate) extent_start: u64,
    pub(crate) nr_extents: u64,
    pub(crate) extent_order: u32,
    pub(crate) mem_flags: u32,
    pub(crate) domid: u16,
    pub(crate) pad: [u16; 3],
}
const _: () = assert!(size_of::<xen_memory_reservation>() == 32);
const _: () = assert!(offset_of!(xen_memory_reservation, domid) == 24);

/// `struct xen_foreign_memory_map`, with the `struct xen_memory_map` inside it.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_foreign_memory_map {
    pub(crate) domid: u16,
    pub(crate) pad: [u16; 3],
    pub(crate) nr_entries: u32,
    pub(crate) pad2: u32,
    pub(crate) buffer: u64,
}
const _: () = assert!(size_of::<xen_foreign_memory_map>() == 24);
const _: () = assert!(offset_of!(xen_foreign_memory_map, nr_entries) == 8);

/// `struct e820entry` (tools' own, as XENMEM_set_memory_map takes it: 20 bytes, packed).
pub(crate) const E820_ENTRY: usize = 20;

// --- event_channel.h ---------------------------------------------------------

/// `EVTCHNOP_alloc_unbound`.
pub(crate) const EVTCHNOP_ALLOC_UNBOUND: u64 = 6;

/// `struct evtchn_alloc_unbound`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct evtchn_alloc_unbound {
    pub(crate) dom: u16,
    pub(crate) remote_dom: u16,
    pub(crate) port: u32,
}
const _: () = assert!(size_of::<evtchn_alloc_unbound>() == 8);

// --- sched.h -----------------------------------------------------------------

/// `SCHEDOP_remote_shutdown`.
pub(crate) const SCHEDOP_REMOTE_SHUTDOWN: u64 = 4;

/// `struct sched_remote_shutdown`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct sched_remote_shutdown {
    pub(crate) domain_id: u16,
    pub(crate) pad: u16,
    pub(crate) reason: u32,
}
const _: () = assert!(size_of::<sched_remote_shutdown>() == 8);

// --- hvm/hvm_op.h, hvm/params.h ----------------------------------------------

/// `HVMOP_set_param`.
pub(crate) const HVMOP_SET_PARAM: u64 = 0;

/// `HVMOP_get_param`.
pub(crate) const HVMOP_GET_PARAM: u64 = 1;
/// `HVM_PARAM_CALLBACK_IRQ`.
pub(crate) const HVM_PARAM_CALLBACK_IRQ: u32 = 0;

/// `struct xen_hvm_param`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_hvm_param {
    pub(crate) domid: u16,
    pub(crate) pad: u16,
    pub(crate) index: u32,
    pub(crate) value: u64,
}
const _: () = assert!(size_of::<xen_hvm_param>() == 16);

// --- domctl.h ----------------------------------------------------------------

pub(crate) const XEN_DOMCTL_CREATEDOMAIN: u32 = 1;
pub(crate) const XEN_DOMCTL_DESTROYDOMAIN: u32 = 2;
pub(crate) const XEN_DOMCTL_PAUSEDOMAIN: u32 = 3;
pub(crate) const XEN_DOMCTL_UNPAUSEDOMAIN: u32 = 4;
pub(crate) const XEN_DOMCTL_GETDOMAININFO: u32 = 5;
pub(crate) const XEN_DOMCTL_MAX_MEM: u32 = 11;
pub(crate) const XEN_DOMCTL_SETVCPUCONTEXT: u32 = 12;
pub(crate) const XEN_DOMCTL_GETVCPUCONTEXT: u32 = 13;
pub(crate) const XEN_DOMCTL_MAX_VCPUS: u32 = 15;
pub(crate) const XEN_DOMCTL_RESUMEDOMAIN: u32 = 27;
pub(crate) const XEN_DOMCTL_SUBSCRIBE: u32 = 29;
pub(crate) const XEN_DOMCTL_GETHVMCONTEXT: u32 = 33;
pub(crate) const XEN_DOMCTL_SETHVMCONTEXT: u32 = 34;
pub(crate) const XEN_DOMCTL_GETTSCINFO: u32 = 59;
pub(crate) const XEN_DOMCTL_SETTSCINFO: u32 = 60;
pub(crate) const XEN_DOMCTL_GETPAGEFRAMEINFO3: u32 = 61;
pub(crate) const XEN_DOMCTL_GET_CPU_POLICY: u32 = 82;
pub(crate) const XEN_DOMCTL_SET_CPU_POLICY: u32 = 83;
pub(crate) const XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE: u32 = 86;

/// `SECINITSID_DOMU`: the default security label of a guest under FLASK, as for libxl
/// (xen/xsm/flask/policy/initial_sids, counted from 1). Without FLASK it is ignored.
pub(crate) const SECINITSID_DOMU: u32 = 12;

/// `XEN_DOMCTL_CDF_hvm`.
pub(crate) const XEN_DOMCTL_CDF_HVM: u32 = 1 << 0;
/// `XEN_DOMCTL_CDF_hap`.
pub(crate) const XEN_DOMCTL_CDF_HAP: u32 = 1 << 1;
/// `XEN_X86_EMU_LAPIC` (arch-x86/xen.h): all that a PVH guest has emulated.
pub(crate) const XEN_X86_EMU_LAPIC: u32 = 1 << 0;

/// `struct xen_domctl`. The bytes of its union follow.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl {
    pub(crate) cmd: u32,
    pub(crate) interface_version: u32,
    pub(crate) domain: u16,
    pub(crate) pad: [u16; 3],
    pub(crate) u: [u8; 128],
}
const _: () = assert!(size_of::<xen_domctl>() == 144);
const _: () = assert!(offset_of!(xen_domctl, u) == 16);

/// `struct xen_domctl_createdomain` of 4.17 and 4.18.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_createdomain {
    pub(crate) ssidref: u32,
    pub(crate) handle: [u8; 16],
    pub(crate) flags: u32,
    pub(crate) iommu_opts: u32,
    pub(crate) max_vcpus: u32,
    pub(crate) max_evtchn_port: u32,
    pub(crate) max_grant_frames: i32,
    pub(crate) max_maptrack_frames: i32,
    pub(crate) grant_opts: u32,
    pub(crate) vmtrace_size: u32,
    pub(crate) cpupool_id: u32,
    pub(crate) arch: xen_arch_domainconfig,
}
const _: () = assert!(size_of::<xen_domctl_createdomain>() == 64);

/// `struct xen_domctl_createdomain` of 4.19 and 4.20, which have `altp2m_opts`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_createdomain_4_19 {
    pub(crate) ssidref: u32,
    pub(crate) handle: [u8; 16],
    pub(crate) flags: u32,
    pub(crate) iommu_opts: u32,
    pub(crate) max_vcpus: u32,
    pub(crate) max_evtchn_port: u32,
    pub(crate) max_grant_frames: i32,
    pub(crate) max_maptrack_frames: i32,
    pub(crate) grant_opts: u32,
    pub(crate) altp2m_opts: u32,
    pub(crate) vmtrace_size: u32,
    pub(crate) cpupool_id: u32,
    pub(crate) arch: xen_arch_domainconfig,
}
const _: () = assert!(size_of::<xen_domctl_createdomain_4_19>() == 68);
const _: () = assert!(offset_of!(xen_domctl_createdomain_4_19, altp2m_opts) == 48);

/// `struct xen_arch_domainconfig` (arch-x86/xen.h).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_arch_domainconfig {
    pub(crate) emulation_flags: u32,
    pub(crate) misc_flags: u32,
}
const _: () = assert!(size_of::<xen_arch_domainconfig>() == 8);

/// `struct xen_domctl_vcpucontext`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_vcpucontext {
    pub(crate) vcpu: u32,
    pub(crate) pad: u32,
    pub(crate) ctxt: u64,
}
const _: () = assert!(size_of::<xen_domctl_vcpucontext>() == 16);

/// `struct xen_domctl_getdomaininfo`, the same in 4.17 to 4.20.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_getdomaininfo {
    pub(crate) domain: u16,
    pub(crate) pad1: u16,
    pub(crate) flags: u32,
    pub(crate) tot_pages: u64,
    pub(crate) max_pages: u64,
    pub(crate) outstanding_pages: u64,
    pub(crate) shr_pages: u64,
    pub(crate) paged_pages: u64,
    pub(crate) shared_info_frame: u64,
    pub(crate) cpu_time: u64,
    pub(crate) nr_online_vcpus: u32,
    pub(crate) max_vcpu_id: u32,
    pub(crate) ssidref: u32,
    pub(crate) handle: [u8; 16],
    pub(crate) cpupool: u32,
    pub(crate) gpaddr_bits: u8,
    pub(crate) pad2: [u8; 7],
    pub(crate) arch_config: xen_arch_domainconfig,
}
const _: () = assert!(size_of::<xen_domctl_getdomaininfo>() == 112);
const _: () = assert!(offset_of!(xen_domctl_getdomaininfo, handle) == 76);

/// `XEN_DOMINF_dying`.
pub(crate) const XEN_DOMINF_DYING: u32 = 1 << 0;
/// `XEN_DOMINF_shutdown`.
pub(crate) const XEN_DOMINF_SHUTDOWN: u32 = 1 << 2;
/// `XEN_DOMINF_paused`.
pub(crate) const XEN_DOMINF_PAUSED: u32 = 1 << 3;
/// `XEN_DOMINF_blocked`.
pub(crate) const XEN_DOMINF_BLOCKED: u32 = 1 << 4;
/// `XEN_DOMINF_running`.
pub(crate) const XEN_DOMINF_RUNNING: u32 = 1 << 5;
/// `XEN_DOMINF_shutdownshift`; the reason has eight bits.
pub(crate) const XEN_DOMINF_SHUTDOWNSHIFT: u32 = 16;

/// `struct xen_domctl_tsc_info`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_tsc_info {
    pub(crate) tsc_mode: u32,
    pub(crate) gtsc_khz: u32,
    pub(crate) incarnation: u32,
    pub(crate) pad: u32,
    pub(crate) elapsed_nsec: u64,
}
const _: () = assert!(size_of::<xen_domctl_tsc_info>() == 24);

/// `struct xen_domctl_hvmcontext`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_hvmcontext {
    pub(crate) size: u32,
    pub(crate) pad: u32,
    pub(crate) buffer: u64,
}
const _: () = assert!(size_of::<xen_domctl_hvmcontext>() == 16);

/// `XEN_DOMCTL_PFINFO_LTAB_MASK`, and the only type that an ordinary page of a PVH guest has.
pub(crate) const XEN_DOMCTL_PFINFO_LTAB_MASK: u64 = 0xf000_0000;
pub(crate) const XEN_DOMCTL_PFINFO_NOTAB: u64 = 0;

/// `struct xen_domctl_getpageframeinfo3`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_getpageframeinfo3 {
    pub(crate) num: u64,
    pub(crate) array: u64,
}
const _: () = assert!(size_of::<xen_domctl_getpageframeinfo3>() == 16);

/// `struct xen_domctl_subscribe`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_subscribe {
    pub(crate) port: u32,
}

/// `struct xen_domctl_cpu_policy`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_domctl_cpu_policy {
    pub(crate) nr_leaves: u32,
    pub(crate) nr_msrs: u32,
    pub(crate) leaves: u64,
    pub(crate) msrs: u64,
    pub(crate) err: [u32; 3],
    pub(crate) pad: u32,
}
const _: () = assert!(size_of::<xen_domctl_cpu_policy>() == 40);
/// The sizes of `xen_cpuid_leaf_t` and of `xen_msr_entry_t` (arch-x86/xen.h), in bytes.
pub(crate) const CPUID_LEAF: usize = 24;
pub(crate) const MSR_ENTRY: usize = 16;

/// The size of `struct vcpu_guest_context` (arch-x86/xen.h) of 64 bits, in bytes; the offset of `user_regs.rax` in it,
/// after `fpu_ctxt`, `flags` and ten registers; and that of `user_regs.rip`, five registers and two words later.
pub(crate) const VCPU_GUEST_CONTEXT: usize = 5168;
pub(crate) const VCPU_RAX: usize = 512 + 8 + 10 * 8;
pub(crate) const VCPU_RIP: usize = VCPU_RAX + 5 * 8 + 2 * 4;

// --- sysctl.h ----------------------------------------------------------------

/// `XEN_SYSCTL_INTERFACE_VERSION` of 4.17 to 4.20.
pub(crate) const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;
pub(crate) const XEN_SYSCTL_GETDOMAININFOLIST: u32 = 6;

/// `struct xen_sysctl` with `struct xen_sysctl_getdomaininfolist`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_sysctl_getdomaininfolist {
    pub(crate) cmd: u32,
    pub(crate) interface_version: u32,
    pub(crate) first_domain: u16,
    pub(crate) pad: u16,
    pub(crate) max_domains: u32,
    pub(crate) buffer: u64,
    pub(crate) num_domains: u32,
    pub(crate) pad2: u32,
    pub(crate) rest: [u64; 13],
}
// `struct xen_sysctl` is eight bytes and a union of 128.
const _: () = assert!(size_of::<xen_sysctl_getdomaininfolist>() == 8 + 128);
const _: () = assert!(offset_of!(xen_sysctl_getdomaininfolist, buffer) == 16);

pub(crate) const XEN_SYSCTL_PHYSINFO: u32 = 3;

/// `struct xen_sysctl` with `struct xen_sysctl_physinfo`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct xen_sysctl_physinfo {
    pub(crate) cmd: u32,
    pub(crate) interface_version: u32,
    pub(crate) cpus: [u32; 10],
    pub(crate) total_pages: u64,
    pub(crate) free_pages: u64,
    pub(crate) scrub_pages: u64,
    pub(crate) rest: [u64; 8],
}
const _: () = assert!(size_of::<xen_sysctl_physinfo>() == 8 + 128);
const _: () = assert!(offset_of!(xen_sysctl_physinfo, free_pages) == 8 + 48);

// --- hvm/save.h, arch-x86/hvm/save.h ------------------------------------------

/// `struct hvm_save_descriptor`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct hvm_save_descriptor {
    pub(crate) typecode: u16,
    pub(crate) instance: u16,
    pub(crate) length: u32,
}
const _: () = assert!(size_of::<hvm_save_descriptor>() == 8);

/// `HVM_FILE_MAGIC`.
pub(crate) const HVM_FILE_MAGIC: u32 = 0x5438_1286;
/// `HVM_FILE_VERSION`.
pub(crate) const HVM_FILE_VERSION: u32 = 1;
/// `HVM_SAVE_CODE` of END, HEADER, CPU and MTRR.
pub(crate) const HVM_SAVE_CODE_END: u16 = 0;
pub(crate) const HVM_SAVE_CODE_HEADER: u16 = 1;
pub(crate) const HVM_SAVE_CODE_CPU: u16 = 2;
pub(crate) const HVM_SAVE_CODE_MTRR: u16 = 14;

/// `struct hvm_save_header`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct hvm_save_header {
    pub(crate) magic: u32,
    pub(crate) version: u32,
    pub(crate) changeset: u64,
    pub(crate) cpuid: u32,
    pub(crate) gtsc_khz: u32,
}
const _: () = assert!(size_of::<hvm_save_header>() == 24);

/// `struct hvm_hw_cpu`, the same in 4.17 to 4.20. Registers that are always 0 here are grouped.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct hvm_hw_cpu {
    pub(crate) fpu_regs: [u8; 512],
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    /// rcx, rdx, rbp, rsi, rdi, rsp, r8 to r15.
    pub(crate) others: [u64; 14],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) cr0: u64,
    pub(crate) cr2: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) dr0_to_dr3: [u64; 4],
    pub(crate) dr6: u64,
    pub(crate) dr7: u64,
    /// cs, ds, es, fs, gs, ss, tr, ldtr, as in all arrays of segments.
    pub(crate) sel: [u32; 8],
    pub(crate) limit: [u32; 8],
    pub(crate) idtr_gdtr_limit: [u32; 2],
    pub(crate) base: [u64; 8],
    pub(crate) idtr_gdtr_base: [u64; 2],
    pub(crate) arbytes: [u32; 8],
    /// sysenter_cs, _esp, _eip, shadow_gs, msr_flags, lstar, star, cstar, syscall_mask, efer, tsc_aux.
    pub(crate) msr: [u64; 11],
    pub(crate) tsc: u64,
    pub(crate) pending_event: u32,
    pub(crate) error_code: u32,
    pub(crate) flags: u32,
    pub(crate) pad0: u32,
}
const _: () = assert!(size_of::<hvm_hw_cpu>() == 1032);
const _: () = assert!(offset_of!(hvm_hw_cpu, rip) == 640);
const _: () = assert!(offset_of!(hvm_hw_cpu, sel) == 736);
const _: () = assert!(offset_of!(hvm_hw_cpu, base) == 808);
const _: () = assert!(offset_of!(hvm_hw_cpu, arbytes) == 888);
const _: () = assert!(offset_of!(hvm_hw_cpu, tsc) == 1008);

/// `struct hvm_hw_mtrr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct hvm_hw_mtrr {
    pub(crate) msr_pat_cr: u64,
    pub(crate) msr_mtrr_var: [u64; 16],
    pub(crate) msr_mtrr_fixed: [u64; 11],
    pub(crate) msr_mtrr_cap: u64,
    pub(crate) msr_mtrr_def_type: u64,
}
const _: () = assert!(size_of::<hvm_hw_mtrr>() == 240);
