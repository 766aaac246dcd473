//! Compares `abi` with numbers that a C compiler took from Xen's headers, for each supported version.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

use crate::abi::*;
use crate::interface::Interface;

const GOLDEN: &str = include_str!("../golden.txt");

/// The numbers of one version. Each is removed when it is compared.
struct Golden(RefCell<BTreeMap<&'static str, u64>>);

impl Golden {
    fn of(version: &str) -> Self {
        let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
        let numbers = lines.filter_map(|line| {
            let (name, rest) = line.split_once(" = ").unwrap();
            let mut words = rest.split(' ');
            let value = words.next().unwrap().parse().unwrap();
            let mut versions = words.skip_while(|word| *word == "in").peekable();
            let is_here = versions.peek().is_none() || versions.any(|one| one == version);
            is_here.then_some((name, value))
        });
        Self(RefCell::new(numbers.collect()))
    }

    /// Compares one number.
    fn is(&self, name: &str, ours: impl TryInto<u64>) {
        let theirs = self.0.borrow_mut().remove(name);
        assert_eq!(ours.try_into().ok(), theirs, "{name}");
    }

    fn constants(&self) {
        self.is("__HYPERVISOR_memory_op", MEMORY_OP);
        self.is("__HYPERVISOR_multicall", MULTICALL);
        self.is("__HYPERVISOR_xen_version", XEN_VERSION);
        self.is("__HYPERVISOR_sched_op", SCHED_OP);
        self.is("__HYPERVISOR_event_channel_op", EVENT_CHANNEL_OP);
        self.is("__HYPERVISOR_hvm_op", HVM_OP);
        self.is("__HYPERVISOR_sysctl", SYSCTL);
        self.is("__HYPERVISOR_domctl", DOMCTL);
        self.is("DOMID_FIRST_RESERVED", DOMID_FIRST_RESERVED);
        self.is("XENVER_version", XENVER_VERSION);
        self.is("XENMEM_populate_physmap", XENMEM_POPULATE_PHYSMAP);
        self.is("XENMEM_set_memory_map", XENMEM_SET_MEMORY_MAP);
        self.is("XENMEM_resource_grant_table", XENMEM_RESOURCE_GRANT_TABLE);
        self.is("XENMEM_maximum_gpfn", XENMEM_MAXIMUM_GPFN);
        let shared = XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED;
        self.is("XENMEM_resource_grant_table_id_shared", shared);
        self.is("EVTCHNOP_alloc_unbound", EVTCHNOP_ALLOC_UNBOUND);
        self.is("SCHEDOP_remote_shutdown", SCHEDOP_REMOTE_SHUTDOWN);
        self.is("HVMOP_set_param", HVMOP_SET_PARAM);
        self.is("HVMOP_get_param", HVMOP_GET_PARAM);
        self.is("HVM_PARAM_CALLBACK_IRQ", HVM_PARAM_CALLBACK_IRQ);
        self.is("XEN_DOMCTL_createdomain", XEN_DOMCTL_CREATEDOMAIN);
        self.is("XEN_DOMCTL_destroydomain", XEN_DOMCTL_DESTROYDOMAIN);
        self.is("XEN_DOMCTL_pausedomain", XEN_DOMCTL_PAUSEDOMAIN);
        self.is("XEN_DOMCTL_unpausedomain", XEN_DOMCTL_UNPAUSEDOMAIN);
        self.is("XEN_DOMCTL_getdomaininfo", XEN_DOMCTL_GETDOMAININFO);
        self.is("XEN_DOMCTL_max_mem", XEN_DOMCTL_MAX_MEM);
        self.is("XEN_DOMCTL_setvcpucontext", XEN_DOMCTL_SETVCPUCONTEXT);
        self.is("XEN_DOMCTL_getvcpucontext", XEN_DOMCTL_GETVCPUCONTEXT);
        self.is("XEN_DOMCTL_max_vcpus", XEN_DOMCTL_MAX_VCPUS);
        self.is("XEN_DOMCTL_resumedomain", XEN_DOMCTL_RESUMEDOMAIN);
        self.is("XEN_DOMCTL_subscribe", XEN_DOMCTL_SUBSCRIBE);
        self.is("XEN_DOMCTL_gethvmcontext", XEN_DOMCTL_GETHVMCONTEXT);
        self.is("XEN_DOMCTL_gettscinfo", XEN_DOMCTL_GETTSCINFO);
        let types = XEN_DOMCTL_GETPAGEFRAMEINFO3;
        self.is("XEN_DOMCTL_getpageframeinfo3", types);
        self.is("XEN_DOMCTL_get_cpu_policy", XEN_DOMCTL_GET_CPU_POLICY);
        self.is("XEN_DOMCTL_set_cpu_policy", XEN_DOMCTL_SET_CPU_POLICY);
        let mask = XEN_DOMCTL_PFINFO_LTAB_MASK;
        self.is("XEN_DOMCTL_PFINFO_LTAB_MASK", mask);
        self.is("XEN_DOMCTL_PFINFO_NOTAB", XEN_DOMCTL_PFINFO_NOTAB);
        self.is("sizeof(xen_cpuid_leaf_t)", CPUID_LEAF);
        self.is("sizeof(xen_msr_entry_t)", MSR_ENTRY);
        self.is("struct vcpu_guest_context", VCPU_GUEST_CONTEXT);
        self.is("struct vcpu_guest_context . user_regs.rax", VCPU_RAX);
        self.is("struct vcpu_guest_context . user_regs.rip", VCPU_RIP);
        self.is("XEN_DOMCTL_sethvmcontext", XEN_DOMCTL_SETHVMCONTEXT);
        self.is("XEN_DOMCTL_settscinfo", XEN_DOMCTL_SETTSCINFO);
        let mempool = XEN_DOMCTL_SET_PAGING_MEMPOOL_SIZE;
        self.is("XEN_DOMCTL_set_paging_mempool_size", mempool);
        self.is("XEN_DOMCTL_CDF_hvm", XEN_DOMCTL_CDF_HVM);
        self.is("XEN_DOMCTL_CDF_hap", XEN_DOMCTL_CDF_HAP);
        self.is("XEN_X86_EMU_LAPIC", XEN_X86_EMU_LAPIC);
        self.is("XEN_DOMINF_dying", XEN_DOMINF_DYING);
        self.is("XEN_DOMINF_shutdown", XEN_DOMINF_SHUTDOWN);
        self.is("XEN_DOMINF_paused", XEN_DOMINF_PAUSED);
        self.is("XEN_DOMINF_blocked", XEN_DOMINF_BLOCKED);
        self.is("XEN_DOMINF_running", XEN_DOMINF_RUNNING);
        self.is("XEN_DOMINF_shutdownshift", XEN_DOMINF_SHUTDOWNSHIFT);
        let sysctl = XEN_SYSCTL_INTERFACE_VERSION;
        self.is("XEN_SYSCTL_INTERFACE_VERSION", sysctl);
        let list = XEN_SYSCTL_GETDOMAININFOLIST;
        self.is("XEN_SYSCTL_getdomaininfolist", list);
        self.is("XEN_SYSCTL_physinfo", XEN_SYSCTL_PHYSINFO);
        self.is("HVM_FILE_MAGIC", HVM_FILE_MAGIC);
        self.is("HVM_FILE_VERSION", HVM_FILE_VERSION);
        self.is("HVM_SAVE_CODE(END)", HVM_SAVE_CODE_END);
        self.is("HVM_SAVE_CODE(HEADER)", HVM_SAVE_CODE_HEADER);
        self.is("HVM_SAVE_CODE(CPU)", HVM_SAVE_CODE_CPU);
        self.is("HVM_SAVE_CODE(MTRR)", HVM_SAVE_CODE_MTRR);
    }
}

/// Compares the size of a struct, under the header's name, and the offsets of its fields. A field with another name is
/// given as `header's name: offset`.
macro_rules! compare {
    ($golden:expr, $name:literal, $ours:ty, [$($field:ident),*] $(, { $($theirs:literal: $offset:expr),* })?) => {{
        $golden.is(concat!("struct ", $name), size_of::<$ours>());
        compare!(@fields $golden, $name, $ours, [$($field),*] $(, { $($theirs: $offset),* })?);
    }};
    (@fields $golden:expr, $name:literal, $ours:ty, [$($field:ident),*] $(, { $($theirs:literal: $offset:expr),* })?) => {{
        $($golden.is(concat!("struct ", $name, " . ", stringify!($field)), offset_of!($ours, $field));)*
        $($($golden.is(concat!("struct ", $name, " . ", $theirs), $offset);)*)?
    }};
}

fn arguments(golden: &Golden) {
    compare!(
        golden,
        "xen_memory_reservation",
        xen_memory_reservation,
        [extent_start, nr_extents, extent_order, mem_flags, domid]
    );
    compare!(golden, "xen_foreign_memory_map", xen_foreign_memory_map, [domid], {
        "map.nr_entries": offset_of!(xen_foreign_memory_map, nr_entries),
        "map.buffer": offset_of!(xen_foreign_memory_map, buffer)
    });
    compare!(
        golden,
        "evtchn_alloc_unbound",
        evtchn_alloc_unbound,
        [dom, remote_dom, port]
    );
    compare!(
        golden,
        "sched_remote_shutdown",
        sched_remote_shutdown,
        [domain_id, reason]
    );
    compare!(
        golden,
        "xen_hvm_param",
        xen_hvm_param,
        [domid, index, value]
    );
    compare!(
        golden,
        "xen_domctl_getpageframeinfo3",
        xen_domctl_getpageframeinfo3,
        [num, array]
    );
    compare!(golden, "xen_domctl_subscribe", xen_domctl_subscribe, [port]);
    compare!(
        golden,
        "xen_domctl_cpu_policy",
        xen_domctl_cpu_policy,
        [nr_leaves, nr_msrs, leaves, msrs]
    );
    compare!(
        golden,
        "xen_domctl",
        xen_domctl,
        [cmd, interface_version, domain, u]
    );
    compare!(
        golden,
        "xen_arch_domainconfig",
        xen_arch_domainconfig,
        [emulation_flags, misc_flags]
    );
    compare!(
        golden,
        "xen_domctl_vcpucontext",
        xen_domctl_vcpucontext,
        [vcpu, ctxt]
    );
    compare!(
        golden,
        "xen_domctl_getdomaininfo",
        xen_domctl_getdomaininfo,
        [
            domain,
            flags,
            tot_pages,
            max_pages,
            outstanding_pages,
            shr_pages,
            paged_pages,
            shared_info_frame,
            cpu_time,
            nr_online_vcpus,
            max_vcpu_id,
            ssidref,
            handle,
            cpupool,
            gpaddr_bits,
            arch_config
        ]
    );
    compare!(
        golden,
        "xen_domctl_tsc_info",
        xen_domctl_tsc_info,
        [tsc_mode, gtsc_khz, incarnation, elapsed_nsec]
    );
    compare!(
        golden,
        "xen_domctl_hvmcontext",
        xen_domctl_hvmcontext,
        [size, buffer]
    );
    golden.is("struct xen_sysctl", size_of::<xen_sysctl_physinfo>());
    assert_eq!(
        size_of::<xen_sysctl_getdomaininfolist>(),
        size_of::<xen_sysctl_physinfo>()
    );
    compare!(@fields golden, "xen_sysctl", xen_sysctl_getdomaininfolist, [], {
        "u.getdomaininfolist.first_domain": offset_of!(xen_sysctl_getdomaininfolist, first_domain),
        "u.getdomaininfolist.max_domains": offset_of!(xen_sysctl_getdomaininfolist, max_domains),
        "u.getdomaininfolist.buffer": offset_of!(xen_sysctl_getdomaininfolist, buffer),
        "u.getdomaininfolist.num_domains": offset_of!(xen_sysctl_getdomaininfolist, num_domains),
        "u.physinfo.total_pages": offset_of!(xen_sysctl_physinfo, total_pages),
        "u.physinfo.free_pages": offset_of!(xen_sysctl_physinfo, free_pages),
        "u.physinfo.scrub_pages": offset_of!(xen_sysctl_physinfo, scrub_pages)
    });
}

/// Compares the records of a vCPU's initial state. Registers that are always 0 are arrays here, of which the first and
/// the last are compared.
fn context(golden: &Golden) {
    compare!(
        golden,
        "hvm_save_descriptor",
        hvm_save_descriptor,
        [typecode, instance, length]
    );
    compare!(
        golden,
        "hvm_save_header",
        hvm_save_header,
        [magic, version, changeset, cpuid, gtsc_khz]
    );
    let others = offset_of!(hvm_hw_cpu, others);
    let msr = offset_of!(hvm_hw_cpu, msr);
    compare!(golden, "hvm_hw_cpu", hvm_hw_cpu, [
        fpu_regs, rax, rbx, rip, rflags, cr0, cr2, cr3, cr4, dr6, dr7, tsc, pending_event, error_code, flags
    ], {
        "rcx": others,
        "r15": others + 13 * 8,
        "dr0": offset_of!(hvm_hw_cpu, dr0_to_dr3),
        "cs_sel": offset_of!(hvm_hw_cpu, sel),
        "ldtr_sel": offset_of!(hvm_hw_cpu, sel) + 7 * 4,
        "cs_limit": offset_of!(hvm_hw_cpu, limit),
        "idtr_limit": offset_of!(hvm_hw_cpu, idtr_gdtr_limit),
        "cs_base": offset_of!(hvm_hw_cpu, base),
        "idtr_base": offset_of!(hvm_hw_cpu, idtr_gdtr_base),
        "cs_arbytes": offset_of!(hvm_hw_cpu, arbytes),
        "sysenter_cs": msr,
        "msr_efer": msr + 9 * 8,
        "msr_tsc_aux": msr + 10 * 8
    });
    compare!(
        golden,
        "hvm_hw_mtrr",
        hvm_hw_mtrr,
        [
            msr_pat_cr,
            msr_mtrr_var,
            msr_mtrr_fixed,
            msr_mtrr_cap,
            msr_mtrr_def_type
        ]
    );
}

#[test]
fn numbers_and_layouts_are_those_of_each_version() {
    for minor in 17..=20 {
        let golden = Golden::of(&format!("4.{minor}"));
        golden.constants();
        arguments(&golden);
        context(&golden);
        let interface = Interface::of(4, minor).unwrap();
        golden.is("XEN_DOMCTL_INTERFACE_VERSION", interface.domctl);
        if interface.altp2m_opts {
            compare!(
                golden,
                "xen_domctl_createdomain",
                xen_domctl_createdomain_4_19,
                [
                    ssidref,
                    handle,
                    flags,
                    iommu_opts,
                    max_vcpus,
                    max_evtchn_port,
                    max_grant_frames,
                    max_maptrack_frames,
                    grant_opts,
                    altp2m_opts,
                    vmtrace_size,
                    cpupool_id,
                    arch
                ]
            );
        } else {
            compare!(
                golden,
                "xen_domctl_createdomain",
                xen_domctl_createdomain,
                [
                    ssidref,
                    handle,
                    flags,
                    iommu_opts,
                    max_vcpus,
                    max_evtchn_port,
                    max_grant_frames,
                    max_maptrack_frames,
                    grant_opts,
                    vmtrace_size,
                    cpupool_id,
                    arch
                ]
            );
        }
        let left = golden.0.take();
        assert!(left.is_empty(), "not compared: {left:?}");
    }
    for (major, minor) in [(4, 16), (4, 21), (5, 17), (0, 0)] {
        assert_eq!(Interface::of(major, minor), None);
    }
}
