//! Packed sites.

use std::fs;

/// A site with the zone `mayfly.test` and one page.
pub(crate) fn packed(zone: &str, page: &str) -> &'static [u8] {
    let site = tempfile::tempdir().unwrap();
    fs::create_dir(site.path().join("zones")).unwrap();
    fs::create_dir(site.path().join("www")).unwrap();
    fs::write(site.path().join("zones/mayfly.test.zone"), zone).unwrap();
    fs::write(site.path().join("www/index.html"), page).unwrap();
    match mayfly_pack::pack_dir(site.path(), &mayfly_pack::Options::default()) {
        Ok(packed) => packed.to_vec().unwrap().leak(),
        Err(problems) => panic!("{problems}"),
    }
}
