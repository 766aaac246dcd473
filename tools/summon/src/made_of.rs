//! A record of the settings and files that a guest was made of, so that a later daemon sees whether they have changed.
//!
//! The record is in the guest's directory in xenstore and is removed with it. It consists of two digests in hexadecimal
//! digits: of the service's settings, and of the state of the image and the site.

use std::fmt::{self, Display};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::config::Service;

/// The number of bytes that are kept of a digest.
const LENGTH: usize = 8;

type Short = [u8; LENGTH];

/// The record of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeOf {
    config: Short,
    files: Short,
}

impl MadeOf {
    /// The record of a guest of this service that is made now.
    ///
    /// # Errors
    /// The image or the site does not exist.
    pub fn now(service: &Service) -> io::Result<Self> {
        Ok(Self {
            config: config(service),
            files: files(service)?,
        })
    }

    /// Whether the service's settings are the same.
    #[must_use]
    pub fn has_config_of(&self, service: &Service) -> bool {
        self.config == config(service)
    }

    /// Whether the settings of two services differ, so that a guest of one does not fit the other.
    #[must_use]
    pub fn differs(one: &Service, other: &Service) -> bool {
        config(one) != config(other)
    }

    /// Whether the service's image or site was replaced or written to. A missing file counts as unchanged.
    #[must_use]
    pub fn has_other_files_than(&self, service: &Service) -> bool {
        files(service).is_ok_and(|files| files != self.files)
    }
}

impl Display for MadeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [config, files] = [self.config, self.files].map(u64::from_be_bytes);
        write!(f, "{config:016x} {files:016x}")
    }
}

impl FromStr for MadeOf {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (config, files) = text.split_once(' ').ok_or(())?;
        let digest = |text: &str| {
            let is_whole = text.len() == 2 * LENGTH;
            let number = u64::from_str_radix(text, 16).ok().filter(|_| is_whole);
            number.map(u64::to_be_bytes).ok_or(())
        };
        Ok(Self {
            config: digest(config)?,
            files: digest(files)?,
        })
    }
}

/// The digest of all settings that make a difference to the guest, without the content of its files.
fn config(service: &Service) -> Short {
    let path = |path: &Path| path.display().to_string();
    let parts = [
        path(&service.image),
        service.site.as_deref().map(path).unwrap_or_default(),
        service.memory.to_string(),
        service.command_line(),
        format!("{:02x?}", service.mac),
        service.bridge.clone(),
        format!("{:?}", service.network),
    ];
    digest(&parts.join("\0"))
}

/// The digest of the state of the files.
fn files(service: &Service) -> io::Result<Short> {
    let mut state = String::new();
    for path in [Some(&service.image), service.site.as_ref()] {
        let Some(path) = path else {
            continue;
        };
        let of = std::fs::metadata(path)?;
        let modified = (of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec());
        state += &format!("{} {} {} {modified:?};", of.dev(), of.ino(), of.size());
    }
    Ok(digest(&state))
}

fn digest(text: &str) -> Short {
    let digest = Sha256::digest(text);
    let first = digest.first_chunk();
    first.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(folder: &Path, memory: u64) -> Service {
        let text = format!(
            "[daemon]\nlisten = []\n[[services]]\nname = \"web\"\nhosts = [\"www.example.test\"]\n\
             zone = \"example.test\"\nimage = {:?}\nsite = {:?}\nmemory = {memory}\nipv4 = \"192.0.2.80/24\"\n",
            folder.join("image"),
            folder.join("site")
        );
        let file = folder.join("services.toml");
        std::fs::write(&file, text).unwrap();
        let mut config = super::super::config::SummonConfig::load(&file).unwrap();
        config.services.remove(0)
    }

    #[test]
    fn what_has_changed_is_told_apart_and_survives_as_text() {
        let folder = tempfile::tempdir().unwrap();
        let at = |file| folder.path().join(file);
        let web = service(folder.path(), 8);
        assert!(MadeOf::now(&web).is_err());
        for file in ["image", "site"] {
            std::fs::write(at(file), "first").unwrap();
        }
        let first = MadeOf::now(&web).unwrap();
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(first.to_string().len(), 33);
        assert!(first.has_config_of(&web) && !first.has_other_files_than(&web));
        assert!(!first.has_config_of(&service(folder.path(), 16)));
        // The image is replaced by one of the same size.
        std::fs::write(at("new"), "other").unwrap();
        std::fs::rename(at("new"), at("site")).unwrap();
        assert!(first.has_other_files_than(&web));
        let second = MadeOf::now(&web).unwrap();
        assert!(second != first && second.has_config_of(&web));
        // A missing file counts as unchanged.
        std::fs::remove_file(at("image")).unwrap();
        assert!(!second.has_other_files_than(&web));
    }

    #[test]
    fn what_others_have_written_is_nothing() {
        let right = "0123456789abcdef 0123456789abcdef";
        assert!(right.parse::<MadeOf>().is_ok());
        for wrong in [
            "",
            " ",
            "1 2",
            &right[1..],
            &format!("{right} "),
            &right.replace('9', "g"),
        ] {
            assert_eq!(wrong.parse::<MadeOf>(), Err(()), "{wrong:?}");
        }
    }
}
