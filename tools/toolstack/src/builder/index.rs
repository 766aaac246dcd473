//! hatch's index: the owners of names, MAC addresses and domids. Its entries are compared with Xen's domains here and
//! nowhere else.
//!
//! Xen reuses domids after at most 32,751 domains, and entries that `xl destroy` leaves in the index stay there. So an
//! entry has the UUID as well, and is invalid when Xen's domain of that domid has another one. A domain that is dying
//! owns no name any more: it does not run, and only netback holds its pages.
//!
//! | path | value |
//! |---|---|
//! | `/hatch/name/NAME`, `/hatch/mac/MAC` | an [`IndexEntry`]: `DOMID UUID`; `DOMID` alone from an older hatch ([`Claimant`]) |
//! | `/hatch/domain/DOMID` | a [`IndexRecord`]: `UUID MAC NAME`, with `-` for no MAC address |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::ToolstackError;
use crate::host::{Store, Xen};
use crate::paths;
use mayfly_xen::DomainInfo;
use mayfly_xenstore::Request;

/// The time for which the removal of claims is retried when it conflicts with other transactions.
const BOUND: Duration = Duration::from_secs(2);

/// The owner of a name or a MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The domid.
    pub domid: u16,
    /// The UUID, as text.
    pub uuid: String,
}

impl IndexEntry {
    /// Whether Xen's domain of this domid is the entry's, and has not ended for good.
    #[must_use]
    pub fn leads_to(&self, info: Option<&DomainInfo>) -> bool {
        info.is_some_and(|info| !info.is_dying() && is(&self.uuid, &info.handle))
    }

    /// Whether another domain has the domid by now.
    #[must_use]
    pub fn has_successor(&self, info: Option<&DomainInfo>) -> bool {
        info.is_some_and(|info| !is(&self.uuid, &info.handle))
    }
}

/// The owner of a name or a MAC address as the index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimant {
    /// A domain with its UUID.
    Entry(IndexEntry),
    /// A domid without a UUID, as hatch wrote it before the index had UUIDs.
    Number(u16),
    /// The value cannot be parsed.
    Unknown,
}

impl Claimant {
    /// Parses the value of `/hatch/name/NAME` or `/hatch/mac/MAC`.
    #[must_use]
    pub fn of(value: &str) -> Self {
        match (value.parse::<IndexEntry>(), value.parse::<u16>()) {
            (Ok(entry), _) => Self::Entry(entry),
            (_, Ok(domid)) if domid.to_string() == value => Self::Number(domid),
            _ => Self::Unknown,
        }
    }
}

/// Whether this text is the UUID of a domain with this handle.
fn is(uuid: &str, handle: &[u8; 16]) -> bool {
    paths::uuid(handle) == uuid
}

impl fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.domid, self.uuid)
    }
}

impl FromStr for IndexEntry {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (domid, uuid) = text.split_once(' ').ok_or(())?;
        Ok(Self {
            domid: domid.parse().map_err(drop)?,
            uuid: uuid.to_owned(),
        })
    }
}

/// The index's record of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// The UUID, as text.
    pub uuid: String,
    /// The MAC address that the domain has claimed.
    pub mac: Option<[u8; 6]>,
    /// The name that the domain has claimed.
    pub name: String,
}

impl IndexRecord {
    pub(crate) fn new(uuid: &[u8; 16], mac: Option<&[u8; 6]>, name: &str) -> Self {
        Self {
            uuid: paths::uuid(uuid),
            mac: mac.copied(),
            name: name.to_owned(),
        }
    }

    /// Whether the record is of this domain, and not of an earlier one with its domid.
    #[must_use]
    pub fn is_of(&self, info: &DomainInfo) -> bool {
        is(&self.uuid, &info.handle)
    }

    /// All claims of a domain with this domid, as paths and values.
    pub(crate) fn claims(&self, domid: u16) -> Vec<(String, String)> {
        let entry = IndexEntry {
            domid,
            uuid: self.uuid.clone(),
        };
        let entry = entry.to_string();
        let mac = self.mac.iter().map(paths::mac_path);
        let mut claims: Vec<_> = std::iter::once(paths::name_path(&self.name))
            .chain(mac)
            .map(|path| (path, entry.clone()))
            .collect();
        // Last: `hatch gc` finds the others by this one.
        claims.push((paths::domain_path(domid), self.to_string()));
        claims
    }
}

impl fmt::Display for IndexRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac.as_ref().map(paths::mac_text);
        let mac = mac.as_deref().unwrap_or("-");
        write!(f, "{} {mac} {}", self.uuid, self.name)
    }
}

impl FromStr for IndexRecord {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, ' ');
        let (Some(uuid), Some(mac), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(());
        };
        let mac = match mac {
            "-" => None,
            mac => Some(paths::parse_mac(mac).ok_or(())?),
        };
        Ok(Self {
            uuid: uuid.to_owned(),
            mac,
            name: name.to_owned(),
        })
    }
}

/// The index's record of a domid; `None` if there is none or it cannot be parsed.
///
/// # Errors
/// xenstored's.
pub fn record(
    store: &mut dyn Store,
    domid: u16,
) -> Result<Option<IndexRecord>, mayfly_xenstore::Error> {
    let value = store.find(&paths::domain_path(domid))?;
    Ok(value.and_then(|value| value.parse().ok()))
}

/// The domain that a name of the index stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A live domain.
    Domain(u16),
    /// A domain that is gone or dying. Another domain may have its domid.
    Remainder(IndexEntry),
}

/// The owner of a name in the index.
///
/// # Errors
/// Xen's or xenstored's.
pub fn named(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    name: &str,
) -> Result<Option<Named>, ToolstackError> {
    let value = store.find(&paths::name_path(name))?;
    let Some(entry) = value.and_then(|value| value.parse::<IndexEntry>().ok()) else {
        return Ok(None);
    };
    let lives = entry.leads_to(xen.info(entry.domid)?.as_ref());
    Ok(Some(match lives {
        true => Named::Domain(entry.domid),
        false => Named::Remainder(entry),
    }))
}

/// Removes those claims that still have these values. If another domain has claimed the same since, it keeps it.
///
/// # Errors
/// xenstored's.
pub(crate) fn forget(
    store: &mut dyn Store,
    claims: &[(String, String)],
) -> Result<(), mayfly_xenstore::Error> {
    store.transact(BOUND, |transaction| {
        let mut asked = Vec::new();
        for (path, _) in claims {
            asked.push(transaction.send(Request::read(path))?);
        }
        let mut gone = Vec::new();
        for ((path, value), id) in claims.iter().zip(asked) {
            match transaction.answer(id) {
                Ok(now) if now == value.as_bytes() => gone.push(path),
                Ok(_) => {}
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        let mut removed = Vec::new();
        for path in gone {
            removed.push(transaction.send(Request::rm(path))?);
        }
        transaction.answers(removed)
    })
}

#[cfg(test)]
mod tests {
    use mayfly_xenstore::memory::{FakeStore, Tree};

    use super::*;

    const UUID: [u8; 16] = [0xab; 16];

    #[test]
    fn an_entry_leads_to_its_own_domain_and_to_no_other() {
        let entry = IndexEntry {
            domid: 7,
            uuid: paths::uuid(&UUID),
        };
        assert_eq!(entry.to_string().parse(), Ok(entry.clone()));
        assert!(is(&entry.uuid, &UUID));
        assert!(!is(&entry.uuid, &[1; 16]), "the number is another's");
        assert!(!entry.leads_to(None));
        for odd in ["", "7", "x y", "70000 u", "-1 u"] {
            assert!(odd.parse::<IndexEntry>().is_err(), "{odd:?}");
        }
    }

    #[test]
    fn a_claim_is_taken_back_by_whose_it_is_alone() {
        let tree = Tree::default();
        let mut store = FakeStore::new(&tree).unwrap();
        let record =
            |uuid: &[u8; 16]| IndexRecord::new(uuid, Some(&[0, 0x16, 0x3e, 1, 2, 3]), "web");
        let (first, next) = (record(&UUID), record(&[1; 16]));
        for (path, value) in first.claims(7) {
            tree.set(&path, &value);
        }
        tree.set("/hatch/domain/7/watched", "{}");
        // One program destroyed it and made it again while another is still destroying it.
        for (path, value) in next.claims(8) {
            tree.set(&path, &value);
        }
        forget(&mut store, &first.claims(7)).unwrap();
        let left: Vec<_> = tree
            .nodes()
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
        for (path, value) in next.claims(8) {
            assert_eq!(tree.get(&path), Some(value), "{path}");
        }
        // A claim that is gone already is no error.
        forget(&mut store, &first.claims(7)).unwrap();
        forget(&mut store, &next.claims(8)).unwrap();
        assert_eq!(tree.get("/hatch/name/web"), None);
        assert_eq!(crate::builder::index::record(&mut store, 8).unwrap(), None);
    }

    #[test]
    fn a_record_knows_what_was_claimed() {
        let mac = [0, 0x16, 0x3e, 1, 2, 3];
        for mac in [Some(&mac), None] {
            let record = IndexRecord::new(&UUID, mac, "web.1");
            assert_eq!(record.to_string().parse(), Ok(record.clone()));
            assert!(is(&record.uuid, &UUID) && !is(&record.uuid, &[1; 16]));
            let claims = record.claims(7);
            let paths: Vec<_> = claims.iter().map(|(path, _)| path.as_str()).collect();
            let all = [
                "/hatch/name/web@2e1",
                "/hatch/mac/00163e010203",
                "/hatch/domain/7",
            ];
            let expected: Vec<_> = all
                .into_iter()
                .filter(|path| mac.is_some() || !path.contains("mac"))
                .collect();
            assert_eq!(paths, expected);
        }
        for odd in ["", "u", "u -", "u zz n", "7 name"] {
            assert!(odd.parse::<IndexRecord>().is_err(), "{odd:?}");
        }
    }
}
