//! Calls about a domain that is being made, in one hypercall.
//!
//! Each entry into the kernel and into Xen costs more than most of these calls themselves, so they are made together
//! (`__HYPERVISOR_multicall`, xen.h). Xen carries out all of them, those after a failed one as well.

use std::io;
use std::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use super::abi::{self, PAGE_SIZE};
use super::context;
use super::domctl::{MapEntry, TscMode, Xen};
use super::error::Error;
use super::state::TscInfo;

/// The size of `struct multicall_entry` (xen.h): op, result, six arguments.
const ENTRY: usize = 64;

/// A call about a domain that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainCall<'a> {
    /// Sets the number of vCPUs.
    MaxVcpus(u32),
    /// Sets the memory limit, in KiB.
    MaxMem(u64),
    /// Sets the behaviour of RDTSC.
    TscMode(TscMode),
    /// Allocates memory at these gfns, each of which is the first of 2^`order` pages. The answer is the number of
    /// extents that were allocated; fewer than wanted are an error only with order 0.
    Populate {
        /// The gfns.
        gfns: &'a [u64],
        /// The order of the extents.
        order: u32,
    },
    /// Sets the memory map that XENMEM_memory_map gives to the guest.
    MemoryMap(&'a [MapEntry]),
    /// Allocates an event channel that dom0 may bind to. The answer is the domain's port.
    EventChannel,
    /// Sets the parameter of this number (hvm/params.h) to this value.
    Param(u32, u64),
    /// Sets the initial PVH state of vCPU 0 (docs/misc/pvh.pandoc).
    PvhContext {
        /// The address of its first instruction.
        entry: u32,
        /// The address of the start info, which it finds in EBX.
        start_info: u32,
    },
}

impl DomainCall<'_> {
    /// Its name in Xen's headers.
    fn name(&self) -> &'static str {
        match self {
            Self::MaxVcpus(_) => "XEN_DOMCTL_max_vcpus",
            Self::MaxMem(_) => "XEN_DOMCTL_max_mem",
            Self::TscMode(_) => "XEN_DOMCTL_settscinfo",
            Self::Populate { .. } => "XENMEM_populate_physmap",
            Self::MemoryMap(_) => "XENMEM_set_memory_map",
            Self::EventChannel => "EVTCHNOP_alloc_unbound",
            Self::Param(..) => "HVMOP_set_param",
            Self::PvhContext { .. } => "XEN_DOMCTL_sethvmcontext",
        }
    }

    /// The answer to it, from what Xen left.
    fn answer(&self, result: i64, argument: &[u8]) -> Result<u64, Error> {
        let error = |number: i32| Error::Call {
            call: self.name(),
            source: io::Error::from_raw_os_error(number),
        };
        let result = u64::try_from(result)
            .map_err(|_| error(i32::try_from(result.saturating_neg()).unwrap_or(libc::EIO)))?;
        match self {
            Self::Populate { gfns, order: 0 } if result < gfns.len() as u64 => {
                Err(error(libc::ENOMEM))
            }
            Self::EventChannel => {
                let made = abi::evtchn_alloc_unbound::read_from_prefix(argument);
                Ok(made.map_or(0, |(made, _)| u64::from(made.port)))
            }
            _ => Ok(result),
        }
    }
}

impl Xen {
    /// Makes these calls about a domain, in this order, in one hypercall. Returns their answers, which are 0 where
    /// nothing else is said.
    ///
    /// # Errors
    /// That of the first call that failed. Those after it were made nevertheless.
    pub fn batch(&mut self, domain: u16, calls: &[DomainCall<'_>]) -> Result<Vec<u64>, Error> {
        let mut list = List::new(calls.len());
        for call in calls {
            self.add(&mut list, domain, call);
        }
        let List {
            mut bytes,
            arguments,
            pointers,
        } = list;
        let done = self.privcmd.multicall(calls.len(), bytes.len(), |address| {
            relocate(&mut bytes, &pointers, address);
            bytes
        });
        let done = done.map_err(|source| Error::Call {
            call: "multicall",
            source,
        })?;
        let answers = calls.iter().zip(arguments).enumerate();
        answers
            .map(|(number, (call, argument))| {
                call.answer(
                    result(&done, number),
                    done.get(argument..).unwrap_or_default(),
                )
            })
            .collect()
    }

    /// Adds a call to the list.
    fn add(&self, list: &mut List, domain: u16, call: &DomainCall<'_>) {
        let domctl = |cmd, u: &[u8]| self.domctl_argument(cmd, domain, u);
        match *call {
            DomainCall::MaxVcpus(vcpus) => {
                let argument = domctl(abi::XEN_DOMCTL_MAX_VCPUS, vcpus.as_bytes());
                list.add(abi::DOMCTL, None, argument.as_bytes());
            }
            DomainCall::MaxMem(kib) => {
                let argument = domctl(abi::XEN_DOMCTL_MAX_MEM, kib.as_bytes());
                list.add(abi::DOMCTL, None, argument.as_bytes());
            }
            DomainCall::TscMode(mode) => {
                let info = TscInfo::of(mode).encode();
                let argument = domctl(abi::XEN_DOMCTL_SETTSCINFO, info.as_bytes());
                list.add(abi::DOMCTL, None, argument.as_bytes());
            }
            DomainCall::Populate { gfns, order } => {
                let argument = abi::xen_memory_reservation {
                    extent_start: 0,
                    nr_extents: gfns.len() as u64,
                    extent_order: order,
                    mem_flags: 0,
                    domid: domain,
                    pad: [0; 3],
                };
                let command = Some(abi::XENMEM_POPULATE_PHYSMAP);
                let at = list.add(abi::MEMORY_OP, command, argument.as_bytes());
                let pointer = offset_of!(abi::xen_memory_reservation, extent_start);
                list.point(at + pointer, gfns.as_bytes());
            }
            DomainCall::MemoryMap(entries) => {
                let argument = abi::xen_foreign_memory_map {
                    domid: domain,
                    pad: [0; 3],
                    nr_entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                    pad2: 0,
                    buffer: 0,
                };
                let command = Some(abi::XENMEM_SET_MEMORY_MAP);
                let at = list.add(abi::MEMORY_OP, command, argument.as_bytes());
                let pointer = offset_of!(abi::xen_foreign_memory_map, buffer);
                list.point(at + pointer, &memory_map(entries));
            }
            DomainCall::EventChannel => {
                let argument = abi::evtchn_alloc_unbound {
                    dom: domain,
                    remote_dom: 0,
                    port: 0,
                };
                let command = Some(abi::EVTCHNOP_ALLOC_UNBOUND);
                list.add(abi::EVENT_CHANNEL_OP, command, argument.as_bytes());
            }
            DomainCall::Param(index, value) => {
                let argument = abi::xen_hvm_param {
                    domid: domain,
                    pad: 0,
                    index,
                    value,
                };
                list.add(abi::HVM_OP, Some(abi::HVMOP_SET_PARAM), argument.as_bytes());
            }
            DomainCall::PvhContext { entry, start_info } => {
                let records = context::records(entry, start_info);
                let context = abi::xen_domctl_hvmcontext {
                    size: u32::try_from(records.len()).unwrap_or(u32::MAX),
                    pad: 0,
                    buffer: 0,
                };
                let argument = domctl(abi::XEN_DOMCTL_SETHVMCONTEXT, context.as_bytes());
                let at = list.add(abi::DOMCTL, None, argument.as_bytes());
                let pointer =
                    offset_of!(abi::xen_domctl, u) + offset_of!(abi::xen_domctl_hvmcontext, buffer);
                list.point(at + pointer, &records);
            }
        }
    }
}

/// A list of hypercalls as it lies in memory: an entry for each, and behind them the arguments with their data. Addresses
/// in it count from its start until [`relocate`].
struct List {
    bytes: Vec<u8>,
    /// The place of each call's argument.
    arguments: Vec<usize>,
    /// The places of addresses.
    pointers: Vec<usize>,
}

impl List {
    /// A list with room for so many calls.
    fn new(count: usize) -> Self {
        let mut bytes = Vec::with_capacity(PAGE_SIZE);
        bytes.resize(count * ENTRY, 0);
        Self {
            bytes,
            arguments: Vec::with_capacity(count),
            pointers: Vec::with_capacity(2 * count),
        }
    }

    /// Adds a call: its number, its command, if it takes one, and its argument. Returns the argument's place.
    fn add(&mut self, op: u64, command: Option<u64>, argument: &[u8]) -> usize {
        let at = self.push(argument);
        let entry = self.arguments.len() * ENTRY;
        self.arguments.push(at);
        // op, result, args.
        self.put(entry, op);
        let args = entry + 2 * size_of::<u64>();
        let pointer = match command {
            Some(command) => {
                self.put(args, command);
                args + size_of::<u64>()
            }
            None => args,
        };
        self.put(pointer, at as u64);
        self.pointers.push(pointer);
        at
    }

    /// Adds data to which the last argument points, at this place.
    fn point(&mut self, pointer: usize, data: &[u8]) {
        let at = self.push(data);
        self.put(pointer, at as u64);
        self.pointers.push(pointer);
    }

    fn push(&mut self, bytes: &[u8]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        let end = self.bytes.len().next_multiple_of(size_of::<u64>());
        self.bytes.resize(end, 0);
        at
    }

    fn put(&mut self, at: usize, value: u64) {
        if let Some(place) = word(&mut self.bytes, at) {
            *place = value.to_ne_bytes();
        }
    }
}

fn word(bytes: &mut [u8], at: usize) -> Option<&mut [u8; 8]> {
    bytes.get_mut(at..)?.first_chunk_mut()
}

/// Makes a list ready to lie at this address.
fn relocate(bytes: &mut [u8], pointers: &[usize], address: u64) {
    for at in pointers {
        if let Some(place) = word(bytes, *at) {
            *place = (address + u64::from_ne_bytes(*place)).to_ne_bytes();
        }
    }
}

/// The result of a call, negative for an error, in a list as Xen left it.
fn result(done: &[u8], number: usize) -> i64 {
    let at = number * ENTRY + size_of::<u64>();
    let result = done.get(at..).and_then(|rest| rest.first_chunk());
    result.map_or(i64::MIN, |result| i64::from_ne_bytes(*result))
}

/// The entries of a memory map as `struct e820entry`.
fn memory_map(entries: &[MapEntry]) -> Vec<u8> {
    let mut data = Vec::with_capacity(entries.len() * abi::E820_ENTRY);
    for entry in entries {
        data.extend_from_slice(&entry.start.to_ne_bytes());
        data.extend_from_slice(&entry.size.to_ne_bytes());
        data.extend_from_slice(&entry.kind.to_ne_bytes());
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_xens_result_or_error() {
        let gfns = [0, 512];
        let populate = |order| DomainCall::Populate { gfns: &gfns, order };
        assert_eq!(populate(9).answer(1, &[]).unwrap(), 1);
        assert_eq!(populate(0).answer(2, &[]).unwrap(), 2);
        let error = populate(0).answer(1, &[]).unwrap_err();
        assert!(error.to_string().contains("no free memory"), "{error}");
        let error = DomainCall::MaxMem(1).answer(-3, &[]).unwrap_err();
        assert!(error.is_no_such_domain(), "{error}");
        let made = abi::evtchn_alloc_unbound {
            dom: 7,
            remote_dom: 0,
            port: 4,
        };
        let answer = DomainCall::EventChannel.answer(0, made.as_bytes());
        assert_eq!(answer.unwrap(), 4);
    }

    #[test]
    fn each_call_points_to_its_own() {
        let mut list = List::new(2);
        list.add(7, Some(6), &[1; 12]);
        let second = list.add(36, None, &[2; 16]);
        list.point(second + 8, &[3; 5]);
        let List {
            mut bytes,
            arguments,
            pointers,
        } = list;
        relocate(&mut bytes, &pointers, 0x1000);
        let word = |bytes: &[u8], at: usize| {
            usize::try_from(u64::from_ne_bytes(*bytes[at..].first_chunk().unwrap())).unwrap()
        };
        assert_eq!([0, 16].map(|at| word(&bytes, at)), [7, 6]);
        let argument = word(&bytes, 24) - 0x1000;
        assert_eq!(argument, arguments[0]);
        assert_eq!(bytes[argument..argument + 12], [1; 12]);
        assert_eq!(word(&bytes, ENTRY), 36);
        let argument = word(&bytes, ENTRY + 16) - 0x1000;
        assert_eq!(argument, arguments[1]);
        assert_eq!(bytes[argument..argument + 8], [2; 8]);
        let data = word(&bytes, argument + 8) - 0x1000;
        assert_eq!(bytes[data..data + 5], [3; 5]);
        assert!(data > argument && data + 5 <= bytes.len());
        // What Xen leaves.
        bytes[ENTRY + 8..ENTRY + 16].copy_from_slice(&(-22_i64).to_ne_bytes());
        assert_eq!([0, 1].map(|number| result(&bytes, number)), [0, -22]);
    }
}
