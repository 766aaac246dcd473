//! The new domain of a guest that was suspended.

use super::{EINVAL, Machine, Remote};
use crate::{Errno, SharedPage};

impl Machine {
    /// Puts the guest into a new domain: an empty grant table, which the guest has not mapped yet, and no event channel
    /// but the console's. As the last one, it gets the first free number.
    pub(in crate::fake) fn renew(&mut self) {
        for index in 0..self.grant_frames.len() {
            self.grant_frames[index] = self.own_page();
        }
        self.mapped.clear();
        self.raised.clear();
        self.ports = std::vec![None];
        self.console_port = self.open_port(Remote::Console).expect("the first port");
        self.console.zero();
    }

    pub(in crate::fake) fn map_grant_frame(
        &mut self,
        index: u32,
        page: &SharedPage,
    ) -> Result<(), Errno> {
        let frame = self.grant_frames.get_mut(index as usize).ok_or(EINVAL)?;
        page.zero();
        *frame = page.alias();
        Ok(())
    }
}
