//! Errors with their exit codes.

use mayfly_commands::{Exit, message};
use mayfly_toolstack::builder;
use mayfly_toolstack::builder::{DestroyError, ToolstackError};
use mayfly_toolstack::config::{ConfigProblems, TemplateError};
use mayfly_toolstack::lifecycle::RestoreError;

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

impl From<ConfigProblems> for Failure {
    fn from(problems: ConfigProblems) -> Self {
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

impl From<ToolstackError> for Failure {
    fn from(cause: ToolstackError) -> Self {
        Self::new(of_cause(&cause), cause.to_string())
    }
}

impl From<builder::CreateError> for Failure {
    fn from(error: builder::CreateError) -> Self {
        Self::new(of_cause(&error.failure.cause), error.to_string())
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        Self::new(Exit::Failed, error.to_string())
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

fn of_cause(cause: &ToolstackError) -> Exit {
    match cause {
        ToolstackError::Config(_) => Exit::NotUnderstood,
        ToolstackError::Taken(_) => Exit::Taken,
        ToolstackError::Xen(error) => of_xen(error),
        ToolstackError::Store(error) => of_store(error),
        ToolstackError::Net(error) if mayfly_links::Error::is_permission(error) => Exit::Permission,
        ToolstackError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Exit::Permission
        }
        _ => Exit::Failed,
    }
}
