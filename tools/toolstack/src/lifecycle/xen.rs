//! Xen's calls on suspended domains, as a trait. Tests implement it.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use mayfly_xen::{CpuPolicy, Error, Evtchn, TscInfo, Xen};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A suspend event channel: the guest suspends when it is notified, and Xen sends an event when it has.
pub trait SuspendSignal {
    /// Asks the guest to suspend.
    ///
    /// # Errors
    /// The kernel's.
    fn notify(&mut self) -> io::Result<()>;

    /// Waits until an event comes, and at most so long.
    ///
    /// # Errors
    /// The kernel's.
    fn wait(&mut self, bound: Duration) -> io::Result<()>;
}

/// Xen's calls that read the state of a suspended domain, set that of a new one, and let a suspended one go on.
/// [`mayfly_xen::Xen`] describes each call in more detail.
pub trait Suspended {
    /// The version of Xen, as major and minor number.
    fn version(&self) -> (u32, u32);

    /// The state of the domain's vCPU.
    ///
    /// # Errors
    /// Xen's.
    fn context(&mut self, domain: u16) -> Result<Vec<u8>, Error>;

    /// Sets the state of the domain's vCPU.
    ///
    /// # Errors
    /// Xen's.
    fn set_context(&mut self, domain: u16, records: &[u8]) -> Result<(), Error>;

    /// How the domain reads the time.
    ///
    /// # Errors
    /// Xen's.
    fn tsc_info(&mut self, domain: u16) -> Result<TscInfo, Error>;

    /// Sets how the domain reads the time.
    ///
    /// # Errors
    /// Xen's.
    fn set_tsc_info(&mut self, domain: u16, info: &TscInfo) -> Result<(), Error>;

    /// What the domain sees of the CPU.
    ///
    /// # Errors
    /// Xen's.
    fn cpu_policy(&mut self, domain: u16) -> Result<CpuPolicy, Error>;

    /// Sets what the domain sees of the CPU.
    ///
    /// # Errors
    /// Xen's.
    fn set_cpu_policy(&mut self, domain: u16, policy: &CpuPolicy) -> Result<(), Error>;

    /// An `HVM_PARAM_*` of the domain.
    ///
    /// # Errors
    /// Xen's.
    fn get_param(&mut self, domain: u16, index: u32) -> Result<u64, Error>;

    /// The last gfn at which the domain has a page.
    ///
    /// # Errors
    /// Xen's.
    fn last_gfn(&mut self, domain: u16) -> Result<u64, Error>;

    /// The gfns at which the domain has pages of its own, out of `count` gfns from `first` on, at most
    /// [`Xen::OWN_MAX`].
    ///
    /// # Errors
    /// Xen's.
    fn own_pages(&mut self, domain: u16, first: u64, count: usize) -> Result<Vec<u64>, Error>;

    /// Lets a suspended domain go on.
    ///
    /// # Errors
    /// Xen's.
    fn resume(&mut self, domain: u16) -> Result<(), Error>;

    /// Binds to the port by which the domain is asked to suspend, and has Xen send an event on it when the domain shuts
    /// down.
    ///
    /// # Errors
    /// There is no such port.
    fn suspend_signal(&mut self, domain: u16, port: u32) -> io::Result<Box<dyn SuspendSignal>>;
}

/// A port that is bound to a suspend event channel.
struct BoundPort {
    evtchn: Evtchn,
    port: u32,
}

impl BoundPort {
    /// Takes the events that have come.
    fn take(&self) -> io::Result<()> {
        self.evtchn.take(|_| {})?;
        self.evtchn.unmask(&[self.port])
    }
}

impl SuspendSignal for BoundPort {
    fn notify(&mut self) -> io::Result<()> {
        self.evtchn.notify(self.port)
    }

    fn wait(&mut self, bound: Duration) -> io::Result<()> {
        let bound = Timespec::try_from(bound).map_err(io::Error::other)?;
        let mut polled = [PollFd::from_borrowed_fd(self.evtchn.as_fd(), PollFlags::IN)];
        match poll(&mut polled, Some(&bound)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => self.take(),
            Err(error) => Err(error.into()),
        }
    }
}

impl Suspended for Xen {
    fn version(&self) -> (u32, u32) {
        Self::version(self)
    }

    fn context(&mut self, domain: u16) -> Result<Vec<u8>, Error> {
        Self::context(self, domain)
    }

    fn set_context(&mut self, domain: u16, records: &[u8]) -> Result<(), Error> {
        Self::set_context(self, domain, records)
    }

    fn tsc_info(&mut self, domain: u16) -> Result<TscInfo, Error> {
        Self::tsc_info(self, domain)
    }

    fn set_tsc_info(&mut self, domain: u16, info: &TscInfo) -> Result<(), Error> {
        Self::set_tsc_info(self, domain, info)
    }

    fn cpu_policy(&mut self, domain: u16) -> Result<CpuPolicy, Error> {
        Self::cpu_policy(self, domain)
    }

    fn set_cpu_policy(&mut self, domain: u16, policy: &CpuPolicy) -> Result<(), Error> {
        Self::set_cpu_policy(self, domain, policy)
    }

    fn get_param(&mut self, domain: u16, index: u32) -> Result<u64, Error> {
        Self::get_param(self, domain, index)
    }

    fn last_gfn(&mut self, domain: u16) -> Result<u64, Error> {
        Self::last_gfn(self, domain)
    }

    fn own_pages(&mut self, domain: u16, first: u64, count: usize) -> Result<Vec<u64>, Error> {
        Self::own_pages(self, domain, first, count)
    }

    fn resume(&mut self, domain: u16) -> Result<(), Error> {
        Self::resume(self, domain)
    }

    fn suspend_signal(&mut self, domain: u16, port: u32) -> io::Result<Box<dyn SuspendSignal>> {
        let evtchn = Evtchn::open()?;
        let local = evtchn.bind(domain, port)?;
        let bound = BoundPort {
            evtchn,
            port: local,
        };
        // Xen raises each port when it is bound.
        bound.take()?;
        // Xen sends the event from the domain's end, whose port it has to be told.
        self.subscribe(domain, port).map_err(io::Error::other)?;
        Ok(Box::new(bound))
    }
}
