//! The names of the site's zones.

use anyhow::{Context, Result};
use domain::base::ToName;
use domain::base::iana::{Class, Rtype};
use domain::zonefile::inplace::{Entry, Zonefile};

use crate::ZONES;

/// The owners of all zones, by kind.
pub(crate) struct Names {
    /// All owners in wire form, as in the zone file.
    pub(crate) owners: Vec<Vec<u8>>,
    pub(crate) apexes: Vec<Vec<u8>>,
    /// Owners with NS records, below the apexes.
    pub(crate) cuts: Vec<Vec<u8>>,
    /// Owners with DNAME records.
    pub(crate) dnames: Vec<Vec<u8>>,
    /// Owners with CNAME records.
    pub(crate) aliases: Vec<Vec<u8>>,
    /// Owners whose first label is an asterisk, without that label.
    pub(crate) wild: Vec<Vec<u8>>,
    /// Names between an owner and its apex.
    pub(crate) between: Vec<Vec<u8>>,
}

impl Names {
    pub(crate) fn of_site() -> Result<Self> {
        let mut names = Self {
            owners: Vec::new(),
            apexes: Vec::new(),
            cuts: Vec::new(),
            dnames: Vec::new(),
            aliases: Vec::new(),
            wild: Vec::new(),
            between: Vec::new(),
        };
        for (origin, text) in ZONES {
            let apex: domain::base::Name<Vec<u8>> = origin.parse()?;
            let apex = apex.as_slice().to_vec();
            names.zone(origin, text, &apex)?;
            names.apexes.push(apex);
        }
        for list in [
            &mut names.owners,
            &mut names.cuts,
            &mut names.dnames,
            &mut names.aliases,
            &mut names.wild,
            &mut names.between,
        ] {
            list.sort();
            list.dedup();
        }
        Ok(names)
    }

    fn zone(&mut self, origin: &str, text: &str, apex: &[u8]) -> Result<()> {
        let mut file = Zonefile::new();
        file.set_origin(origin.parse()?);
        file.set_default_class(Class::IN);
        file.extend_from_slice(text.as_bytes());
        while let Some(entry) = file.next_entry().with_context(|| origin.to_owned())? {
            let Entry::Record(record) = entry else {
                continue;
            };
            let owner = record.owner().to_vec().as_slice().to_vec();
            let rtype = record.rtype();
            if let Some(parent) = owner.strip_prefix(b"\x01*") {
                self.wild.push(parent.to_vec());
            }
            match rtype {
                Rtype::NS if owner != apex => self.cuts.push(owner.clone()),
                Rtype::DNAME => self.dnames.push(owner.clone()),
                Rtype::CNAME => self.aliases.push(owner.clone()),
                _ => {}
            }
            let mut name = owner.as_slice();
            while let Some(above) = parent(name).filter(|above| above.len() > apex.len()) {
                self.between.push(above.to_vec());
                name = above;
            }
            self.owners.push(owner);
        }
        Ok(())
    }
}

/// A name without its first label; `None` for the root.
fn parent(name: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*name.first()?);
    (length > 0).then(|| name.get(1 + length..)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_name_is_there() {
        let names = Names::of_site().unwrap();
        assert!(names.owners.len() > 200, "{}", names.owners.len());
        for list in [
            &names.cuts,
            &names.dnames,
            &names.aliases,
            &names.wild,
            &names.between,
        ] {
            assert!(list.len() > 5, "{list:?}");
        }
    }
}
