//! `/.mayfly/boot`, as JSON.

use core::fmt;

use super::Report;
use crate::timeline::JsonMembers;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts.get();
        write!(
            f,
            "{{{},\"counters\":{{\"slept_tsc\":{},\"hypercalls_to_first_tx\":{},\
             \"xenstore_requests\":{},\"xenstore_round_trips\":{}}},\"dropped\":{{",
            JsonMembers(self.line()),
            facts.slept_tsc,
            facts.hypercalls_to_first_tx,
            facts.xenstore_requests,
            facts.xenstore_round_trips,
        )?;
        for (i, (cause, count)) in self.drops().into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}\"{cause}\":{count}")?;
        }
        f.write_str("}}\n")
    }
}
