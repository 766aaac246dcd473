//! Turns files and redirects into resources.

use std::collections::BTreeMap;
use std::path::Path;

use mayfly_site::Coding;
use mayfly_site::pack::{FILE, HOST, LINES, LINES_OF, REDIRECT, RESOURCE, VARIANT};

use super::super::config::{self, Checked};
use super::super::problem::Findings;
use super::Body;
use super::page::{Bodies, Page, page, read_all};
use super::paths::{Entry, Paths};
use super::redirects::{directories, redirects};
use super::scan::{Files, Found, scan};
use super::spool::Spool;
use super::{dates, lines};

/// The greatest size of the header lines of a file, in bytes.
const LINES_MAX: usize = 16 << 10;
/// The web roots of a site as sections of the pack.
#[derive(Default)]
pub(crate) struct Www {
    pub(crate) resources: Vec<u8>,
    /// For the index of paths: host, path, resource.
    pub(crate) indexed: Vec<(u32, Vec<u8>, u32)>,
    pub(crate) hosts: Vec<u8>,
    pub(crate) default_host: u32,
    pub(crate) listing: Vec<u8>,
    pub(crate) bodies: Vec<Body>,
    /// The bodies that were made by the packer.
    pub(crate) spool: Option<Spool>,
    /// The size of the section `bodies`.
    pub(crate) bytes: u64,
    pub(crate) names: usize,
    pub(crate) files: usize,
    pub(crate) variants: usize,
    pub(crate) redirects: usize,
}

/// Reads and checks all files below `www/`: `threads` files at a time, with no date after `epoch`.
pub(crate) fn pack(
    site: &Path,
    config: &Checked,
    threads: usize,
    epoch: Option<u64>,
    findings: &mut Findings,
) -> Www {
    let roots = scan(site, config, findings);
    let mut www = Www {
        // No resource is at 0.
        resources: vec![0; 8],
        ..Www::default()
    };

    // Host 0 is the one without a name.
    let mut hosts: Vec<(Option<String>, Files)> = vec![(None, roots.plain)];
    for (name, files) in roots.hosts {
        hosts.push((Some(name), files));
    }
    let names = names(&hosts, config, &mut www, findings);

    let mut files: Vec<Found> = Vec::new();
    let mut paths: Vec<Paths> = Vec::new();
    for (_, found) in &hosts {
        let mut entries = Paths::new();
        for (path, found) in found {
            entries.insert(path.clone().into_bytes(), Entry::File(files.len()));
            files.push(found.clone());
        }
        paths.push(entries);
    }
    for paths in &mut paths {
        directories(paths);
    }
    redirects(&hosts, config, &mut paths, findings);
    for (host, paths) in hosts.iter().zip(&mut paths) {
        error_pages(host.0.as_deref(), config, paths, findings);
    }
    dates::forget(&mut files, &config.config, epoch);
    let pages = pages(&files, config, threads, &mut www, findings);
    www.resources_of(&paths, &pages, config, findings);
    www.names = names.len();
    for (name, host) in names {
        let at = www.start(host, name.as_bytes(), HOST, 0);
        www.resources.extend([0; 8]);
        www.resources.extend(name.as_bytes());
        www.hosts.extend(at.to_le_bytes());
        www.hosts.extend(host.to_le_bytes());
    }
    www
}

/// Reads all files.
fn pages(
    files: &[Found],
    config: &Checked,
    threads: usize,
    www: &mut Www,
    findings: &mut Findings,
) -> Vec<Option<Page>> {
    www.files = files.len();
    if files.is_empty() {
        return Vec::new();
    }
    let spool = match Spool::new() {
        Ok(spool) => spool,
        Err(error) => {
            let what = format!("no temporary file can be made: {error}");
            findings.error(Path::new(super::FOLDER), None, what);
            return Vec::new();
        }
    };
    let mut pages: Vec<Option<Page>> = Vec::new();
    let mut bodies = Bodies::default();
    let read = read_all(files, config, threads, &spool, findings);
    for (found, read) in files.iter().zip(read) {
        let page = read.map(|read| page(found, read, config, &mut bodies));
        let variants = page.iter().flat_map(|page| &page.variants);
        if variants
            .clone()
            .any(|variant| variant.lines.len() > LINES_MAX)
        {
            let what = format!("its header lines are longer than {LINES_MAX} bytes");
            findings.error(&found.shown, None, what);
        }
        www.variants += variants.count();
        pages.push(page);
    }
    www.bytes = bodies.bytes;
    www.bodies = bodies.list;
    www.spool = Some(spool);
    pages
}

/// All names of hosts, and the default host.
fn names(
    hosts: &[(Option<String>, Files)],
    config: &Checked,
    www: &mut Www,
    findings: &mut Findings,
) -> BTreeMap<String, u32> {
    let file = Path::new(config::FILE);
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    for ((name, _), number) in hosts.iter().zip(0..) {
        names.extend(name.clone().map(|name| (name, number)));
    }
    for (host, settings) in &config.config.hosts {
        let Some(&number) = names.get(host.get_ref()) else {
            // The error has been reported already.
            continue;
        };
        for alias in &settings.aliases {
            let name = alias.get_ref();
            if name.is_empty()
                || !name.bytes().all(|byte| {
                    matches!(byte, b'!'..=b'~') && !byte.is_ascii_uppercase() && byte != b'/'
                })
            {
                let what = format!("`{name}` is not the name of a host in lower case");
                findings.error(file, config.line(alias), what);
            } else if names.insert(name.clone(), number).is_some() {
                let what = format!("`{name}` is the name of another host as well");
                findings.error(file, config.line(alias), what);
            }
        }
    }
    let plain = hosts.first().is_some_and(|(_, files)| !files.is_empty());
    match &config.config.default_host {
        Some(default) => match names.get(default.get_ref()) {
            Some(_) if plain => findings.error(
                file,
                config.line(default),
                "the files right below www/ are of no host, as the default host has a folder",
            ),
            Some(&host) => www.default_host = host,
            None if plain => {
                names.insert(default.get_ref().to_ascii_lowercase(), 0);
            }
            None => {
                let what = format!("there is no host `{}`", default.get_ref());
                findings.error(file, config.line(default), what);
            }
        },
        None if !plain && hosts.len() == 2 => www.default_host = 1,
        None => {}
    }
    names
}

/// The error pages of a host.
fn error_pages(host: Option<&str>, config: &Checked, paths: &mut Paths, findings: &mut Findings) {
    let file = Path::new(config::FILE);
    let own = config
        .config
        .hosts
        .iter()
        .find(|(name, _)| Some(name.get_ref().as_str()) == host)
        .map(|(_, settings)| &settings.error_pages);
    let general = config.config.error_pages.iter().map(|page| (page, false));
    let own = own.into_iter().flatten().map(|page| (page, true));
    for ((status, page), own) in general.chain(own) {
        let line = config.line(status);
        let number = status.get_ref().parse::<u16>().ok();
        let Some(number) = number.filter(|number| (400..600).contains(number)) else {
            let what = format!("`{}` is not the status of an error", status.get_ref());
            findings.error(file, line, what);
            continue;
        };
        match paths.get(page.get_ref().as_bytes()).cloned() {
            Some(entry @ Entry::File(_)) => {
                let [high, low] = number.to_be_bytes();
                paths.insert(vec![0, high, low], entry);
            }
            _ if own => {
                let what = format!("the host has no file `{}`", page.get_ref());
                findings.error(file, config.line(page), what);
            }
            _ => {}
        }
    }
}

/// A number as the pack stores it. A number that is too large was refused before, or makes the pack too large.
fn u16_of(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

fn u32_of(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

impl Www {
    /// Begins a resource with its first 8 bytes. Returns its offset.
    fn start(&mut self, host: u32, path: &[u8], kind: u8, variants: usize) -> u32 {
        let at = self.resources.len().next_multiple_of(8);
        self.resources.resize(at, 0);
        self.resources.extend(host.to_le_bytes());
        self.resources.extend(u16_of(path.len()));
        self.resources
            .extend([kind, u8::try_from(variants).unwrap_or(u8::MAX)]);
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Adds all resources of the hosts by path.
    fn resources_of(
        &mut self,
        paths: &[Paths],
        pages: &[Option<Page>],
        config: &Checked,
        findings: &mut Findings,
    ) {
        let below = lines::below(config);
        for (host, paths) in (0_u32..).zip(paths) {
            for (path, entry) in paths {
                let at = match entry {
                    Entry::File(number) => match pages.get(*number) {
                        Some(Some(page)) => self.file(host, path, page),
                        // The error has been reported already.
                        _ => continue,
                    },
                    Entry::Redirect { status, location } => {
                        self.redirects += 1;
                        let shown = String::from_utf8_lossy(path);
                        let lines = lines::at(&shown, "text/plain", config);
                        self.redirect(host, path, (*status, location), &lines, findings)
                    }
                };
                self.listing.extend(at.to_le_bytes());
                self.indexed.push((host, path.clone(), at));
            }
            for (folder, lines) in &below {
                let host = host | LINES_OF;
                let at = self.start(host, folder.as_bytes(), LINES, 0);
                self.resources.extend(u16_of(bounded(lines, findings)));
                self.resources.extend([0; 6]);
                self.resources.extend(folder.as_bytes());
                self.resources.extend(lines.as_bytes());
                self.indexed.push((host, folder.clone().into_bytes(), at));
            }
        }
    }

    fn file(&mut self, host: u32, path: &[u8], page: &Page) -> u32 {
        let at = self.start(host, path, FILE, page.variants.len());
        self.resources.extend(page.modified.to_le_bytes());
        let mut lines_at = RESOURCE + VARIANT * page.variants.len() + path.len();
        for variant in &page.variants {
            let coding = match variant.coding {
                Coding::Identity => 0,
                Coding::Gzip => 1,
                Coding::Brotli => 2,
                Coding::Zstd => 3,
            };
            let etag = u8::try_from(variant.etag).unwrap_or(u8::MAX);
            self.resources.extend([coding, etag]);
            self.resources.extend(u16_of("ETag: ".len()));
            self.resources.extend(u32_of(lines_at as u64));
            self.resources.extend(u16_of(variant.lines.len()));
            self.resources.extend(u16_of(variant.common));
            self.resources.extend(u16_of(variant.encoded));
            self.resources.extend(u16_of(variant.typed));
            self.resources.extend(u32_of(variant.at));
            self.resources.extend(u32_of(variant.bytes));
            lines_at += variant.lines.len();
        }
        self.resources.extend(path);
        for variant in &page.variants {
            self.resources.extend(variant.lines.as_bytes());
        }
        at
    }

    fn redirect(
        &mut self,
        host: u32,
        path: &[u8],
        (status, location): (u16, &str),
        lines: &str,
        findings: &mut Findings,
    ) -> u32 {
        let at = self.start(host, path, REDIRECT, 0);
        self.resources.extend(status.to_le_bytes());
        self.resources.extend(u16_of(location.len()));
        self.resources.extend(u16_of(bounded(lines, findings)));
        self.resources.extend([0; 2]);
        self.resources.extend(path);
        self.resources.extend(location.as_bytes());
        self.resources.extend(lines.as_bytes());
        at
    }
}

/// The size of header lines in bytes. Too many are an error.
fn bounded(lines: &str, findings: &mut Findings) -> usize {
    if lines.len() > LINES_MAX {
        let what = format!("header lines for one path are longer than {LINES_MAX} bytes");
        findings.error(Path::new(config::FILE), None, what);
    }
    lines.len()
}
