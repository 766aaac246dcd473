//! Doing what was decided.

use std::time::Duration;

use super::Action;
use crate::builder::{DestroyError, Toolstack};
use crate::host::Store;
use mayfly_xenstore::{Error, Request};

/// Carries the actions out, one after the other, and says of each that failed why.
pub fn carry_out(builder: &mut Toolstack, actions: &[Action]) -> Vec<String> {
    let mut failures = Vec::new();
    for action in actions {
        if let Err(error) = one(builder, action) {
            failures.push(format!("{action}: {error}"));
        }
    }
    failures
}

fn one(builder: &mut Toolstack, action: &Action) -> Result<(), Box<dyn std::error::Error>> {
    match action {
        Action::Look { .. } => {}
        Action::Destroy { domid, uuid } => {
            // Once more, because the number may be another domain's by now.
            let info = builder.xen().info(*domid)?;
            if info.is_none_or(|info| crate::builder::uuid(&info.handle) != *uuid) {
                return Ok(());
            }
            match builder.destroy(*domid, true) {
                Ok(_) | Err(DestroyError::NoSuchDomain(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Action::Release { domid } => {
            // Refused when xenstored has let go of it by itself.
            let _ = builder.store().ask(Request::release(*domid));
        }
        Action::Forget { path, domid, .. } => forget(builder.store(), path, *domid)?,
        Action::Remove { path, .. } => builder.store().rm(path)?,
    }
    Ok(())
}

/// Another hatch may have made a guest of that name since.
fn forget(store: &mut dyn Store, path: &str, domid: u16) -> Result<(), Error> {
    const BOUND: Duration = Duration::from_secs(2);
    store.transact(BOUND, |transaction| {
        let value = match transaction.ask(Request::read(path)) {
            Err(error) if error.is_absent() => return Ok(()),
            value => value?,
        };
        if value == domid.to_string().as_bytes() {
            transaction.ask(Request::rm(path))?;
        }
        Ok(())
    })
}
