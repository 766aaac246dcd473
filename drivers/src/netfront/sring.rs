//! A shared ring page: its initialisation, and its two indices as a front end sees them.
//!
//! Source: Xen 4.17 public/io/ring.h.

use super::types::{LinkError, RingError};
use crate::abi::sring;
use crate::grant::{Access, GrantTable};
use crate::{DomId, GrantRef, Hypervisor, SharedPage};

/// A page and its grant.
pub(super) type Granted = (SharedPage, GrantRef);

pub(super) fn grant_page<H: Hypervisor>(
    xen: &H,
    grants: &mut GrantTable,
    domain: DomId,
    scrub: bool,
) -> Result<Granted, LinkError> {
    let page = xen.alloc_page().ok_or(LinkError::NoMemory)?;
    if scrub {
        page.zero();
    }
    match grants.grant(xen, domain, &page, Access::ReadWrite) {
        Ok(grant) => Ok((page, grant)),
        Err(error) => {
            xen.free_page(page);
            Err(LinkError::Grant(error))
        }
    }
}

/// Makes a ring of a fresh page.
///
/// `req_event` is 0 where SHARED_RING_INIT has 1: the back end always looks at
/// the ring when it connects and then writes the index at which it wants to be
/// notified. Until then a notification would be a hypercall for nothing.
/// `rsp_event` is 1 on both rings: the first response says that frames move.
pub(super) fn start_ring(page: &SharedPage) {
    // The entries count only once an index covers them.
    for offset in (0..sring::RING).step_by(8) {
        page.store64(offset, 0);
    }
    page.store_release(sring::RSP_EVENT, 1);
}

/// Publishes requests up to `prod`. Returns whether the back end asked for a notification.
#[inline]
pub(super) fn push(page: &SharedPage, published: &mut u32, prod: u32) -> bool {
    let old = *published;
    if old == prod {
        return false;
    }
    page.store_fence(sring::REQ_PROD, prod);
    *published = prod;
    // RING_PUSH_REQUESTS_AND_CHECK_NOTIFY: was req_event passed by this push?
    let event = page.load_acquire(sring::REQ_EVENT);
    prod.wrapping_sub(event) < prod.wrapping_sub(old)
}

/// The number of unread responses, between our index and the back end's.
#[inline]
pub(super) fn available(page: &SharedPage, cons: u32, published: u32) -> Result<u32, RingError> {
    let count = page.load_acquire(sring::RSP_PROD).wrapping_sub(cons);
    // More responses than requests: the index went back, or too far.
    if count > published.wrapping_sub(cons) {
        return Err(RingError::Index);
    }
    Ok(count)
}

/// Ends the grants of pages and frees the pages; pages that the other side still maps are quarantined.
pub(super) fn release<H: Hypervisor>(
    xen: &H,
    grants: &mut GrantTable,
    pages: impl IntoIterator<Item = Granted>,
) {
    for (page, grant) in pages {
        grants.release(xen, grant, page);
    }
}
