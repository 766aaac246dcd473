//! The daemon's page in a real browser with scripts disabled. `cargo xtask test --browser` installs one.
//!
//! The pictures stay in `target/browser`, for a person to look at.
#![forbid(unsafe_code)]

mod page;

use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::workspace;
use mayfly_summon::status::{
    BirthStep, FrameCounts, ServiceStatus, ShownState, SummonStatus, Totals, serve,
};
use page::Page;

/// Text that would be markup if the page did not escape it.
const HOSTILE: &str = "<b>bold</b><script>document.title='run'</script>";

fn status() -> SummonStatus {
    let steps = [
        ("query", 0, 0),
        ("answer", 0, 120),
        ("domain", 180, 1_400),
        ("keys (xenstored)", 1_500, 9_400),
        ("connects (netback)", 2_300, 10_900),
        ("unpause", 11_000, 11_060),
        ("SYN-ACK", 11_640, 11_640),
        ("first byte", 12_400, 12_400),
    ];
    let step = |(what, from_us, to_us): (&str, u64, u64)| BirthStep {
        what: what.to_owned(),
        from_us,
        to_us,
    };
    let service = |name: &str, state| ServiceStatus {
        name: name.to_owned(),
        hosts: vec![format!("{name}.example.test")],
        state,
        memory: 8,
        births: 4,
        frames: FrameCounts::default(),
        ..ServiceStatus::default()
    };
    let www = ServiceStatus {
        domid: Some(12),
        uptime_ms: Some(83_400),
        requests: Some(1234),
        last_boot: steps.map(step).to_vec(),
        ..service("www", ShownState::Running)
    };
    let wiki = ServiceStatus {
        last_boot: vec![
            step(("connects (netback)", 900, 2_100)),
            step(("SYN-ACK", 2_300, 2_300)),
        ],
        ..service("wiki", ShownState::Asleep)
    };
    let hostile = ServiceStatus {
        last_trouble: Some(format!(
            "the image /guest/none: No such file or directory {HOSTILE}"
        )),
        failures: 3,
        births: 0,
        ..service(HOSTILE, ShownState::BackedOff)
    };
    SummonStatus {
        uptime_ms: 7_384_000,
        services: vec![
            www,
            wiki,
            hostile,
            service("mail", ShownState::BeingBorn),
            service("news", ShownState::Queued),
        ],
        totals: Totals {
            queries: [
                ("noerror".into(), 31),
                ("nxdomain".into(), 2),
                ("refused".into(), 5),
            ]
            .into(),
            wakes: [("dns".into(), 3), ("syn".into(), 5)].into(),
            running: 1,
            memory: 8,
            queued: 1,
            pool: 2,
            ..Totals::default()
        },
    }
}

/// The red, green and blue of the first pixel, which is the page's background.
fn corner(picture: &[u8]) -> Result<[u8; 3]> {
    let mut reader = png::Decoder::new(Cursor::new(picture)).read_info()?;
    let size = reader.output_buffer_size();
    let mut pixels = vec![0; size.context("a picture without an end")?];
    reader.next_frame(&mut pixels)?;
    match pixels.as_slice() {
        [r, g, b, ..] => Ok([*r, *g, *b]),
        _ => bail!("an empty picture"),
    }
}

fn open() -> Result<Page> {
    let address = serve(([127, 0, 0, 1], 0).into(), || Arc::new(status()))?;
    Page::open(&format!("http://{address}/"))
}

#[test]
fn the_page_is_there_without_a_script() -> Result<()> {
    let mut page = open()?;
    let dom = page.html()?;
    for name in ["www", "wiki", "mail", "news"] {
        let row = format!("<th scope=\"row\">{name}</th>");
        ensure!(dom.contains(&row), "no row of {name} in {dom}");
    }
    for state in ["running", "asleep", "backed-off", "being-born", "queued"] {
        let cell = format!("class=\"state {state}\">{state}</span>");
        ensure!(dom.contains(&cell), "no {state} in {dom}");
    }
    // The pictures in the browser's document: SVG elements, one for each step.
    let count = |part: &str| dom.matches(part).count();
    ensure!(
        count("<svg ") == 2 && count("</svg>") == 2,
        "{} pictures",
        count("<svg ")
    );
    ensure!(count("<rect ") == 10, "{} bars", count("<rect "));
    // A name is shown as text, and no script has run.
    ensure!(
        count("<script") == 0 && count("<b>") == 0 && count("&lt;b&gt;bold") > 1,
        "{dom}"
    );
    ensure!(
        dom.contains("<title>hatch summon: 1 of 5 run</title>"),
        "{dom}"
    );
    Ok(())
}

/// The page for a screen reader.
#[test]
fn it_can_be_heard() -> Result<()> {
    let nodes = open()?.accessible()?;
    let has = |role: &str, name: &str| nodes.iter().any(|node| node.0 == role && node.1 == name);
    let some = |role: &str| nodes.iter().filter(|node| node.0 == role).count();
    for (role, name) in [
        ("heading", "Services"),
        ("columnheader", "Last birth"),
        ("rowheader", "wiki"),
        ("cell", "running"),
        ("image", "The last birth of www"),
        ("table", "Services"),
        ("table", "Wakes"),
    ] {
        ensure!(has(role, name), "no {role} {name:?} in {nodes:?}");
    }
    ensure!(some("table") == 4, "{} tables", some("table"));
    Ok(())
}

#[test]
fn it_follows_light_and_dark() -> Result<()> {
    let folder = workspace().join("target/browser");
    fs::create_dir_all(&folder)?;
    let mut page = open()?;
    // The style sheet's colours show that it was loaded, as the page's policy allows.
    for (scheme, background) in [("light", [0xff, 0xff, 0xff]), ("dark", [0x0d, 0x11, 0x17])] {
        let picture = page.picture(scheme)?;
        fs::write(folder.join(format!("{scheme}.png")), &picture)?;
        let found = corner(&picture)?;
        ensure!(
            found == background,
            "{scheme}: the background is {found:02x?}"
        );
    }
    Ok(())
}
