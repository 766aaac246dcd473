//! Site folders for tests.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::path::Path;

use mayfly_pack::{Options, Packed, Problems, pack_dir};
use mayfly_site::{Coding, File, Pack, Pages as _, Resource, Variant};
use tempfile::TempDir;

/// The options of all tests: packs do not depend on the number of threads.
pub(crate) fn options() -> Options {
    Options {
        threads: 2,
        epoch: Some(1_000_000_000),
    }
}

/// A folder with these files.
pub(crate) fn folder<P: AsRef<Path>, C: AsRef<[u8]>>(files: &[(P, C)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// The result of packing these files.
pub(crate) fn pack<P: AsRef<Path>, C: AsRef<[u8]>>(
    files: &[(P, C)],
) -> Result<(Vec<u8>, Packed), Problems> {
    let folder = folder(files);
    let packed = pack_dir(folder.path(), &options())?;
    let bytes = packed.to_vec().unwrap();
    assert_eq!(bytes.len() as u64, packed.summary.bytes);
    Ok((bytes, packed))
}

/// A pack of these files, which must be valid.
pub(crate) fn packed<P: AsRef<Path>, C: AsRef<[u8]>>(files: &[(P, C)]) -> Vec<u8> {
    let (bytes, _) = pack(files).unwrap();
    mayfly_pack::check(&bytes).unwrap();
    bytes
}

/// The errors of files that cannot be packed.
pub(crate) fn errors<P: AsRef<Path>, C: AsRef<[u8]>>(files: &[(P, C)]) -> String {
    match pack(files) {
        Ok(_) => panic!("it was packed"),
        Err(problems) => problems.to_string(),
    }
}

/// The warnings of files that can be packed.
pub(crate) fn warnings<P: AsRef<Path>, C: AsRef<[u8]>>(files: &[(P, C)]) -> String {
    let (bytes, packed) = pack(files).unwrap();
    mayfly_pack::check(&bytes).unwrap();
    packed.warnings.to_string()
}

/// A name in wire form and lower case: `www.example.test`.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.to_ascii_lowercase().into_bytes());
    }
    bytes.push(0);
    bytes
}

/// A site that uses every feature.
pub(crate) fn sample() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "zones/example.test.zone",
            include_bytes!("../sample/example.test.zone").to_vec(),
        ),
        (
            "zones/signed.test.zone",
            include_bytes!("../sample/signed.test.zone").to_vec(),
        ),
        (
            "zones/hashed.test.zone",
            include_bytes!("../sample/hashed.test.zone").to_vec(),
        ),
        (
            "zones/sub.example.test.zone",
            b"@ 60 SOA ns h 1 2 3 4 5\n@ 60 NS ns\nns 60 A 10.0.0.1\n".to_vec(),
        ),
        ("www/index.html", "<p>hello</p>\n".repeat(100).into_bytes()),
        ("www/404.html", b"nothing here\n".to_vec()),
        ("www/a/b/index.html", b"b\n".to_vec()),
        ("www/a/data.bin", vec![7; 70_000]),
        ("www/same.bin", vec![7; 70_000]),
        ("www/empty", Vec::new()),
        ("www/www.example.test/index.html", b"a host\n".to_vec()),
        (
            "mayfly.toml",
            include_bytes!("../sample/mayfly.toml").to_vec(),
        ),
    ]
}

pub(crate) fn file<'a>(pack: &'a Pack<'_>, host: &str, path: &str) -> File<'a> {
    match pack.resource(host.as_bytes(), path.as_bytes()).unwrap() {
        Some(Resource::File(file)) => file,
        Some(Resource::Redirect { .. }) => panic!("{path} is a redirect"),
        _ => panic!("there is no {path}"),
    }
}

pub(crate) fn variant<'a>(file: &File<'a>, coding: Coding) -> Option<Variant<'a>> {
    file.variants
        .into_iter()
        .flatten()
        .find(|variant| variant.coding == coding)
}

pub(crate) fn body<'a>(pack: &'a Pack<'_>, host: &str, path: &str) -> &'a [u8] {
    variant(&file(pack, host, path), Coding::Identity)
        .unwrap()
        .body
}

/// The status and location at a path; `None` when there is no resource.
pub(crate) fn redirect(pack: &Pack<'_>, host: &str, path: &str) -> Option<(u16, String)> {
    match pack.resource(host.as_bytes(), path.as_bytes()).unwrap() {
        Some(Resource::Redirect { status, location }) => {
            Some((status, String::from_utf8(location.to_vec()).unwrap()))
        }
        Some(_) => panic!("{path} is a file"),
        None => None,
    }
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
