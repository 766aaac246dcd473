//! Errors with their exit codes.

use mayfly_commands::{Exit, message};
use mayfly_toolstack::builder;
use mayfly_toolstack::builder::{Cause, DestroyError};
use mayfly_toolstack::config::{Problems, TemplateError};

/// Why the command did not do what it should.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    pub(crate) fn no_such_domain(what: &str) -> Self {
        Self::new(
            Exit::NoSuchDomain,
            format!("there is no domain {what:?}: `hatch list` shows all"),
        )
    }

    pub(crate) fn code(&self) -> u8 {
        self.exit as u8
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, message(&*error))
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(Exit::NotUnderstood, problems.to_string())
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Self::new(Exit::NotUnderstood, error.to_string())
    }
}

impl From<mayfly_xenstore::Error> for Failure {
    fn from(error: mayfly_xenstore::Error) -> Self {
        Self::new(of_store(&error), error.to_string())
    }
}

impl From<mayfly_xen::Error> for Failure {
    fn from(error: mayfly_xen::Error) -> Self {
        Self::new(of_xen(&error), error.to_string())
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::new(of_cause(&cause), cause.to_string())
    }
}

impl From<builder::Error> for Failure {
    fn from(error: builder::Error) -> Self {
        Self::new(of_cause(&error.failure.cause), error.to_string())
    }
}

impl From<DestroyError> for Failure {
    fn from(error: DestroyError) -> Self {
        let exit = match &error {
            DestroyError::NoSuchDomain(_) => Exit::NoSuchDomain,
            DestroyError::Cause(cause) => of_cause(cause),
            DestroyError::Dom0
            | DestroyError::NotOurs(_)
            | DestroyError::Devices(..)
            | DestroyError::Left { .. } => Exit::Failed,
        };
        Self::new(exit, error.to_string())
    }
}

fn of_store(error: &mayfly_xenstore::Error) -> Exit {
    if error.is_permission() {
        Exit::Permission
    } else {
        Exit::Failed
    }
}

fn of_xen(error: &mayfly_xen::Error) -> Exit {
    match error {
        error if error.is_permission() => Exit::Permission,
        error if error.is_no_such_domain() => Exit::NoSuchDomain,
        _ => Exit::Failed,
    }
}

fn of_cause(cause: &Cause) -> Exit {
    match cause {
        Cause::Config(_) => Exit::NotUnderstood,
        Cause::Taken(_) => Exit::Taken,
        Cause::Xen(error) => of_xen(error),
        Cause::Store(error) => of_store(error),
        Cause::Net(error) if mayfly_links::Error::is_permission(error) => Exit::Permission,
        Cause::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Exit::Permission
        }
        _ => Exit::Failed,
    }
}
