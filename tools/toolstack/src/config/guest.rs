//! A guest as a file and the command line describe it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{ConfigProblem, ConfigProblems, shown};
use super::known;
use super::settings::{self, FileSettings, number};
use super::vif::{self, VifEntry};
use crate::builder::{self, Connect, EndAction, EndActions, GuestConfig, Network, Watched};
use mayfly_xen::TscMode;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// The longest command line, in bytes. `hvm_start_info` has no limit; Linux has 2048, and Xen 1024 for dom0. hatch
/// reserves a page, less the NUL.
const CMDLINE_MAX: usize = 4095;
/// libxl's default for `bridge`.
pub const BRIDGE: &str = "xenbr0";
/// The OUI of Xen's MAC addresses (`libxl__device_nic_setdefault`).
const OUI: [u8; 3] = [0x00, 0x16, 0x3e];
/// The most memory of a guest, in MiB: what fits below the devices, as in the builder.
const MEMORY_MAX: u64 = 3840;

/// The placeholder for the address of hatch's command line (`--ip`).
pub(super) const ADDRESS: &str = "{ip}";

/// The description of a guest that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestFile {
    /// The name.
    pub name: String,
    /// The UUID, if the file has one.
    pub uuid: Option<[u8; 16]>,
    /// The file of the image.
    pub kernel: PathBuf,
    /// The file of the site's pack.
    pub ramdisk: Option<PathBuf>,
    /// The command line, in which `{ip}` may stand for `address`.
    pub(super) cmdline: String,
    /// The address that replaces `{ip}`.
    pub(super) address: Option<String>,
    /// The memory, in MiB.
    pub memory: u64,
    /// The network interface, if there is one.
    pub vif: Option<VifEntry>,
    /// The behaviour of RDTSC.
    pub tsc: TscMode,
    /// The actions at its end.
    pub actions: EndActions,
    /// Warnings of settings without effect.
    pub warnings: ConfigProblems,
    /// Warnings of settings that have no effect unless `hatch watch` runs.
    pub unwatched: ConfigProblems,
}

/// The values of hatch's command line that override the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `name`.
    pub name: Option<String>,
    /// In place of `memory`.
    pub memory: Option<u64>,
    /// In place of `kernel`.
    pub kernel: Option<PathBuf>,
    /// In place of `ramdisk`.
    pub ramdisk: Option<PathBuf>,
    /// In place of the whole command line.
    pub extra: Option<String>,
    /// In place of the vif's address.
    pub mac: Option<String>,
    /// In place of the vif's bridge.
    pub bridge: Option<String>,
    /// In place of all `ip=` words of the command line; or one of them in place of `{ip}` in it.
    pub ip: Vec<String>,
}

/// Parameters of devices that mayfly does not support. xl's own examples have them as empty lists.
const DEVICES: [&str; 19] = [
    "disk", "pci", "vfb", "usbctrl", "usbdev", "vtpm", "p9", "channel", "vkb", "vdispl", "vsnd",
    "dtdev", "ioports", "irqs", "iomem", "pvcalls", "virtio", "vif2", "vnuma",
];

/// Reads a file and applies the overrides.
///
/// # Errors
/// The errors of the file, each with its line.
pub fn load(path: &Path, overrides: &Overrides) -> Result<GuestFile, ConfigProblems> {
    parse(
        &path.display().to_string(),
        &settings::read(path)?,
        overrides,
    )
}

/// The same for a file's contents; `source` is the name in messages.
///
/// # Errors
/// The errors of the text, each with its line.
pub fn parse(source: &str, text: &str, overrides: &Overrides) -> Result<GuestFile, ConfigProblems> {
    let mut settings = FileSettings::parse(source, text);
    let mut warnings = ConfigProblems {
        source: source.to_owned(),
        ..ConfigProblems::default()
    };
    let mut unwatched = warnings.clone();
    let actions = actions(&mut settings, &mut warnings, &mut unwatched);
    known::settle(&mut settings, &mut warnings);
    let guest = guest(&mut settings, &mut warnings, overrides);
    settings.refuse_rest();
    match guest {
        Some(guest) if settings.problems.all.is_empty() => Ok(GuestFile {
            actions,
            warnings,
            unwatched,
            ..guest
        }),
        _ => {
            settings.problems.all.sort_by_key(|problem| problem.line);
            Err(settings.problems)
        }
    }
}

/// `None` only if a problem was added.
fn guest(
    settings: &mut FileSettings,
    warnings: &mut ConfigProblems,
    overrides: &Overrides,
) -> Option<GuestFile> {
    let vif = vif(settings, warnings, overrides);
    let uuid = uuid(settings);
    let tsc = tsc(settings);
    let cmdline = cmdline(settings, warnings, overrides);
    kind(settings);
    for name in ["vcpus", "maxvcpus"] {
        settings.number(name, 1..=1);
    }
    for name in DEVICES {
        if let Some((line, _)) = settings.list(name).unwrap_or_default().first() {
            settings.problems.add(
                *line,
                format!("{name}: there is no driver for it, it can only be empty"),
            );
        }
    }
    let memory = memory(settings, warnings, overrides);
    let kernel = path(settings, "kernel", overrides.kernel.as_ref(), true);
    let ramdisk = path(settings, "ramdisk", overrides.ramdisk.as_ref(), false);
    let (line, name) = match &overrides.name {
        Some(name) => {
            settings.text("name");
            (0, name.clone())
        }
        None => settings.needed("name")?,
    };
    let guest = GuestFile {
        name,
        uuid,
        kernel: kernel?,
        ramdisk,
        cmdline,
        address: overrides.ip.first().cloned(),
        memory: memory?,
        vif,
        tsc,
        actions: EndActions::default(),
        warnings: ConfigProblems::default(),
        unwatched: ConfigProblems::default(),
    };
    // The builder's check comes here too, so that its errors have a line.
    if let Err(error) = guest.config([0; 16]).check() {
        settings.problems.add(line, error.to_string());
    }
    Some(guest)
}

/// The memory, in MiB. `maxmem` is the limit of a balloon, and replaces `memory` where that is missing, as in xl.
fn memory(
    settings: &mut FileSettings,
    warnings: &mut ConfigProblems,
    overrides: &Overrides,
) -> Option<u64> {
    let is_said = ["memory", "maxmem"].map(|name| settings.has(name)) != [false; 2];
    let said = settings.number("memory", 1..=MEMORY_MAX);
    let most = settings.number("maxmem", 1..=u64::MAX);
    match (said, most) {
        (Some((_, memory)), Some((line, most))) if most < memory => settings
            .problems
            .add(line, format!("maxmem is {most}, and less than memory")),
        (Some((_, memory)), Some((line, most))) if most > memory => warnings.add(
            line,
            "maxmem has no effect: the guest gets `memory`, and has no balloon",
        ),
        _ => {}
    }
    let memory = match (overrides.memory, said.or(most)) {
        (Some(memory), _) => (0, memory),
        (None, Some(said)) => said,
        (None, None) => {
            // The error about a wrong value is enough.
            if !is_said {
                settings.problems.add(0, "memory is missing");
            }
            return None;
        }
    };
    match memory {
        (_, memory @ 1..=MEMORY_MAX) => Some(memory),
        (line, memory) => {
            let what = format!("memory is {memory}, not 1 to {MEMORY_MAX}");
            settings.problems.add(line, what);
            None
        }
    }
}

fn kind(settings: &mut FileSettings) {
    if let Some((line, kind)) = settings.needed("type")
        && !kind.eq_ignore_ascii_case("pvh")
    {
        settings.problems.add(
            line,
            format!("type is {}, and hatch makes only \"pvh\"", shown(&kind)),
        );
    }
}

fn path(
    settings: &mut FileSettings,
    name: &str,
    instead: Option<&PathBuf>,
    needed: bool,
) -> Option<PathBuf> {
    if let Some(path) = instead {
        settings.text(name);
        return Some(path.clone());
    }
    let (_, path) = if needed {
        settings.needed(name)?
    } else {
        settings.text(name)?
    };
    // An empty path counts as none, as in xl.
    (!path.is_empty()).then(|| PathBuf::from(path))
}

fn uuid(settings: &mut FileSettings) -> Option<[u8; 16]> {
    let (line, text) = settings.text("uuid")?;
    // Of the notations of a UUID, only that with hyphens and nothing around it.
    let parsed = Uuid::try_parse(&text)
        .ok()
        .filter(|uuid| text.len() == Hyphenated::LENGTH && !uuid.is_nil());
    if parsed.is_none() {
        settings.problems.add(
            line,
            format!(
                "uuid is {}, not like 11223344-5566-7788-99aa-bbccddeeff00",
                shown(&text)
            ),
        );
        return None;
    }
    parsed.map(Uuid::into_bytes)
}

fn tsc(settings: &mut FileSettings) -> TscMode {
    let Some((line, mode)) = settings.text("tsc_mode") else {
        return TscMode::Default;
    };
    let name = mode.to_ascii_lowercase();
    match (name.as_str(), number(&mode)) {
        ("default", _) | (_, Some(0)) => TscMode::Default,
        ("always_emulate", _) | (_, Some(1)) => TscMode::AlwaysEmulate,
        ("native", _) | (_, Some(2)) => TscMode::Native,
        _ => {
            settings
                .problems
                .add(line, format!("tsc_mode {} is not supported", shown(&mode)));
            TscMode::Default
        }
    }
}

fn cmdline(
    settings: &mut FileSettings,
    warnings: &mut ConfigProblems,
    overrides: &Overrides,
) -> String {
    let [whole, root, extra] = ["cmdline", "root", "extra"].map(|name| settings.text(name));
    let line = [&whole, &root, &extra]
        .into_iter()
        .flatten()
        .map(|(line, _)| *line)
        .max();
    let mut text = match (&overrides.extra, whole, root, extra) {
        (Some(extra), ..) => extra.clone(),
        (None, Some((line, whole)), root, extra) => {
            if root.is_some() || extra.is_some() {
                warnings.add(line, "root and extra have no effect beside cmdline");
            }
            whole
        }
        (None, None, Some((_, root)), Some((_, extra))) => format!("root={root} {extra}"),
        (None, None, Some((_, root)), None) => format!("root={root}"),
        (None, None, None, Some((_, extra))) => extra,
        (None, None, None, None) => String::new(),
    };
    if text.contains(ADDRESS) {
        // A template counts this address up, with any text around it.
        match overrides.ip.as_slice() {
            [_] => {}
            _ => settings.problems.add(
                line.unwrap_or(0),
                "the command line has {ip}: give one address with --ip",
            ),
        }
    } else if !overrides.ip.is_empty() {
        text = with_addresses(&text, &overrides.ip);
    }
    if text.len() > CMDLINE_MAX {
        let length = text.len();
        settings.problems.add(
            line.unwrap_or(0),
            format!("the command line has {length} bytes, more than {CMDLINE_MAX}"),
        );
    }
    if text.contains('\0') {
        settings
            .problems
            .add(line.unwrap_or(0), "the command line has a NUL");
    }
    text
}

/// A command line with these addresses in place of its own.
#[must_use]
pub fn with_addresses(cmdline: &str, addresses: &[String]) -> String {
    let words = cmdline.split_ascii_whitespace();
    let others = words.filter(|word| !word.starts_with("ip="));
    let addresses = addresses.iter().map(|ip| format!("ip={ip}"));
    let words: Vec<_> = others.map(String::from).chain(addresses).collect();
    words.join(" ")
}

fn vif(
    settings: &mut FileSettings,
    warnings: &mut ConfigProblems,
    overrides: &Overrides,
) -> Option<VifEntry> {
    let list = settings.list("vif").unwrap_or_default();
    if let Some((line, _)) = list.get(1) {
        settings
            .problems
            .add(*line, "the guest has a driver for one vif only");
    }
    let bridged = overrides.bridge.is_some();
    let first = list
        .first()
        .map(|(line, text)| vif::parse(*line, text, bridged, &mut settings.problems, warnings));
    let mut vif = match first {
        Some(vif) => vif,
        None if overrides.mac.is_some() || overrides.bridge.is_some() => VifEntry::default(),
        None => return None,
    };
    if let Some(text) = &overrides.mac {
        vif.mac = vif::mac(text);
        if vif.mac.is_none() {
            settings
                .problems
                .add(0, format!("{} is no MAC address of a device", shown(text)));
        }
    }
    if let Some(bridge) = &overrides.bridge {
        vif.bridge = Some(bridge.clone());
    }
    Some(vif)
}

fn actions(
    settings: &mut FileSettings,
    warnings: &mut ConfigProblems,
    unwatched: &mut ConfigProblems,
) -> EndActions {
    let mut one = |name: &str, action: &mut EndAction| {
        let Some((line, text)) = settings.text(name) else {
            return;
        };
        let (said, core) = match text.as_str() {
            "destroy" => (EndAction::Destroy, false),
            "restart" => (EndAction::Restart, false),
            "preserve" => (EndAction::Preserve, false),
            "coredump-destroy" => (EndAction::Destroy, true),
            "coredump-restart" => (EndAction::Restart, true),
            // xl's own default. Only a guest that does kexec asks for it.
            "soft-reset" if name == "on_soft_reset" => {
                warnings.add(line, "on_soft_reset=soft-reset: hatch destroys the guest");
                (EndAction::Destroy, false)
            }
            _ => {
                let what = format!(
                    "{name} is {}: hatch supports destroy, restart and preserve",
                    shown(&text)
                );
                return settings.problems.add(line, what);
            }
        };
        *action = said;
        if core {
            warnings.add(line, format!("{name}={text}: hatch dumps no core"));
        }
        if said == EndAction::Restart {
            let what = format!("{name}={text}: no `hatch watch` runs to do it");
            unwatched.add(line, what);
        }
    };
    let mut actions = EndActions::default();
    one("on_poweroff", &mut actions.on_poweroff);
    one("on_reboot", &mut actions.on_reboot);
    one("on_watchdog", &mut actions.on_watchdog);
    one("on_crash", &mut actions.on_crash);
    one("on_soft_reset", &mut actions.on_soft_reset);
    actions
}

/// The MAC address that is derived from a UUID or a name.
pub fn own_mac(seed: &[u8]) -> [u8; 6] {
    // The first bit is clear as in libxl's.
    let [a, b, c] = OUI;
    match Sha256::digest(seed).as_slice() {
        [d, e, f, ..] => [a, b, c, d & 0x7f, *e, *f],
        _ => [a, b, c, 0, 0, 0],
    }
}

impl GuestFile {
    /// The builder's configuration of the guest. `uuid` is used if the file has none.
    #[must_use]
    pub fn config(&self, uuid: [u8; 16]) -> GuestConfig {
        let vif = self.vif.as_ref().map(|vif| builder::GuestVif {
            mac: vif.mac.unwrap_or_else(|| self.own_mac()),
            bridge: vif.bridge.clone().unwrap_or_else(|| BRIDGE.to_owned()),
            ip: None,
            rate: vif.rate.clone(),
            mtu: vif.mtu,
        });
        GuestConfig {
            name: self.name.clone(),
            uuid: self.uuid.unwrap_or(uuid),
            memory: self.memory,
            cmdline: self.cmdline(),
            vif,
            connect: Connect::default(),
            console: false,
            tsc: self.tsc,
            network: Network::Netback,
            watched: None,
        }
    }

    /// The data for `hatch watch`.
    #[must_use]
    pub fn watched(&self) -> Watched {
        // `hatch watch` runs in another folder.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Watched {
            actions: self.actions,
            kernel: absolute(&self.kernel),
            ramdisk: self.ramdisk.as_ref().map(absolute),
        }
    }

    /// The command line.
    #[must_use]
    pub fn cmdline(&self) -> String {
        match &self.address {
            Some(address) => self.cmdline.replace(ADDRESS, address),
            None => self.cmdline.clone(),
        }
    }

    /// The MAC address of a guest whose file has none: always the same for the same UUID, or for the same name where
    /// there is no UUID.
    fn own_mac(&self) -> [u8; 6] {
        own_mac(match &self.uuid {
            Some(uuid) => uuid,
            None => self.name.as_bytes(),
        })
    }

    /// The warnings; without `hatch watch` there are more of them.
    pub fn warnings(&self, is_watched: bool) -> impl Iterator<Item = &ConfigProblem> {
        let unwatched = self.unwatched.all.iter().filter(move |_| !is_watched);
        self.warnings.all.iter().chain(unwatched)
    }
}
