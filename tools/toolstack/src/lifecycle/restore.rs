//! Makes a guest out of a file.

use std::io::Read;

use mayfly_savefile::{SavedConfig, SavefileBody, open};

use super::config::GuestDescription;
use super::contents::FileContents;
use super::describe::OUR_FRAMES;
use crate::builder::{
    CreateAs, CreateError, CreateStep, CreateSteps, Created, GuestConfig, Toolstack,
    ToolstackError, random_uuid,
};
use crate::config::{ConfigProblems, Overrides, parse};

/// The pages that a guest may have beside its RAM, as its memory limit has them.
const OTHER_PAGES: u64 = 256;
/// The pages below 4 GiB. Memory that does not fit below the devices follows above.
const BELOW_4_GIB: u64 = 1 << 20;

/// A saved guest whose pages and state were not read yet.
pub struct SavedGuest<R> {
    body: SavefileBody<R>,
    /// The guest as the file describes it.
    pub description: GuestDescription,
}

/// Why a file cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is not valid, or has what is not supported.
    #[error("{0}")]
    File(#[from] mayfly_savefile::Error),
    /// Its configuration is libxl's, and cannot be carried out.
    #[error("its configuration: {0}")]
    Json(String),
    /// Its configuration is an xl.cfg, and cannot be carried out.
    #[error("its configuration: {0}")]
    Cfg(#[from] ConfigProblems),
    /// There are no random numbers for a UUID.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl GuestDescription {
    /// The description of a guest that a configuration file describes.
    #[must_use]
    pub fn of(config: GuestConfig) -> Self {
        Self {
            config,
            grant_frames: OUR_FRAMES,
        }
    }
}

impl<R: Read> SavedGuest<R> {
    /// Reads the head of a file.
    ///
    /// # Errors
    /// It is no file of `xl save`, or describes a guest that is not supported.
    pub fn open(source: R) -> Result<Self, RestoreError> {
        let (config, body) = open(source)?;
        let description = match config {
            SavedConfig::Json(text) => {
                GuestDescription::parse(&text).map_err(RestoreError::Json)?
            }
            SavedConfig::Cfg(text) => {
                let guest = parse("the file", &text, &Overrides::default())?;
                GuestDescription::of(guest.config(random_uuid()?))
            }
        };
        Ok(Self { body, description })
    }
}

impl Toolstack {
    /// Restores a guest, with the description that `saved` has by now. When a step fails, the steps before it are
    /// undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn restore_from<R: Read>(
        &mut self,
        saved: SavedGuest<R>,
        then: CreateAs,
    ) -> Result<Created, CreateError> {
        let SavedGuest { body, description } = saved;
        let GuestDescription {
            mut config,
            grant_frames,
        } = description;
        let mut steps = CreateSteps::restoring();
        let mut contents = steps.run(CreateStep::Check, || {
            // A copy of a guest that is still there is another guest.
            let all = self.xen.list()?;
            if all
                .iter()
                .any(|info| info.handle == config.uuid && !info.is_dying())
            {
                config.uuid = random_uuid()?;
            }
            let pages = config.memory << 8;
            let end = BELOW_4_GIB + pages;
            let records = body.records(end)?;
            Ok::<_, ToolstackError>(FileContents::new(records, pages + OTHER_PAGES))
        })?;
        self.create_from((&config, grant_frames), &mut contents, then, steps)
    }
}
