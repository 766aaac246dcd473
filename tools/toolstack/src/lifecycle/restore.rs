//! Makes a guest out of a file.

use std::io::Read;

use mayfly_savefile::{SavedConfig, SavefileBody, open};

use super::config::GuestDescription;
use super::contents::FileContents;
use super::describe::OUR_FRAMES;
use crate::builder::{
    CreateAs, CreateError, CreateStep, CreateSteps, Created, GuestConfig, RestoredGuest, Toolstack,
    ToolstackError, random_uuid,
};
use crate::config::{
    ConfigProblems, Overrides, TemplateError, is_address, mac_of, name_of, parse, words_of,
};

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
            is_readdressed: true,
        }
    }

    /// A copy with the name of guest `number` of a template ([`crate::config::derived`]), and with the MAC address and
    /// the addresses of guest `place`, both from 1.
    ///
    /// # Errors
    /// A range of addresses has run out.
    pub fn copy(&self, number: u32, place: u32) -> Result<Self, TemplateError> {
        let mut config = self.config.clone();
        config.name = name_of(&config.name, number);
        config.cmdline = words_of(&config.cmdline, place)?;
        if let Some(vif) = &mut config.vif {
            vif.mac = mac_of(vif.mac, place)?;
        }
        Ok(Self {
            config,
            is_readdressed: true,
            ..*self
        })
    }

    /// The words of the command line with addresses, if the guest is to use them from now on. (`ip=dhcp` and `ip=auto`
    /// are no addresses: the guest asks again by itself.)
    pub(super) fn addresses(&self) -> Option<String> {
        let words = self.config.cmdline.split_ascii_whitespace();
        let counts = |word: &&str| {
            word.starts_with("gw=") || word.strip_prefix("ip=").is_some_and(is_address)
        };
        let words: Vec<_> = words.filter(counts).collect();
        (self.is_readdressed && !words.is_empty()).then(|| words.join(" "))
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
        let addresses = description.addresses();
        let GuestDescription {
            mut config,
            grant_frames,
            ..
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
        let guest = RestoredGuest {
            config: &config,
            grant_frames,
            addresses,
        };
        self.create_from(&guest, &mut contents, then, steps)
    }
}
