//! The steps of a creation with their times, and faults that tests inject.

use std::fmt;
use std::time::Instant;

use super::report::{Span, Timeline};

macro_rules! steps {
    (creation { $($variant:ident $name:literal $advice:literal)* }
     others { $($other:ident $other_name:literal $other_advice:literal)* }) => {
        /// A step of a creation, or of a guest's saving and restoring.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum CreateStep {
            $(#[doc = $advice] $variant,)*
            $(#[doc = $other_advice] $other,)*
        }

        impl CreateStep {
            /// All steps of a creation, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The step's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    $(Self::$other => $other_name,)*
                }
            }

            /// Advice for when the step fails.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$variant => $advice,)*
                    $(Self::$other => $other_advice,)*
                }
            }
        }
    };
}

steps! {
    creation {
        Check "check" "look at the configuration"
        Names "names" "see whether xenstored runs (`xenstore-ls /hatch`)"
        Domain "domain" "see `xl info` for free memory, and `xl dmesg`"
        Keys "keys" "see whether xenstored runs, and its quota"
        Memory "memory" "see `xl info`, free_memory; end other guests, or give this one less"
        Rings "rings" "see `dmesg` for xen-privcmd"
        Front "front" "see whether xenstored runs (`xenstore-ls`)"
        Load "load" "see whether the files are still there and whole"
        Context "context" "see `xl dmesg`"
        Port "port" "see whether the bridge exists and xen-netback is loaded (`ip link`, `lsmod`)"
        Connect "connect" "see whether xenstored runs (`xenstore-ls`); on the switch, `hatch switch status`"
        Backend "backend" "see `dmesg` for vif and xen-netback"
        Claim "claim" "perhaps another guest of the same name or MAC address is being made: try again"
        Unpause "unpause" "see `xl dmesg`"
        Finish "finish" "see whether xenstored runs, and `dmesg` for xen-netback"
    }
    others {
        Limits "limits" "see `xl dmesg`"
        Channels "channels" "see `xl dmesg`"
        Suspend "suspend" "see what the guest says on its console, and `xenstore-ls /local/domain/DOMID/control`"
        Pages "pages" "see `xl info` for free memory, and whether the file is whole"
        State "state" "see `xl dmesg`"
        File "file" "see whether there is room for the file (`df`), and who reads it if it is a pipe"
        Remove "remove" "`hatch destroy --force` removes the guest, whose file is complete"
    }
}

impl fmt::Display for CreateStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Runs steps and records their times.
pub(crate) struct CreateSteps {
    /// The prefix by which a test selects these steps.
    kind: &'static str,
    start: Instant,
    timeline: Timeline,
}

impl CreateSteps {
    /// The steps of a guest or a shell that is created from nothing.
    pub(crate) fn new() -> Self {
        Self::of("")
    }

    /// The steps of a shell that becomes a guest.
    pub(crate) fn giving() -> Self {
        Self::of("give ")
    }

    /// The steps of a guest that is saved.
    pub(crate) fn saving() -> Self {
        Self::of("save ")
    }

    /// The steps of a guest that is restored.
    pub(crate) fn restoring() -> Self {
        Self::of("restore ")
    }

    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            start: Instant::now(),
            timeline: Timeline::default(),
        }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs one step.
    pub(crate) fn run<T, E: Into<super::ToolstackError>>(
        &mut self,
        step: CreateStep,
        body: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, super::FailedStep> {
        let start = self.now();
        let result = body();
        self.timeline
            .spans
            .push(Span::new(step.name(), "hatch", start, self.now()));
        let failure = |cause| super::FailedStep { step, cause };
        let value = result.map_err(|error| failure(error.into()))?;
        fault(self.kind, step).map_err(failure)?;
        Ok(value)
    }

    /// Records the work of another process that ends now.
    pub(crate) fn beside(&mut self, what: &'static str, who: &'static str, start: u64) {
        let end = self.now();
        self.timeline.spans.push(Span::new(what, who, start, end));
    }

    pub(crate) fn finish(mut self) -> Timeline {
        self.timeline.total_ns = self.now();
        self.timeline.compare();
        self.timeline
    }
}

/// A fault at the end of a step (`claim`, or `give claim` where a shell becomes a guest), after all of its work:
/// `HATCH_FAIL_AT` makes it return an error, `HATCH_KILL_AT` ends the process as `kill -9` does, and `HATCH_RUN_AT`
/// runs the command of `HATCH_RUN` in the shell.
#[cfg(feature = "faults")]
fn fault(kind: &str, step: CreateStep) -> Result<(), super::ToolstackError> {
    let name = format!("{kind}{step}");
    let is_at = |variable| std::env::var_os(variable).is_some_and(|at| at == *name);
    if is_at("HATCH_RUN_AT")
        && let Some(script) = std::env::var_os("HATCH_RUN")
    {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg(script).status()?;
    }
    if is_at("HATCH_KILL_AT") {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    if is_at("HATCH_FAIL_AT") {
        return Err(super::ToolstackError::Fault);
    }
    Ok(())
}

#[cfg(not(feature = "faults"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail with the feature")]
fn fault(_kind: &str, _step: CreateStep) -> Result<(), super::ToolstackError> {
    Ok(())
}
