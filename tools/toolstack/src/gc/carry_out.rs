//! Carries out the actions of a decision.

use super::GcAction;
use crate::builder::index::{self, IndexEntry};
use crate::builder::{DestroyError, Toolstack, making};
use mayfly_xenstore::Request;

/// Carries out the actions, one after the other, and returns each that failed with its error.
pub fn carry_out(builder: &mut Toolstack, actions: &[GcAction]) -> Vec<String> {
    let mut failures = Vec::new();
    for action in actions {
        if let Err(error) = one(builder, action) {
            failures.push(format!("{action}: {error}"));
        }
    }
    failures
}

fn one(builder: &mut Toolstack, action: &GcAction) -> Result<(), Box<dyn std::error::Error>> {
    match action {
        GcAction::Look { .. } => {}
        GcAction::Destroy { domid, uuid } => {
            let entry = IndexEntry {
                domid: *domid,
                uuid: uuid.clone(),
            };
            match builder.destroy_entry(&entry) {
                Ok(_) | Err(DestroyError::NoSuchDomain(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        GcAction::Release { domid } => {
            // xenstored refuses this if it has released the domain by itself.
            let _ = builder.store().ask(Request::release(*domid));
        }
        // Another hatch may have claimed the entry since.
        GcAction::Forget { path, value, .. } => {
            index::forget(builder.store(), &[(path.clone(), value.clone())])?
        }
        GcAction::Unlink { file, .. } => making::remove_mark(file)?,
        GcAction::Remove { path, .. } => builder.store().rm(path)?,
    }
    Ok(())
}
