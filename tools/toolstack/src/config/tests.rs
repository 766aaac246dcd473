//! Valid files, invalid files, and arbitrary bytes.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::builder::EndAction;
use mayfly_xen::TscMode;

const LEAST: &str = "name = 'm'\ntype = 'pvh'\nkernel = '/k'\nmemory = 8\n";

fn read(text: &str) -> Result<GuestFile, ConfigProblems> {
    parse("test.cfg", text, &Overrides::default())
}

/// The errors of the least configuration with more lines, the first of which is line 5.
fn said(more: &str) -> String {
    read(&format!("{LEAST}{more}")).unwrap_err().to_string()
}

fn with(more: &str) -> GuestFile {
    read(&format!("{LEAST}{more}")).unwrap()
}

#[test]
fn the_example() {
    let text = include_str!("../../../examples/mayfly.cfg");
    let guest = read(text).unwrap();
    assert_eq!(guest.name, "mayfly");
    assert_eq!(guest.memory, 8);
    assert_eq!(guest.kernel.to_str(), Some("/guest/mayfly"));
    assert_eq!(
        guest.cmdline,
        "ip=10.0.2.80/24 ip=fd00:2::80/64 gw=10.0.2.2"
    );
    assert_eq!(guest.tsc, TscMode::Native);
    assert_eq!(guest.actions.on_crash, EndAction::Preserve);
    assert_eq!(
        guest.vif.as_ref().unwrap().bridge.as_deref(),
        Some("xenbr0")
    );
    // The script; and on_reboot = "restart" if there is no watch.
    assert_eq!(guest.warnings(true).count(), 1);
    assert_eq!(guest.warnings(false).count(), 2);
    let text = include_str!("../../../examples/linux.cfg");
    assert_eq!(read(text).unwrap().memory, 128);
}

#[test]
fn spellings() {
    for (text, expected) in [
        ("memory=16", 16),
        ("memory = \"16\"", 16),
        ("memory = '16' # sixteen", 16),
        ("memory=0x10", 16),
        ("memory=020", 16),
        ("memory=1;memory=16", 16),
        ("memory=[1]\nmemory=16", 16),
        ("\t memory\t=\t16 ;", 16),
        ("memory=16\r\nvcpus=1\r", 16),
        ("memory=16\n# the end, without a line end", 16),
    ] {
        assert_eq!(with(text).memory, expected, "{text}");
    }
    for vif in [
        "vif = ['bridge=br1']",
        "vif = [ \"bridge=br1\", ]",
        "vif=[\n\n'bridge=br1'\n,\n]\n",
        "vif = [ # a comment\n 'bridge=br1' # another\n]",
        "vif = [] \nvif += [ 'bridge=br1' ]",
        "vif = [ 'type=vif, bridge=br1,devid=0' ]",
    ] {
        assert_eq!(with(vif).vif.unwrap().bridge.unwrap(), "br1", "{vif}");
    }
    assert_eq!(with("extra = 'a'\nextra += ' b'").cmdline, "a b");
    assert_eq!(
        with("extra='x'\nroot='/dev/xvda'").cmdline,
        "root=/dev/xvda x"
    );
    assert_eq!(
        with(r#"extra = "it's \"so\" \\ \t""#).cmdline,
        "it's \"so\" \\ \t"
    );
    let both = with("extra='x'\ncmdline='y'");
    assert_eq!(
        (both.cmdline.as_str(), both.warnings(true).count()),
        ("y", 1)
    );
    assert_eq!(with("disk=[]\npci = [ ]").vif, None);
    assert_eq!(with("tsc_mode=2").tsc, TscMode::Native);
}

#[test]
fn spellings_of_files_that_others_wrote() {
    for (text, memory) in [
        ("memory = ' +0X10'", 16),
        ("maxmem = 16", 8),
        ("memory='8'\t;\tmaxmem=8;", 8),
        ("maxmem = 99999", 8),
    ] {
        assert_eq!(with(text).memory, memory, "{text}");
    }
    let only_most = LEAST.replace("memory", "maxmem");
    assert_eq!(read(&only_most).unwrap().memory, 8);
    let marked = format!("\u{feff}{LEAST}");
    assert_eq!(read(&marked).unwrap().name, "m");
    // Any bytes are allowed in a comment, and only there.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(LEAST.as_bytes()).unwrap();
    file.write_all(b"extra = 'ip=dhcp' # f\xfcr Z\xfcrich\n")
        .unwrap();
    let guest = load(file.path(), &Overrides::default()).unwrap();
    assert_eq!(guest.cmdline, "ip=dhcp");
    file.write_all(b"extra = 'f\xfcr'\n").unwrap();
    let said = load(file.path(), &Overrides::default()).unwrap_err();
    assert!(
        said.to_string().ends_with(":6: a string is not UTF-8"),
        "{said}"
    );
    // A `#` begins a comment only outside of strings.
    let hashed = with("extra = \"a#b\" # 'c'");
    assert_eq!(hashed.cmdline, "a#b");
}

#[test]
fn all_of_a_vif() {
    let vif = with("vif=['mac=00:16:3E:0:2:ff,bridge=b,rate=10Mb/s,mtu=9000']").vif;
    let vif = vif.unwrap();
    assert_eq!(vif.mac, Some([0, 0x16, 0x3e, 0, 2, 0xff]));
    assert_eq!(vif.rate.as_deref(), Some("62500,50000"));
    assert_eq!(vif.mtu, Some(9000));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (more, expected) in [
        ("nested = 1", "test.cfg:5: \"nested\" is not supported"),
        ("\n\nvcpus = 2", "test.cfg:7: vcpus is 2, not 1 to 1"),
        ("memory = 'x'", "test.cfg:5: memory is \"x\", not a number"),
        ("memory = -1", "test.cfg:5: \"-1\" cannot be understood"),
        (
            "memory = '-1'",
            "test.cfg:5: memory is \"-1\", not a number",
        ),
        (
            "memory = '1 '",
            "test.cfg:5: memory is \"1 \", not a number",
        ),
        (
            "memory = 99999999999999999999999",
            "test.cfg:5: memory is \"99999999999999999999999\", not a number",
        ),
        (
            "memory = 1000000",
            "test.cfg:5: memory is 1000000, not 1 to 3840",
        ),
        (
            "memory += 1",
            "test.cfg:4: memory is a number: += is for strings and lists",
        ),
        ("memory = []", "test.cfg:5: memory is no list"),
        (
            "maxmem = 4",
            "test.cfg:5: maxmem is 4, and less than memory",
        ),
        ("maxmem = 'x'", "test.cfg:5: maxmem is \"x\""),
        ("type = 'hvm'", "test.cfg:5: type is \"hvm\""),
        ("vif = 'bridge=b'", "test.cfg:5: vif has to be a list"),
        (
            "vif = [\n'bridge=b',\n'bridge=c'\n]",
            "test.cfg:7: the guest has a driver for one vif only",
        ),
        (
            "vif = [['bridge=b']]",
            "test.cfg:5: vif has a list inside its list",
        ),
        ("vif = ['bridge=a/b']", "is not a name of a network link"),
        (
            "vif = ['type=ioemu']",
            "test.cfg:5: vif: \"type=ioemu\" is not supported",
        ),
        (
            "vif = ['script=vif-route,bridge=b']",
            "test.cfg:5: vif: script \"vif-route\" is not run, and",
        ),
        (
            "vif = ['bridge=b,script=/etc/xen/scripts/vif-nat']",
            "script \"/etc/xen/scripts/vif-nat\" is not run, and",
        ),
        (
            "vif = ['script=vif-openvswitch,bridge=ovsbr0']",
            "script \"vif-openvswitch\" is not run, and",
        ),
        (
            "vif = ['script=vif-of-mine']",
            "name the bridge that the vif is to be a port of",
        ),
        (
            "vif = ['backend=driver']",
            "\"backend=driver\" is not supported",
        ),
        ("vif = ['untrusted']", "\"untrusted\" is not supported"),
        (
            "vif = ['mac=01:16:3e:00:00:01']",
            "is no MAC address of a device",
        ),
        (
            "vif = ['mac=00:16:3e:00:01']",
            "is no MAC address of a device",
        ),
        (
            "vif = ['mac=00:16:3e:00:01:+2']",
            "is no MAC address of a device",
        ),
        (
            "vif = ['ip=10.0.2.80']",
            "vif: \"ip=10.0.2.80\" asks for a filter of addresses",
        ),
        ("vif = ['mtu=12']", "is not 68 to 65535"),
        (
            "disk = ['phy:/dev/sda']",
            "test.cfg:5: disk: there is no driver",
        ),
        ("name = 'a/b'", "test.cfg:5: "),
        ("name = ''", "test.cfg:5: name is empty"),
        ("uuid = 'x'", "test.cfg:5: uuid is \"x\""),
        (
            "uuid = '+1223344-5566-7788-99aa-bbccddeeff00'",
            "test.cfg:5: uuid is",
        ),
        (
            "on_crash = 'explode'",
            "test.cfg:5: on_crash is \"explode\"",
        ),
        (
            "on_crash = 'rename-restart'",
            "test.cfg:5: on_crash is \"rename-restart\": hatch supports",
        ),
        (
            "tsc_mode = 'fast'",
            "test.cfg:5: tsc_mode \"fast\" is not supported",
        ),
        (
            "extra = 'a",
            "test.cfg:5: a string is not closed with ' on its line",
        ),
        ("extra = 'a\nb'", "test.cfg:5: a string is not closed"),
        ("extra = 'a\0b'", "test.cfg:5: a string has a NUL"),
        (
            "extra = '\\x41'",
            "test.cfg:5: a string has a numeric escape",
        ),
        (
            "extra = '\\q'",
            "test.cfg:5: a string has an unknown escape",
        ),
        (
            "vif = [ , ]",
            "test.cfg:5: there is a comma in place of a value for vif",
        ),
        (
            "vif = [ 'a' 'b' ]",
            "test.cfg:5: there is the string \"b\" in place of a comma or a ]",
        ),
        (
            "vif = [ 'a',",
            "there is the end of the file in place of a value for vif",
        ),
        ("extra = 'a' 'b'", "in place of the end of the line"),
        ("Extra = 'a'", "test.cfg:5: \"Extra\" cannot be understood"),
        ("= 1", "in place of the name of a parameter"),
        (
            "extra",
            "test.cfg:5: there is the end of the file in place of = behind extra",
        ),
        ("vif += 1\nvif += []", "vif is a list or a string, not both"),
    ] {
        let said = said(more);
        assert!(said.contains(expected), "{more:?} gives {said}");
    }
    for missing in ["name", "type", "kernel", "memory"] {
        let text: Vec<_> = LEAST
            .lines()
            .filter(|line| !line.starts_with(missing))
            .collect();
        let said = read(&text.join("\n")).unwrap_err().to_string();
        assert_eq!(said, format!("test.cfg: {missing} is missing"));
    }
}

#[test]
fn several_errors_are_told_at_once() {
    let said = said("vcpus = 2\n!\nnested = 1\n");
    let lines: Vec<_> = said
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(lines, ["test.cfg:5", "test.cfg:6", "test.cfg:7"]);
}

#[test]
fn the_longest_command_line() {
    assert_eq!(
        with(&format!("extra='{}'", "x".repeat(4095)))
            .cmdline()
            .len(),
        4095
    );
    assert!(said(&format!("extra='{}'", "x".repeat(4096))).contains("4096 bytes"));
}

#[test]
fn absurd_files() {
    // Unclosed brackets, and more errors than are listed.
    assert!(said(&format!("vif = {}", "[".repeat(100_000))).contains("nested deeper"));
    assert_eq!(said(&"!\n".repeat(100_000)).lines().count(), 20);
    assert_eq!(said(&"nested=1;".repeat(20_000)).lines().count(), 1);
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(100 << 20).unwrap();
    let said = load(file.path(), &Overrides::default())
        .unwrap_err()
        .to_string();
    assert!(
        said.ends_with("it has more than 256 KiB and is no configuration"),
        "{said}"
    );
    file.as_file().set_len(0).unwrap();
    let nowhere = load("/does/not/exist".as_ref(), &Overrides::default())
        .unwrap_err()
        .to_string();
    assert!(nowhere.starts_with("/does/not/exist: "), "{nowhere}");
}

#[test]
fn what_the_command_line_says_instead() {
    let overrides = Overrides {
        name: Some("other".to_owned()),
        memory: Some(32),
        kernel: Some("/other".into()),
        ramdisk: Some("/site".into()),
        mac: Some("00:16:3e:00:00:09".to_owned()),
        bridge: Some("br9".to_owned()),
        ip: vec!["10.9.0.1/24".to_owned(), "fd00::9/64".to_owned()],
        extra: None,
    };
    let text = format!("{LEAST}extra='ip=1.2.3.4/8 gw=10.0.0.1'");
    let guest = parse("test.cfg", &text, &overrides).unwrap();
    assert_eq!((guest.name.as_str(), guest.memory), ("other", 32));
    assert_eq!(guest.cmdline, "gw=10.0.0.1 ip=10.9.0.1/24 ip=fd00::9/64");
    let config = guest.config([1; 16]);
    assert_eq!(config.vif.unwrap().mac, [0, 0x16, 0x3e, 0, 0, 9]);
    assert_eq!(config.uuid, [1; 16]);
    // Overrides are checked like the file.
    for bad in [
        Overrides {
            name: Some("a/b".to_owned()),
            ..Overrides::default()
        },
        Overrides {
            memory: Some(1 << 40),
            ..Overrides::default()
        },
        Overrides {
            mac: Some("x".to_owned()),
            ..Overrides::default()
        },
        Overrides {
            bridge: Some("a b".to_owned()),
            ..Overrides::default()
        },
        Overrides {
            extra: Some("x".repeat(5000)),
            ..Overrides::default()
        },
    ] {
        assert!(parse("test.cfg", LEAST, &bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_guest_without_an_address_has_always_the_same() {
    let mac = |more: &str| with(more).config([0; 16]).vif.unwrap().mac;
    let own = mac("vif=['']");
    assert_eq!(own[..3], [0, 0x16, 0x3e]);
    assert_eq!(own, mac("vif=['bridge=other']"));
    assert_ne!(own, mac("vif=['']\nname='other'"));
    let uuid = "vif=['']\nuuid='11223344-5566-7788-99aa-bbccddeeff00'";
    assert_ne!(own, mac(uuid));
    assert_eq!(mac(uuid), mac(&format!("{uuid}\nname='other'")));
}

#[test]
fn templates() {
    let template = with(
        "vif=['mac=00:16:3e:00:00:fe']\nextra='ip=10.0.2.80/24 ip=dhcp ip=fd00::fffe/64 nsid=ns{n}'",
    );
    assert_eq!(
        derived(&template, 1).unwrap().cmdline,
        "ip=10.0.2.80/24 ip=dhcp ip=fd00::fffe/64 nsid=ns1"
    );
    let third = derived(&template, 3).unwrap();
    assert_eq!(third.name, "m-3");
    assert_eq!(
        third.cmdline,
        "ip=10.0.2.82/24 ip=dhcp ip=fd00::1:0/64 nsid=ns3"
    );
    let vif = third.vif.unwrap();
    assert_eq!(vif.mac, Some([0, 0x16, 0x3e, 0, 1, 0]));
    assert_eq!(derived(&with("name='a{n}b'"), 7).unwrap().name, "a7b");
    // .254 is the last one of its network.
    assert!(derived(&template, 175).is_ok());
    assert!(matches!(
        derived(&template, 176),
        Err(TemplateError::Address { number: 176, .. })
    ));
    let last = with("vif=['mac=00:16:3e:ff:ff:ff']");
    assert!(derived(&last, 1).is_ok());
    assert_eq!(derived(&last, 2), Err(TemplateError::Mac(2)));
    let uuid = with("uuid='11223344-5566-7788-99aa-bbccddeeff00'");
    assert_eq!(derived(&uuid, 1), Err(TemplateError::Uuid));
    let long = with(&format!("extra='{}'", "{n}".repeat(1365)));
    assert_eq!(
        derived(&long, 100_000),
        Err(TemplateError::TooLong(100_000))
    );
    assert!(matches!(
        derived(&with(&format!("name='{}'", "n".repeat(125))), 100),
        Err(TemplateError::Config { .. })
    ));
}

#[test]
fn the_address_of_a_template() {
    let overrides = Overrides {
        ip: vec!["10.0.2.101".to_owned()],
        ..Overrides::default()
    };
    let text = format!("{LEAST}extra='a={{ip}} ip={{ip}}/24'");
    let template = parse("test.cfg", &text, &overrides).unwrap();
    assert_eq!(template.cmdline(), "a=10.0.2.101 ip=10.0.2.101/24");
    assert_eq!(derived(&template, 1).unwrap().cmdline(), template.cmdline());
    let third = derived(&template, 3).unwrap();
    assert_eq!(third.cmdline(), "a=10.0.2.103 ip=10.0.2.103/24");
    assert_eq!(third.config([0; 16]).cmdline, third.cmdline());
    assert!(read(&text).unwrap_err().to_string().contains("{ip}"));
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_text(text in ".{0,200}") {
        let _ = read(&text);
    }

    /// Tokens of a file in any order: a file that is accepted passes the builder's checks.
    #[test]
    fn any_tokens(parts in proptest::collection::vec(prop_oneof![
        Just("name"), Just("vif"), Just("memory"), Just("extra"), Just("="), Just("+="), Just("["), Just("]"),
        Just(","), Just(";"), Just("\n"), Just("'a'"), Just("\"b=c\""), Just("'"), Just("8"), Just("#"), Just("\\"), Just("\0"),
        Just("'ip=1.2.3.4/33'"), Just("'mac=00:16:3e:0:0:0,bridge=x'"),
    ], 0..40), base in any::<bool>(), number in any::<u32>()) {
        let text = format!("{}{}", if base { LEAST } else { "" }, parts.concat());
        if let Ok(guest) = read(&text) {
            prop_assert!(guest.config([0; 16]).check().is_ok());
            prop_assert!(guest.cmdline.len() <= 4095);
            if let Ok(other) = derived(&guest, number) {
                prop_assert!(other.config([0; 16]).check().is_ok());
            }
        }
    }

    #[test]
    fn addresses_stay_in_their_network(start in any::<u32>(), prefix in 0u32..=40, number in 1u32..) {
        let template = with(&format!("extra='ip={}/{prefix}'", std::net::Ipv4Addr::from(start)));
        if let Ok(guest) = derived(&template, number) && prefix <= 32 {
            let word = guest.cmdline.strip_prefix("ip=").unwrap();
            let address: std::net::Ipv4Addr = word.split('/').next().unwrap().parse().unwrap();
            let network = |address: u32| u64::from(address) >> (32 - prefix);
            prop_assert_eq!(network(start), network(address.into()));
        }
    }
}
