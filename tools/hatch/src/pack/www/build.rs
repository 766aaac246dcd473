//! Files and redirects into resources.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mayfly::date::imf_fixdate;
use mayfly::services::site::Coding;
use mayfly::services::site::pack::{FILE, HOST, REDIRECT, RESOURCE, VARIANT};

use super::super::Options;
use super::super::config::{self, Checked};
use super::super::problem::Findings;
use super::compress::{self, Read};
use super::scan::{Files, Found, scan};
use super::{Body, Source, escape};

/// Bodies of this size and above are at a page of their own.
const LARGE: u64 = 64 << 10;
/// Octets of all header lines of a file.
const LINES_MAX: usize = 16 << 10;
/// The page of a folder.
const INDEX: &str = "index.html";

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
    /// Octets of the section `bodies`.
    pub(crate) octets: u64,
    pub(crate) names: usize,
    pub(crate) files: usize,
    pub(crate) variants: usize,
    pub(crate) redirects: usize,
}

/// What is at a path.
#[derive(Clone)]
enum Entry {
    /// The file with this number.
    File(usize),
    Redirect {
        status: u16,
        location: String,
    },
}

/// What a host has by path; error pages have a path of their own.
type Paths = BTreeMap<Vec<u8>, Entry>;

/// A variant of a file.
struct Variant {
    coding: Coding,
    lines: String,
    etag: usize,
    common: usize,
    encoded: usize,
    typed: usize,
    at: u64,
    octets: u64,
}

/// A file that can be served.
struct Page {
    modified: u64,
    variants: Vec<Variant>,
}

/// Reads and checks all that is below `www/`.
pub(crate) fn pack(
    site: &Path,
    config: &Checked,
    options: &Options,
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
    let numbers: Vec<Paths> = paths.clone();
    for paths in &mut paths {
        directories(paths);
    }
    redirects(&hosts, config, &mut paths, findings);
    for (host, paths) in hosts.iter().zip(&mut paths) {
        error_pages(host.0.as_deref(), config, paths, findings);
    }

    let read = read_all(&files, config, options, findings);
    let mut pages: Vec<Option<Page>> = Vec::new();
    let mut bodies = Bodies::default();
    let path_of: HashMap<usize, &Vec<u8>> = numbers
        .iter()
        .flatten()
        .filter_map(|(path, entry)| match entry {
            Entry::File(number) => Some((*number, path)),
            Entry::Redirect { .. } => None,
        })
        .collect();
    for (number, (found, read)) in files.iter().zip(read).enumerate() {
        let path = path_of
            .get(&number)
            .map(|path| String::from_utf8_lossy(path));
        let page = read.map(|read| {
            page(
                found,
                read,
                &path.unwrap_or_default(),
                config,
                options,
                &mut bodies,
            )
        });
        if let Some(page) = &page
            && page
                .variants
                .iter()
                .any(|variant| variant.lines.len() > LINES_MAX)
        {
            let what = format!("its header lines are longer than {LINES_MAX} bytes");
            findings.error(&found.shown, None, what);
        }
        www.variants += page.as_ref().map_or(0, |page| page.variants.len());
        pages.push(page);
    }
    www.files = files.len();
    www.octets = bodies.octets;
    www.bodies = bodies.list;

    for (host, paths) in (0_u32..).zip(&paths) {
        for (path, entry) in paths {
            let at = match entry {
                Entry::File(number) => match pages.get(*number) {
                    Some(Some(page)) => www.file(host, path, page),
                    // It is an error already.
                    _ => continue,
                },
                Entry::Redirect { status, location } => {
                    www.redirects += 1;
                    www.redirect(host, path, *status, location)
                }
            };
            www.listing.extend(at.to_le_bytes());
            www.indexed.push((host, path.clone(), at));
        }
    }
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

/// All names of hosts, and which is the default.
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
            // It is an error already.
            continue;
        };
        for alias in &settings.aliases {
            let name = alias.get_ref();
            if name.is_empty()
                || !name.bytes().all(|octet| {
                    matches!(octet, b'!'..=b'~') && !octet.is_ascii_uppercase() && octet != b'/'
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

/// A folder with a page is at its path with a slash, and without it leads there.
fn directories(paths: &mut Paths) {
    let pages: Vec<(Vec<u8>, Entry)> = paths
        .iter()
        .filter_map(|(path, entry)| {
            let folder = path.strip_suffix(INDEX.as_bytes())?;
            folder
                .ends_with(b"/")
                .then(|| (folder.to_vec(), entry.clone()))
        })
        .collect();
    for (folder, entry) in pages {
        if let [path @ .., b'/'] = &folder[..]
            && !path.is_empty()
        {
            let redirect = Entry::Redirect {
                status: 301,
                location: escape(&String::from_utf8_lossy(&folder)),
            };
            paths.entry(path.to_vec()).or_insert(redirect);
        }
        paths.insert(folder, entry);
    }
}

/// The redirects of `mayfly.toml`.
fn redirects(
    hosts: &[(Option<String>, Files)],
    config: &Checked,
    paths: &mut [Paths],
    findings: &mut Findings,
) {
    let file = Path::new(config::FILE);
    let mut made: HashMap<(usize, String), String> = HashMap::new();
    for redirect in &config.config.redirects {
        let line = config.line(redirect);
        let redirect = redirect.get_ref();
        let (from, to) = (redirect.from.get_ref(), redirect.to.get_ref());
        if !from.starts_with('/') || from.chars().any(char::is_control) {
            let what = format!("`{from}` is not a path");
            findings.error(file, config.line(&redirect.from), what);
            continue;
        }
        if !is_reference(to) {
            let what = format!("`{to}` is neither a path nor a URI, percent-encoded");
            findings.error(file, config.line(&redirect.to), what);
            continue;
        }
        if !matches!(redirect.status, 301 | 302 | 307 | 308) {
            let what = format!("status {}: it may be 301, 302, 307 or 308", redirect.status);
            findings.error(file, line, what);
            continue;
        }
        let of = |name: &Option<String>| match &redirect.host {
            Some(host) => name.as_ref() == Some(host.get_ref()),
            None => true,
        };
        let mut some = false;
        for (number, (_, paths)) in hosts
            .iter()
            .zip(paths.iter_mut())
            .enumerate()
            .filter(|(_, ((name, _), _))| of(name))
        {
            some = true;
            // A folder without its slash may lead elsewhere.
            let taken = match paths.get(from.as_bytes()) {
                Some(Entry::Redirect { location, .. }) => *location != format!("{}/", escape(from)),
                other => other.is_some(),
            };
            if taken || made.contains_key(&(number, from.clone())) {
                let what = format!("there is something else at `{from}`");
                findings.error(file, config.line(&redirect.from), what);
                continue;
            }
            made.insert((number, from.clone()), to.clone());
            let entry = Entry::Redirect {
                status: redirect.status,
                location: to.clone(),
            };
            paths.insert(from.clone().into_bytes(), entry);
        }
        if !some && let Some(host) = &redirect.host {
            let what = format!("there is no folder www/{}", host.get_ref());
            findings.error(file, config.line(host), what);
        }
    }
    for redirect in &config.config.redirects {
        let from = redirect.get_ref().from.get_ref();
        let around = (0..hosts.len()).any(|host| leads_back(&made, host, from));
        if around {
            let what = format!("the redirect from `{from}` leads back to it");
            findings.error(file, config.line(redirect), what);
        }
    }
}

/// Whether who follows redirects of a host from a path comes to it again.
fn leads_back(made: &HashMap<(usize, String), String>, host: usize, from: &str) -> bool {
    let mut path = from.to_owned();
    for _ in 0..made.len() {
        let Some(to) = made.get(&(host, path)) else {
            return false;
        };
        let end = to.find(['?', '#']).unwrap_or(to.len());
        path = unescape(&to[..end]);
        if path == from {
            return true;
        }
    }
    false
}

/// Percent-decoded.
fn unescape(path: &str) -> String {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        let escaped = tail
            .split_at_checked(2)
            .and_then(|(hex, tail)| Some((std::str::from_utf8(hex).ok()?, tail)))
            .and_then(|(hex, tail)| Some((u8::from_str_radix(hex, 16).ok()?, tail)));
        match escaped.filter(|_| octet == b'%') {
            Some((octet, tail)) => {
                out.push(octet);
                rest = tail;
            }
            None => {
                out.push(octet);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether it is an absolute path or a URI, of characters that RFC 3986 allows.
fn is_reference(text: &str) -> bool {
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(&octet))
    });
    (text.starts_with('/') || scheme)
        && text.len() <= 4000
        && text.bytes().all(|octet| {
            octet.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&octet)
        })
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

/// Reads all files, as many at a time as there are threads; one that cannot be read is an error.
fn read_all(
    files: &[Found],
    config: &Checked,
    options: &Options,
    findings: &mut Findings,
) -> Vec<Option<Read>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<io::Result<Read>>>> =
        files.iter().map(|_| Mutex::new(None)).collect();
    let threads = options.threads.clamp(1, 64).min(files.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed))
                    && let (Some(file), Some(result)) = (files.get(number), results.get(number))
                {
                    let media_type = media_type(file, config);
                    let read = compress::read(file, &media_type, &config.config.compression);
                    if let Ok(mut place) = result.lock() {
                        *place = Some(read);
                    }
                }
            });
        }
    });
    let mut read = Vec::new();
    for (file, result) in files.iter().zip(results) {
        let result = result.into_inner().ok().flatten();
        let result = result.unwrap_or_else(|| Err(io::Error::other("not read")));
        let result = result.map_err(|error| {
            findings.error(&file.shown, None, format!("cannot be read: {error}"));
        });
        read.push(result.ok());
    }
    read
}

/// What a file's extension says.
fn media_type(file: &Found, config: &Checked) -> String {
    let extension = file
        .file
        .extension()
        .and_then(|extension| extension.to_str());
    let own = extension.and_then(|extension| config.config.types.get(extension));
    own.map_or_else(
        || {
            mime_guess::from_path(&file.file)
                .first_or_octet_stream()
                .to_string()
        },
        |own| own.get_ref().clone(),
    )
}

/// The bodies, each with the same octets once.
#[derive(Default)]
struct Bodies {
    list: Vec<Body>,
    octets: u64,
    /// By the digest of what they are made of.
    known: HashMap<([u8; 32], u8), (u64, u64)>,
}

impl Bodies {
    /// Where a body is, and how many octets it has.
    fn add(&mut self, digest: [u8; 32], coding: Coding, source: Source) -> (u64, u64) {
        let octets = source.octets();
        *self.known.entry((digest, coding as u8)).or_insert_with(|| {
            let align = if octets >= LARGE { 4096 } else { 16 };
            let at = self.octets.next_multiple_of(align);
            self.octets = at + octets;
            self.list.push(Body { at, source });
            (at, octets)
        })
    }
}

/// A file with its variants, their header lines ready.
fn page(
    found: &Found,
    read: Read,
    path: &str,
    config: &Checked,
    options: &Options,
    bodies: &mut Bodies,
) -> Page {
    let modified = found.modified.min(options.epoch.unwrap_or(u64::MAX));
    let mut own: Vec<(String, String)> = Vec::new();
    for rule in &config.headers {
        if rule.fits(path, &read.media_type) {
            for (name, value) in &rule.lines {
                own.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                own.push((name.clone(), value.clone()));
            }
        }
    }
    let cache = config.cache.iter();
    let cache = cache.rev().find(|rule| rule.fits(path, &read.media_type));

    let date = imf_fixdate(modified);
    let mut common = format!("Last-Modified: {}\r\n", String::from_utf8_lossy(&date));
    for (name, value) in cache.iter().flat_map(|rule| &rule.lines) {
        common.push_str(&format!("{name}: {value}\r\n"));
    }
    if !read.variants.is_empty() {
        common.push_str("Vary: Accept-Encoding\r\n");
    }
    common.push_str("Accept-Ranges: bytes\r\n");
    for (name, value) in own {
        common.push_str(&format!("{name}: {value}\r\n"));
    }
    let digest: String = read.digest[..16]
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();

    let identity = Source::File {
        path: found.file.clone(),
        shown: found.shown.clone(),
        octets: read.octets,
        digest: read.digest,
    };
    let sources = read
        .variants
        .into_iter()
        .map(|(coding, octets)| (coding, Source::Made(octets)))
        .chain([(Coding::Identity, identity)]);
    let variants = sources.map(|(coding, source)| {
        let (suffix, token) = match coding {
            Coding::Identity => ("", None),
            Coding::Gzip => ("-gz", Some("gzip")),
            Coding::Brotli => ("-br", Some("br")),
            Coding::Zstd => ("-zst", Some("zstd")),
        };
        let (at, octets) = bodies.add(read.digest, coding, source);
        let mut lines = format!("ETag: \"{digest}{suffix}\"\r\n{common}");
        let common = lines.len();
        if let Some(token) = token {
            lines.push_str(&format!("Content-Encoding: {token}\r\n"));
        }
        let encoded = lines.len();
        lines.push_str(&format!("Content-Type: {}\r\n", read.media_type));
        let typed = lines.len();
        lines.push_str(&format!("Content-Length: {octets}\r\n"));
        Variant {
            coding,
            lines,
            etag: digest.len() + suffix.len() + 2,
            common,
            encoded,
            typed,
            at,
            octets,
        }
    });
    Page {
        modified,
        variants: variants.collect(),
    }
}

/// The number as the pack has it; what is too large was refused before or makes the pack too large.
fn u16_of(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()
}

fn u32_of(number: u64) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

impl Www {
    /// Begins a resource with the first 8 octets; returns where it is.
    fn start(&mut self, host: u32, path: &[u8], kind: u8, variants: usize) -> u32 {
        let at = self.resources.len().next_multiple_of(8);
        self.resources.resize(at, 0);
        self.resources.extend(host.to_le_bytes());
        self.resources.extend(u16_of(path.len()));
        self.resources
            .extend([kind, u8::try_from(variants).unwrap_or(u8::MAX)]);
        u32::try_from(at).unwrap_or(u32::MAX)
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
            self.resources.extend(u32_of(variant.octets));
            lines_at += variant.lines.len();
        }
        self.resources.extend(path);
        for variant in &page.variants {
            self.resources.extend(variant.lines.as_bytes());
        }
        at
    }

    fn redirect(&mut self, host: u32, path: &[u8], status: u16, location: &str) -> u32 {
        let at = self.start(host, path, REDIRECT, 0);
        self.resources.extend(status.to_le_bytes());
        self.resources.extend(u16_of(location.len()));
        self.resources.extend([0; 4]);
        self.resources.extend(path);
        self.resources.extend(location.as_bytes());
        at
    }
}
