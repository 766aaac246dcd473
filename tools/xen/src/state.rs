//! The calls that read a suspended domain's state, put it into a new domain, and resume a suspended one.

use std::io;

use zerocopy::{FromBytes, IntoBytes};

use super::abi;
use super::domctl::{TscMode, Xen};
use super::error::Error;
use super::sys::DATA_MAX;

/// The most bytes of a vCPU's state that are asked for; a domain with one vCPU has some 2.5 KiB, and up to 11 KiB with
/// the registers of AMX.
const CONTEXT_MAX: usize = 64 << 10;
/// The most leaves of CPUID and the most MSRs that are asked for. Xen 4.20 has some 120 and 2.
const LEAVES_MAX: usize = 256;
const MSRS_MAX: usize = 64;
const _: () = assert!(LEAVES_MAX * abi::CPUID_LEAF + MSRS_MAX * abi::MSR_ENTRY <= DATA_MAX);
const _: () = assert!(abi::VCPU_GUEST_CONTEXT <= DATA_MAX);

/// What a domain sees of the CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuPolicy {
    /// The leaves of CPUID: an array of `xen_cpuid_leaf_t`.
    pub leaves: Vec<u8>,
    /// The read-only MSRs: an array of `xen_msr_entry_t`.
    pub msrs: Vec<u8>,
}

/// How a domain reads the time (`xen_domctl_tsc_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TscInfo {
    /// `TSC_MODE_*` (asm-x86/time.h).
    pub mode: u32,
    /// The frequency in kHz.
    pub khz: u32,
    /// The number of times that the domain was restored.
    pub incarnation: u32,
    /// The time since the domain's birth, in ns.
    pub nsec: u64,
}

impl TscInfo {
    /// That of a domain which has seen no time yet.
    pub(super) fn of(mode: TscMode) -> Self {
        Self {
            mode: mode as u32,
            khz: 0,
            incarnation: 0,
            nsec: 0,
        }
    }

    pub(super) fn encode(&self) -> abi::xen_domctl_tsc_info {
        abi::xen_domctl_tsc_info {
            tsc_mode: self.mode,
            gtsc_khz: self.khz,
            incarnation: self.incarnation,
            pad: 0,
            elapsed_nsec: self.nsec,
        }
    }
}

impl Xen {
    /// The state of a domain's vCPU and of its devices, as XEN_DOMCTL_sethvmcontext takes it.
    ///
    /// # Errors
    /// Xen's.
    pub fn context(&mut self, domain: u16) -> Result<Vec<u8>, Error> {
        let call = "XEN_DOMCTL_gethvmcontext";
        let ask = |xen: &mut Self, size: u32, buffer: u64| {
            let argument = abi::xen_domctl_hvmcontext {
                size,
                pad: 0,
                buffer,
            };
            let cmd = abi::XEN_DOMCTL_GETHVMCONTEXT;
            let answer = xen.domctl(call, cmd, domain, argument.as_bytes(), &[])?;
            let answer = abi::xen_domctl_hvmcontext::read_from_prefix(&answer.u);
            Ok::<_, Error>(answer.map_or(0, |(answer, _)| answer.size))
        };
        // Without a buffer, Xen tells the size.
        let size = ask(self, 0, 0)?;
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        if length == 0 || length > CONTEXT_MAX {
            return Err(too_large(call));
        }
        self.make_room(call, length)?;
        let size = ask(self, size, self.privcmd.data_address())?;
        let mut records = vec![0; usize::try_from(size).unwrap_or(0).min(length)];
        self.privcmd.data(&mut records);
        Ok(records)
    }

    /// Sets the state of a domain's vCPU and of its devices.
    ///
    /// # Errors
    /// Xen's; it checks the records.
    pub fn set_context(&mut self, domain: u16, records: &[u8]) -> Result<(), Error> {
        let call = "XEN_DOMCTL_sethvmcontext";
        self.make_room(call, records.len())?;
        let argument = abi::xen_domctl_hvmcontext {
            size: u32::try_from(records.len()).map_err(|_| too_large(call))?,
            pad: 0,
            buffer: self.privcmd.data_address(),
        };
        let cmd = abi::XEN_DOMCTL_SETHVMCONTEXT;
        self.domctl(call, cmd, domain, argument.as_bytes(), records)
            .map(drop)
    }

    /// How a domain reads the time.
    ///
    /// # Errors
    /// Xen's.
    pub fn tsc_info(&mut self, domain: u16) -> Result<TscInfo, Error> {
        let (call, cmd) = ("XEN_DOMCTL_gettscinfo", abi::XEN_DOMCTL_GETTSCINFO);
        let answer = self.domctl(call, cmd, domain, &[], &[])?;
        let info = abi::xen_domctl_tsc_info::read_from_prefix(&answer.u);
        let (info, _) = info.map_err(|_| too_large(call))?;
        Ok(TscInfo {
            mode: info.tsc_mode,
            khz: info.gtsc_khz,
            incarnation: info.incarnation,
            nsec: info.elapsed_nsec,
        })
    }

    /// Sets how a domain reads the time.
    ///
    /// # Errors
    /// Xen's.
    pub fn set_tsc_info(&mut self, domain: u16, info: &TscInfo) -> Result<(), Error> {
        let info = info.encode();
        let (call, cmd) = ("XEN_DOMCTL_settscinfo", abi::XEN_DOMCTL_SETTSCINFO);
        self.domctl(call, cmd, domain, info.as_bytes(), &[])
            .map(drop)
    }

    /// What a domain sees of the CPU.
    ///
    /// # Errors
    /// Xen's.
    pub fn cpu_policy(&mut self, domain: u16) -> Result<CpuPolicy, Error> {
        let call = "XEN_DOMCTL_get_cpu_policy";
        let argument = self.policy(LEAVES_MAX, MSRS_MAX);
        let cmd = abi::XEN_DOMCTL_GET_CPU_POLICY;
        let answer = self.domctl(call, cmd, domain, argument.as_bytes(), &[])?;
        let answer = abi::xen_domctl_cpu_policy::read_from_prefix(&answer.u);
        let (answer, _) = answer.map_err(|_| too_large(call))?;
        let bytes = |count: u32, most: usize, each: usize| {
            usize::try_from(count).unwrap_or(0).min(most) * each
        };
        let mut data = vec![0; LEAVES_MAX * abi::CPUID_LEAF + MSRS_MAX * abi::MSR_ENTRY];
        self.privcmd.data(&mut data);
        let mut msrs = data.split_off(LEAVES_MAX * abi::CPUID_LEAF);
        data.truncate(bytes(answer.nr_leaves, LEAVES_MAX, abi::CPUID_LEAF));
        msrs.truncate(bytes(answer.nr_msrs, MSRS_MAX, abi::MSR_ENTRY));
        Ok(CpuPolicy { leaves: data, msrs })
    }

    /// Sets what a domain that has not run sees of the CPU.
    ///
    /// # Errors
    /// Xen's: this CPU lacks something of it.
    pub fn set_cpu_policy(&mut self, domain: u16, policy: &CpuPolicy) -> Result<(), Error> {
        let call = "XEN_DOMCTL_set_cpu_policy";
        let data = [&policy.leaves[..], &policy.msrs].concat();
        self.make_room(call, data.len())?;
        let argument = self.policy(
            policy.leaves.len() / abi::CPUID_LEAF,
            policy.msrs.len() / abi::MSR_ENTRY,
        );
        let cmd = abi::XEN_DOMCTL_SET_CPU_POLICY;
        self.domctl(call, cmd, domain, argument.as_bytes(), &data)
            .map(drop)
    }

    /// The argument of the calls on policies: so many leaves, and so many MSRs behind them.
    fn policy(&self, leaves: usize, msrs: usize) -> abi::xen_domctl_cpu_policy {
        let data = self.privcmd.data_address();
        abi::xen_domctl_cpu_policy {
            nr_leaves: u32::try_from(leaves).unwrap_or(u32::MAX),
            nr_msrs: u32::try_from(msrs).unwrap_or(u32::MAX),
            leaves: data,
            msrs: data + (leaves * abi::CPUID_LEAF) as u64,
            err: [0; 3],
            pad: 0,
        }
    }

    /// An HVM parameter (hvm/params.h).
    ///
    /// # Errors
    /// Xen's.
    pub fn get_param(&mut self, domain: u16, index: u32) -> Result<u64, Error> {
        let mut argument = abi::xen_hvm_param {
            domid: domain,
            pad: 0,
            index,
            value: 0,
        };
        let command = Some(abi::HVMOP_GET_PARAM);
        self.privcmd
            .hypercall(abi::HVM_OP, command, argument.as_mut_bytes(), &[])
            .map_err(|source| Error::Call {
                call: "HVMOP_get_param",
                source,
            })?;
        Ok(argument.value)
    }

    /// The last gfn at which a domain has a page.
    ///
    /// # Errors
    /// Xen's.
    pub fn last_gfn(&mut self, domain: u16) -> Result<u64, Error> {
        let command = Some(abi::XENMEM_MAXIMUM_GPFN);
        let mut argument = u64::from(domain);
        let last = self
            .privcmd
            .hypercall(abi::MEMORY_OP, command, argument.as_mut_bytes(), &[])
            .map_err(|source| Error::Call {
                call: "XENMEM_maximum_gpfn",
                source,
            })?;
        Ok(u64::try_from(last).unwrap_or(0))
    }

    /// Of `count` gfns from `first` on, those at which a domain has pages of its own: neither holes nor what Xen shares
    /// with it. At most [`Self::OWN_MAX`] at a time.
    ///
    /// # Errors
    /// Xen's.
    pub fn own_pages(&mut self, domain: u16, first: u64, count: usize) -> Result<Vec<u64>, Error> {
        let count = count.min(Self::OWN_MAX);
        let gfns: Vec<u64> = (first..).take(count).collect();
        let argument = abi::xen_domctl_getpageframeinfo3 {
            num: count as u64,
            array: self.privcmd.data_address(),
        };
        let call = "XEN_DOMCTL_getpageframeinfo3";
        let cmd = abi::XEN_DOMCTL_GETPAGEFRAMEINFO3;
        self.domctl(call, cmd, domain, argument.as_bytes(), gfns.as_bytes())?;
        let mut types = vec![0_u64; count];
        self.privcmd.data(types.as_mut_bytes());
        let is_own =
            |kind: u64| kind & abi::XEN_DOMCTL_PFINFO_LTAB_MASK == abi::XEN_DOMCTL_PFINFO_NOTAB;
        let own = gfns
            .into_iter()
            .zip(types)
            .filter(|(_, kind)| is_own(*kind));
        Ok(own.map(|(gfn, _)| gfn).collect())
    }

    /// The most gfns of one call of [`Self::own_pages`].
    pub const OWN_MAX: usize = 1024;

    /// Lets a suspended domain go on, whose suspension was cancelled: SCHEDOP_shutdown returns 1 in it. A domain that
    /// takes no interrupts has no use for that value and finds out by itself, as with libxl.
    ///
    /// # Errors
    /// Xen's.
    pub fn resume(&mut self, domain: u16) -> Result<(), Error> {
        if self.get_param(domain, abi::HVM_PARAM_CALLBACK_IRQ)? != 0 {
            self.return_one(domain)?;
        }
        let (call, cmd) = ("XEN_DOMCTL_resumedomain", abi::XEN_DOMCTL_RESUMEDOMAIN);
        self.domctl(call, cmd, domain, &[], &[]).map(drop)
    }

    /// Makes the hypercall that vCPU 0 of a domain is in return 1.
    fn return_one(&mut self, domain: u16) -> Result<(), Error> {
        let argument = abi::xen_domctl_vcpucontext {
            vcpu: 0,
            pad: 0,
            ctxt: self.privcmd.data_address(),
        };
        let (call, cmd) = ("XEN_DOMCTL_getvcpucontext", abi::XEN_DOMCTL_GETVCPUCONTEXT);
        self.domctl(call, cmd, domain, argument.as_bytes(), &[])?;
        let mut context = vec![0; abi::VCPU_GUEST_CONTEXT];
        self.privcmd.data(&mut context);
        if let Some(rax) = context.get_mut(abi::VCPU_RAX..abi::VCPU_RAX + 8) {
            rax.copy_from_slice(&1_u64.to_le_bytes());
        }
        let (call, cmd) = ("XEN_DOMCTL_setvcpucontext", abi::XEN_DOMCTL_SETVCPUCONTEXT);
        self.domctl(call, cmd, domain, argument.as_bytes(), &context)
            .map(drop)
    }

    /// Has Xen send an event on a port of this domain's, in place of VIRQ_DOM_EXC, when a domain shuts down.
    ///
    /// # Errors
    /// Xen's.
    pub fn subscribe(&mut self, domain: u16, port: u32) -> Result<(), Error> {
        let argument = abi::xen_domctl_subscribe { port };
        let (call, cmd) = ("XEN_DOMCTL_subscribe", abi::XEN_DOMCTL_SUBSCRIBE);
        self.domctl(call, cmd, domain, argument.as_bytes(), &[])
            .map(drop)
    }

    fn make_room(&mut self, call: &'static str, bytes: usize) -> Result<(), Error> {
        self.privcmd
            .make_room(bytes)
            .map_err(|source| Error::Call { call, source })
    }
}

/// The error of an answer that is larger than any known one.
fn too_large(call: &'static str) -> Error {
    Error::Call {
        call,
        source: io::Error::from_raw_os_error(libc::E2BIG),
    }
}
