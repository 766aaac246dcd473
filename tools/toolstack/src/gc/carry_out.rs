//! Carries out the actions of a decision.

use super::Action;
use crate::builder::index::{self, Entry};
use crate::builder::{DestroyError, Toolstack, making};
use mayfly_xenstore::Request;

/// Carries out the actions, one after the other, and returns each that failed with its error.
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
            let entry = Entry {
                domid: *domid,
                uuid: uuid.clone(),
            };
            match builder.destroy_entry(&entry) {
                Ok(_) | Err(DestroyError::NoSuchDomain(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Action::Release { domid } => {
            // xenstored refuses this if it has released the domain by itself.
            let _ = builder.store().ask(Request::release(*domid));
        }
        // Another hatch may have claimed the entry since.
        Action::Forget { path, value, .. } => {
            index::forget(builder.store(), &[(path.clone(), value.clone())])?
        }
        Action::Unlink { file, .. } => making::remove_mark(file)?,
        Action::Remove { path, .. } => builder.store().rm(path)?,
    }
    Ok(())
}
