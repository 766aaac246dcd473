//! Compares hatch's reading of configuration files with that of `xl create -N`: both accept the same files, with the
//! same values. Each difference is listed here with its reason, and a listed difference that has disappeared is an
//! error too.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::birth::{HATCH, Place};
use crate::cases::Case;
use crate::hatch::json;

pub(crate) const CASES: &[Case] = &[("configurations are read as xl reads them", as_xl_reads_them)];

/// The relation of hatch's reading to xl's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// Both accept the file, with the same values, or both refuse it.
    Same,
    /// Only xl accepts the file.
    Stricter,
    /// Only hatch accepts the file.
    Laxer,
}

use Is::{Laxer, Same, Stricter};

/// The minimal configuration, to which each case is appended unless it begins with `name` or `type` itself.
const LEAST: &str = "name = 'm'\ntype = 'pvh'\nkernel = '/guest/mayfly'\nmemory = 8\n";

/// A byte order mark.
const BOM: &str = "\u{feff}";

/// Reasons for a difference.
const SAFE: &str = "xl passes over it with a warning, and makes another guest than was meant";
const UNKNOWN: &str = "xl takes any name that it does not know";
const EDITORS: &str = "editors leave it, and nothing else can be meant";
const LACKS: &str = "hatch can't do it, and says so";
const DEFAULTS: &str = "xl has a default that nobody could want";

/// Syntax and common idioms: xl.cfg(5), xl-network-configuration(5), Xen's own examples, and files in the wild.
const SYNTAX: &[(&str, Is, &str)] = &[
    ("", Same, ""),
    ("# a comment\n  # another\n\n", Same, ""),
    ("extra = \"a#b\" # c", Laxer, EDITORS),
    ("extra = \"a#b\" # c\n", Same, ""),
    ("extra = 'it is \"so\"'\n", Same, ""),
    ("extra = \"it is 'so'\"\n", Same, ""),
    (r#"extra = "\"a\" \'b\' \\ \t \n \a\b\f\r\v c""#, Same, ""),
    (r#"extra = "\q""#, Same, ""),
    (r#"extra = "\x41""#, Same, ""),
    (
        r#"extra = "\101""#,
        Stricter,
        "xl puts nothing in its place",
    ),
    ("extra = 'a\\\nb'\n", Same, ""),
    ("extra = 'a\n", Same, ""),
    ("extra = '''ip=dhcp'''\n", Same, ""),
    ("extra = 'a' 'b'\n", Same, ""),
    ("extra = 'a' + 'b'\n", Same, ""),
    ("import os\n", Same, ""),
    ("def f():\n  return 1\n", Same, ""),
    ("extra = 'a'\nextra += ' b'\nextra += 'c'\n", Same, ""),
    ("extra += 'only'\n", Same, ""),
    ("extra = 'a'; extra = 'b';\n", Same, ""),
    ("extra\t=\t'a'\t;\n", Same, ""),
    ("extra = 'a'\r\n", Laxer, EDITORS),
    ("extra = 'a'\u{c}\n", Same, ""),
    ("\u{b}extra = 'a'\n", Same, ""),
    ("extra = 'caf\u{e9}'\n", Same, ""),
    ("extra = a\n", Same, ""),
    ("Extra = 'a'\n", Same, ""),
    ("extra =\n'a'\n", Same, ""),
    ("extra = ['a']\n", Stricter, SAFE),
    ("vif = [ 'bridge=b' 'bridge=c' ]\n", Same, ""),
    ("vif = [ ]\n", Same, ""),
    ("vif = [\n\n 'bridge=b', # one\n\n]\n", Same, ""),
    ("vif = [ , ]\n", Same, ""),
    ("vif = [ 'bridge=b' ]\nvif += [ ]\n", Same, ""),
    ("vif = []\nvif += [ 'bridge=b' ]\n", Same, ""),
    ("vif = 'x'\nvif += [ 'bridge=b' ]\n", Same, ""),
    ("vif = [ [ 'bridge=b' ] ]\n", Stricter, SAFE),
    ("vif = 'bridge=b'\n", Stricter, SAFE),
    ("x.y = 1\n", Stricter, UNKNOWN),
    ("nested = 1\n", Stricter, UNKNOWN),
    ("memory = 0x10\n", Same, ""),
    ("memory = '0X10'\n", Same, ""),
    ("memory = 020\n", Same, ""),
    ("memory = ' +16'\n", Same, ""),
    ("memory = -16\n", Same, ""),
    ("memory = 16m\n", Same, ""),
    ("memory = '16m'\n", Stricter, SAFE),
    ("memory = 8\nmemory += 8\n", Stricter, SAFE),
    ("memory = [8]\n", Stricter, SAFE),
];

/// Parameters.
const PARAMETERS: &[(&str, Is, &str)] = &[
    ("maxmem = 16\n", Same, ""),
    ("maxmem = 8\n", Same, ""),
    (
        "maxmem = 4\n",
        Stricter,
        "xl finds it out when it makes the guest",
    ),
    (
        "name = 'm'\ntype = 'pvh'\nkernel = '/k'\nmaxmem = 16\n",
        Same,
        "",
    ),
    (
        "name = 'm'\ntype = 'pvh'\nkernel = '/k'\n",
        Stricter,
        DEFAULTS,
    ),
    ("name = 'm'\ntype = 'pvh'\nmemory = 8\n", Same, ""),
    ("type = 'pvh'\nkernel = '/k'\nmemory = 8\n", Same, ""),
    (
        "name = 'm'\nkernel = '/k'\nmemory = 8\n",
        Stricter,
        DEFAULTS,
    ),
    (
        "name = 'm'\nkernel = '/k'\nmemory = 8\nbuilder = 'generic'\n",
        Stricter,
        LACKS,
    ),
    ("type = 'pv'\n", Stricter, LACKS),
    ("type = 'hvm'\n", Stricter, LACKS),
    ("type = 'x'\n", Same, ""),
    (
        "builder = 'generic'\n",
        Laxer,
        "old files have it, and the type is said beside it",
    ),
    ("builder = 'hvm'\n", Same, ""),
    ("builder = 'linux'\n", Same, ""),
    ("uuid = '11223344-5566-7788-99aa-bbccddeeff00'\n", Same, ""),
    ("uuid = '11223344-5566-7788-99AA-BBCCDDEEFF00'\n", Same, ""),
    ("uuid = '1122'\n", Same, ""),
    ("vcpus = 1\nmaxvcpus = 1\n", Same, ""),
    ("vcpus = 2\n", Stricter, LACKS),
    ("cpus = 'all'\n", Same, ""),
    ("cpus = '0'\n", Stricter, LACKS),
    ("pool = 'Pool-0'\n", Same, ""),
    ("cpu_weight = 256\ncap = 0\n", Same, ""),
    ("hap = 1\nacpi = 1\nnomigrate = 1\noos = 1\n", Same, ""),
    ("localtime = 0\nrtc_timeoffset = 0\n", Same, ""),
    ("localtime = 1\n", Same, ""),
    (
        "nestedhvm = 0\npassthrough = 'disabled'\ndriver_domain = 0\n",
        Same,
        "",
    ),
    (
        "max_event_channels = 1023\nmax_maptrack_frames = 0\ncpuid = []\npvh = 1\n",
        Same,
        "",
    ),
    ("timer_mode = 1\n", Same, ""),
    ("timer_mode = 'no_delay_for_missed_ticks'\n", Same, ""),
    (
        "boot = 'n'\napic = 1\npae = 1\nserial = 'pty'\nvnc = 0\nsdl = 0\nstdvga = 1\nusb = 1\n",
        Same,
        "",
    ),
    ("serial = [ 'pty', '/dev/ttyS1' ]\n", Same, ""),
    ("device_model_version = 'qemu-xen'\n", Same, ""),
    (
        "disk = []\npci = []\nvfb = []\nirqs = []\nioports = []\n",
        Same,
        "",
    ),
    (
        "disk = [ '/dev/vg/guest-volume,raw,xvda,rw' ]\n",
        Stricter,
        LACKS,
    ),
    ("tsc_mode = 'native'\n", Same, ""),
    ("tsc_mode = 'NATIVE'\n", Same, ""),
    ("tsc_mode = 2\n", Same, ""),
    ("tsc_mode = '0x1'\n", Same, ""),
    ("tsc_mode = 'fast'\n", Same, ""),
    ("ramdisk = '/site'\n", Same, ""),
    ("cmdline = 'a b'\n", Same, ""),
    ("root = '/dev/xvda1'\nextra = 'ro'\n", Same, ""),
    ("root = '/dev/xvda1'\n", Same, ""),
    ("cmdline = 'a'\nextra = 'b'\n", Same, ""),
    ("extra = 'console=hvc0 ip=10.0.2.80/24'\n", Same, ""),
    (
        "on_poweroff = 'destroy'\non_reboot = 'restart'\non_crash = 'preserve'\non_watchdog = 'destroy'\n",
        Same,
        "",
    ),
    ("on_crash = 'rename-restart'\n", Stricter, LACKS),
    ("on_crash = 'explode'\n", Same, ""),
    ("seclabel = 'system_u:system_r:domU_t'\n", Stricter, LACKS),
];

/// Network devices.
const VIFS: &[(&str, Is, &str)] = &[
    ("vif = [ '' ]\n", Same, ""),
    (
        "vif = [ 'mac=00:16:3E:74:3d:76,bridge=xenbr0' ]\n",
        Same,
        "",
    ),
    ("vif = [ 'mac=0:16:3e:1:2:3' ]\n", Same, ""),
    ("vif = [ 'mac=00-16-3e-01-02-03' ]\n", Same, ""),
    ("vif = [ 'mac=00:16:3e:01:02' ]\n", Stricter, SAFE),
    (
        "vif = [ 'mac=01:16:3e:01:02:03' ]\n",
        Stricter,
        "it is a group's",
    ),
    ("vif = [ ' bridge=b,  mac=00:16:3e:01:02:03,' ]\n", Same, ""),
    ("vif = [ 'ip=10.0.2.80' ]\n", Stricter, LACKS),
    ("vif = [ 'rate=10Mb/s' ]\n", Same, ""),
    ("vif = [ 'rate=250KB/s' ]\n", Same, ""),
    ("vif = [ 'rate=1MB/s@20ms' ]\n", Same, ""),
    ("vif = [ 'rate=1GB/s@5' ]\n", Same, ""),
    ("vif = [ 'rate=1Mb' ]\n", Same, ""),
    ("vif = [ 'rate=x' ]\n", Same, ""),
    ("vif = [ 'mtu=9000' ]\n", Same, ""),
    ("vif = [ 'mtu=x' ]\n", Same, ""),
    ("vif = [ 'type=vif,devid=0,backend=0' ]\n", Same, ""),
    ("vif = [ 'model=e1000' ]\n", Same, ""),
    ("vif = [ 'bridge=b,script=vif-bridge' ]\n", Same, ""),
    (
        "vif = [ 'bridge=b,script=/etc/xen/scripts/vif-bridge' ]\n",
        Same,
        "",
    ),
    (
        "vif = [ 'script=vif-route,ip=192.0.2.80' ]\n",
        Stricter,
        LACKS,
    ),
    ("vif = [ 'script=vif-nat,ip=10.1.0.2' ]\n", Stricter, LACKS),
    (
        "vif = [ 'bridge=b,script=vif-openvswitch' ]\n",
        Stricter,
        LACKS,
    ),
    ("vif = [ 'bogus=1' ]\n", Stricter, SAFE),
    ("vif = [ 'bridge=b', 'bridge=c' ]\n", Stricter, LACKS),
    (
        "vif = [\n  # the only one\n  'bridge=xenbr0,rate=10Mb/s',\n]\n",
        Same,
        "",
    ),
];

/// The complete files of all cases.
fn files() -> Vec<(Vec<u8>, Is, &'static str)> {
    let with = |bytes: &[u8]| [LEAST.as_bytes(), bytes].concat();
    let mut all: Vec<_> = [SYNTAX, PARAMETERS, VIFS]
        .concat()
        .into_iter()
        .map(|(text, is, why)| {
            let whole = text.starts_with("name = 'm'\n") || text.starts_with("type = 'pvh'\n");
            let bytes = if whole {
                text.into()
            } else {
                with(text.as_bytes())
            };
            (bytes, is, why)
        })
        .collect();
    all.extend([
        ([BOM.as_bytes(), LEAST.as_bytes()].concat(), Laxer, EDITORS),
        (with(b"extra = 'a' # f\xfcr Z\xfcrich\n"), Same, ""),
        (with(b"extra = 'f\xfcr'\n"), Stricter, "values are UTF-8"),
        (
            b"name='m';type=\"pvh\"\t;\tkernel='/k';memory=8;vif=['bridge=b'];\n".to_vec(),
            Same,
            "",
        ),
    ]);
    all
}

/// Reads every file with both programs, and prints both results.
const BOTH: &str = r#"
cd /run/configs
for file in *.cfg; do
    for tool in xl hatch; do
        case $tool in
            xl) xl -N create $file >out 2>err;;
            hatch) HATCH create -N $file >out 2>err;;
        esac
        echo "=== $file $tool $?"
        cat out
        echo "--- $(tr '\n' ' ' <err)"
    done
done
"#;

/// The result of one of the programs.
struct Read {
    /// The configuration, unless it was refused.
    taken: Option<Value>,
    said: String,
}

fn reads(text: &str) -> Result<Vec<Read>> {
    let mut all = Vec::new();
    for part in text.split("=== ").skip(1) {
        let (head, rest) = part.split_once('\n').context("a head")?;
        let (out, said) = rest.rsplit_once("--- ").context("what was said")?;
        let taken = match head.ends_with(" 0") {
            true => Some(json(out)?),
            false => None,
        };
        all.push(Read {
            taken,
            said: said.trim().to_owned(),
        });
    }
    Ok(all)
}

/// The differences between values that both have. A value that xl omits is a default, which hatch may set differently.
fn differences(xl: &Value, hatch: &Value) -> Vec<String> {
    let (create, build, nic) = (&xl["c_info"], &xl["b_info"], &xl["nics"][0]);
    let kib = |key: &str| build[key].as_u64();
    let memory = kib("target_memkb").or_else(|| kib("max_memkb"));
    let rate = nic["rate_bytes_per_interval"].as_u64().map(|bytes| {
        let interval = nic["rate_interval_usecs"].as_u64().unwrap_or_default();
        format!("{bytes},{interval}").into()
    });
    let lower = |value: &Value| match value.as_str() {
        Some(text) => text.to_lowercase().into(),
        None => value.clone(),
    };
    let mut pairs = vec![
        ("name", create["name"].clone(), hatch["name"].clone()),
        (
            "memory",
            memory.map(|kib| kib / 1024).into(),
            hatch["memory"].clone(),
        ),
        ("kernel", build["kernel"].clone(), hatch["kernel"].clone()),
        (
            "ramdisk",
            build["ramdisk"].clone(),
            hatch["ramdisk"].clone(),
        ),
        ("mac", nic["mac"].clone(), lower(&hatch["vif"]["mac"])),
        (
            "bridge",
            nic["bridge"].clone(),
            hatch["vif"]["bridge"].clone(),
        ),
        (
            "rate",
            rate.unwrap_or_default(),
            hatch["vif"]["rate"].clone(),
        ),
        ("mtu", nic["mtu"].clone(), hatch["vif"]["mtu"].clone()),
        (
            "tsc_mode",
            build["tsc_mode"].clone(),
            lower(&hatch["tsc_mode"]),
        ),
    ];
    if !hatch["uuid"].is_null() {
        pairs.push(("uuid", create["uuid"].clone(), hatch["uuid"].clone()));
    }
    let cmdline = build["cmdline"].as_str().unwrap_or_default();
    pairs.push(("cmdline", cmdline.into(), hatch["cmdline"].clone()));
    for action in ["on_poweroff", "on_reboot", "on_watchdog", "on_crash"] {
        pairs.push((action, xl[action].clone(), lower(&hatch["actions"][action])));
    }
    let mut different: Vec<_> = pairs
        .into_iter()
        .filter(|(_, xl, hatch)| !xl.is_null() && xl != hatch)
        .map(|(key, xl, hatch)| format!("{key}: xl has {xl}, hatch {hatch}"))
        .collect();
    let has_vif = [
        xl["nics"].as_array().is_some_and(|nics| !nics.is_empty()),
        !hatch["vif"].is_null(),
    ];
    if has_vif[0] != has_vif[1] {
        different.push(format!("a vif: {has_vif:?}"));
    }
    different
}

fn as_xl_reads_them(place: &Place) -> Result<()> {
    place.lab.shell("rm -rf /run/configs; mkdir /run/configs")?;
    let files = files();
    for (number, (bytes, ..)) in files.iter().enumerate() {
        let path = format!("/run/configs/{number:03}.cfg");
        place.lab.put(&path, 0o644, bytes)?;
    }
    let reads = reads(&place.lab.shell(&BOTH.replace("HATCH", HATCH))?)?;
    place.lab.shell("rm -r /run/configs")?;
    ensure!(reads.len() == 2 * files.len(), "{} answers", reads.len());
    let mut wrong = Vec::new();
    for ((bytes, is, why), pair) in files.iter().zip(reads.chunks_exact(2)) {
        let [xl, hatch] = pair else { continue };
        let (found, different) = match (&xl.taken, &hatch.taken) {
            (Some(xl), Some(hatch)) => (Same, differences(xl, hatch)),
            (None, None) => (Same, Vec::new()),
            (Some(_), None) => (Stricter, Vec::new()),
            (None, Some(_)) => (Laxer, Vec::new()),
        };
        if found != *is || !different.is_empty() || (*is == Same) != why.is_empty() {
            let text = String::from_utf8_lossy(bytes);
            let text = text.strip_prefix(LEAST).unwrap_or(&text).to_owned();
            wrong.push(format!(
                "{text:?} is {found:?} and not {is:?}; {different:?}; xl says {:?}, hatch {:?}",
                xl.said, hatch.said
            ));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        files.len(),
        wrong.join("\n")
    );
    Ok(())
}
