//! An interface that is removed and plugged anew while a guest serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use mayfly_lab::GUEST;
use mayfly_pack::{Options, pack_dir};

use crate::birth::{BOUND, Birth, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("detached and attached while a file is loaded", attached),
    ("plugged anew with its keys in any order", any_order),
];

const PACK: &str = "/guest/large.mfs";
/// The size of the downloaded file in bytes.
const LENGTH: usize = 6 << 20;

/// Plugs the interface of domain $1 anew. The steps $2..., in their order, are of `back` (the back end's directory),
/// `backend`, `mac` and `state`. They are not in one transaction.
const PLUG: &str = r#"
d=$1; shift
f=/local/domain/$d/device/vif/0 b=/local/domain/0/backend/vif/$d/0 vif=vif$d.0
mac=$(xenstore-read $f/mac)
xenstore-rm $b
while [ -e /sys/class/net/$vif ]; do sleep 0.1; done
for step; do
    case $step in
        back)
            xenstore-write $b/frontend-id $d $b/frontend $f $b/online 1 $b/handle 0 $b/mac $mac \
                $b/bridge xenbr0 $b/script /etc/xen/scripts/vif-mayfly $b/state 1
            xenstore-chmod -r $b n0 r$d ;;
        backend) xenstore-write $f/backend $b ;;
        mac) xenstore-write $f/mac $mac ;;
        state) xenstore-write $f/state 1 ;;
    esac
    sleep 0.5
done
until [ -e /sys/class/net/$vif ]; do sleep 0.1; done
vif=$vif XENBUS_PATH=${b#/local/domain/0/} /etc/xen/scripts/vif-mayfly online
"#;

/// A guest that serves a file of [`LENGTH`] bytes, and the file.
pub(crate) fn with_file(place: &Place) -> Result<(Birth<'_>, Vec<u8>)> {
    let site = tempfile::tempdir()?;
    let www = site.path().join("www");
    std::fs::create_dir(&www)?;
    // The content does not repeat, so that it is not compressed.
    let mut word = 0x1234_5678_9abc_def1_u64;
    let file: Vec<u8> = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    })
    .take(LENGTH / 8)
    .flatten()
    .collect();
    std::fs::write(www.join("large.bin"), &file)?;
    let packed = pack_dir(site.path(), &Options::default());
    let packed = packed.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    place.lab.put(PACK, 0o644, &packed.to_vec()?)?;
    let birth = place.create("mayfly", &[&format!("ramdisk=\"{PACK}\""), "memory=24"])?;
    birth.ready()?;
    Ok((birth, file))
}

/// Downloads the file, and calls `meanwhile` when the first bytes have come.
pub(crate) fn load(
    server: SocketAddr,
    file: &[u8],
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, BOUND)?;
    stream.set_read_timeout(Some(BOUND))?;
    write!(
        stream,
        "GET /large.bin HTTP/1.1\r\nHost: {GUEST}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = vec![0; 65_536];
    stream.read_exact(&mut answer)?;
    meanwhile()?;
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let content = answer.get(head.context("no head")? + 4..).unwrap_or(&[]);
    ensure!(
        content == file,
        "{} bytes have come, of {}",
        content.len(),
        file.len()
    );
    Ok(())
}

fn attached(place: &Place) -> Result<()> {
    let (birth, file) = with_file(place)?;
    let lab = &place.lab;
    let mac = format!("/local/domain/{}/device/vif/0/mac", birth.domain);
    let mac = lab.run(&["xenstore-read", &mac])?.trim().to_owned();
    let mac = format!("mac={mac}");
    let attach = [
        "xl",
        "network-attach",
        "mayfly",
        "bridge=xenbr0",
        "script=vif-mayfly",
        &mac,
    ];
    for _ in 0..3 {
        load(lab.http()?, &file, || {
            lab.run(&["xl", "network-detach", "mayfly", "0"])?;
            lab.run(&attach).map(drop)
        })?;
    }
    birth.destroy()
}

fn any_order(place: &Place) -> Result<()> {
    let (birth, file) = with_file(place)?;
    let lab = &place.lab;
    lab.put("/guest/plug", 0o755, PLUG.as_bytes())?;
    for order in [
        "back backend mac state",
        "backend state mac back",
        "backend back state mac",
        "state mac backend back",
        "mac back state backend",
    ] {
        load(lab.http()?, &file, || {
            let domain = birth.domain;
            lab.shell(&format!("sh -e /guest/plug {domain} {order}"))
                .map(drop)
        })
        .with_context(|| format!("{order}; it says {:?}", birth.lines()))?;
    }
    birth.destroy()
}
