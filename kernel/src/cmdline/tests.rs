extern crate std;
use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

fn ok(cmdline: &str) -> (GuestConfig, Vec<String>) {
    let mut words = Vec::new();
    let config = parse(cmdline.as_bytes(), &mut |word| words.push(word.to_string()));
    (
        config.unwrap_or_else(|error| panic!("{cmdline}: {error}")),
        words,
    )
}

fn cidr(address: &str, prefix_len: u8) -> IpCidr {
    IpCidr {
        address: address.parse().unwrap(),
        prefix_len,
    }
}

#[test]
fn defaults() {
    for empty in ["", " \t\n "] {
        let (config, unknown) = ok(empty);
        assert!(config.dhcp && config.console && unknown.is_empty());
        assert_eq!(
            (config.addresses().count(), config.gw4, config.gw6),
            (0, None, None)
        );
    }
}

#[test]
fn everything() {
    let (config, unknown) =
        ok("gw=10.0.2.2  ip=10.0.2.80/24\tip=fd00::80/64 quiet gw=fd00::1 console=off root=/dev/x");
    assert_eq!(
        config.addresses().collect::<Vec<_>>(),
        [cidr("10.0.2.80", 24), cidr("fd00::80", 64)]
    );
    assert_eq!(config.gw4, Some(Ipv4Addr::new(10, 0, 2, 2)));
    assert_eq!(config.gw6, "fd00::1".parse().ok());
    assert_eq!(config.ipv4(), Some(Ipv4Addr::new(10, 0, 2, 80)));
    assert_eq!(config.ipv6(), "fd00::80".parse().ok());
    assert!(!config.dhcp && !config.console);
    assert_eq!(unknown, ["quiet", "root=/dev/x"]);
}

#[test]
fn an_mtu() {
    assert_eq!(ok("").0.mtu, None);
    for (cmdline, mtu) in [
        ("mtu=576", 576),
        ("mtu=1500", 1500),
        ("mtu=1280 ip=fd00::80/64", 1280),
    ] {
        assert_eq!(ok(cmdline).0.mtu, Some(mtu));
    }
}

#[test]
fn accepted() {
    for (cmdline, dhcp, addresses) in [
        ("ip=dhcp", true, 0),
        ("ip=dhcp ip=fd00::80/64 gw=fe80::1", true, 1),
        ("ip=fd00::80/64", false, 1),
        ("ip=auto", false, 0),
        ("ip=auto ip=dhcp", true, 0),
        ("ip=auto ip=10.0.0.1/8", false, 1),
        ("ip=10.0.0.1/31 gw=10.0.0.0", false, 1),
        ("ip=10.0.0.1/32", false, 1),
        ("ip=fd00::1/128", false, 1),
        (
            "ip=10.0.0.1/8 ip=10.0.0.2/8 ip=10.0.0.3/8 ip=10.0.0.4/8",
            false,
            4,
        ),
        ("console=on", true, 0),
    ] {
        let (config, _) = ok(cmdline);
        assert_eq!(
            (config.dhcp, config.addresses().count()),
            (dhcp, addresses),
            "{cmdline}"
        );
    }
}

#[test]
fn rejected() {
    use Fault::*;
    for (cmdline, word, fault) in [
        (&b"ip="[..], &b"ip="[..], BadAddress),
        (b"ip=dhcp6", b"ip=dhcp6", BadAddress),
        (b"ip=auto ip=auto", b"ip=auto", Repeated),
        (b"mtu=1000 ip=auto", b"mtu=1000", MtuOfIpv6),
        (b"mtu=575", b"mtu=575", BadMtu),
        (b"mtu=1501", b"mtu=1501", BadMtu),
        (b"mtu=+1400", b"mtu=+1400", BadMtu),
        (b"mtu=1400 mtu=1400", b"mtu=1400", Repeated),
        (b"mtu=1279 ip=fd00::80/64", b"mtu=1279", MtuOfIpv6),
        (b"ip=10.0.2.256/24", b"ip=10.0.2.256/24", BadAddress),
        (b"ip=10.0.2.080/24", b"ip=10.0.2.080/24", BadAddress),
        (b"quiet ip=10.0.2.80", b"ip=10.0.2.80", NoPrefix),
        (b"ip=10.0.2.80/", b"ip=10.0.2.80/", BadPrefix),
        (b"ip=10.0.2.80/0", b"ip=10.0.2.80/0", BadPrefix),
        (b"ip=10.0.2.80/33", b"ip=10.0.2.80/33", BadPrefix),
        (b"ip=10.0.2.80/+24", b"ip=10.0.2.80/+24", BadPrefix),
        (b"ip=10.0.2.80/24/24", b"ip=10.0.2.80/24/24", BadPrefix),
        (b"ip=10.0.2.80/300", b"ip=10.0.2.80/300", BadPrefix),
        (b"ip=fd00::1/129", b"ip=fd00::1/129", BadPrefix),
        (b"ip=0.0.0.0/8", b"ip=0.0.0.0/8", NotUnicast),
        (b"ip=::/64", b"ip=::/64", NotUnicast),
        (b"ip=127.0.0.1/8", b"ip=127.0.0.1/8", NotUnicast),
        (b"ip=::1/128", b"ip=::1/128", NotUnicast),
        (b"ip=224.0.0.1/24", b"ip=224.0.0.1/24", NotUnicast),
        (b"ip=ff02::1/64", b"ip=ff02::1/64", NotUnicast),
        (
            b"ip=255.255.255.255/32",
            b"ip=255.255.255.255/32",
            NotUnicast,
        ),
        (
            b"ip=::ffff:10.0.0.1/96",
            b"ip=::ffff:10.0.0.1/96",
            NotUnicast,
        ),
        (b"ip=10.0.2.0/24", b"ip=10.0.2.0/24", NotHost),
        (b"ip=10.0.2.255/24", b"ip=10.0.2.255/24", NotHost),
        (
            b"ip=10.0.2.80/24 ip=10.0.2.80/16",
            b"ip=10.0.2.80/16",
            Repeated,
        ),
        (b"ip=dhcp ip=dhcp", b"ip=dhcp", Repeated),
        (b"ip=dhcp ip=10.0.2.80/24", b"ip=dhcp", DhcpAndStatic),
        (b"ip=10.0.2.80/24 ip=dhcp", b"ip=dhcp", DhcpAndStatic),
        (
            b"ip=1.0.0.1/8 ip=1.0.0.2/8 ip=1.0.0.3/8 ip=1.0.0.4/8 ip=1.0.0.5/8",
            b"ip=1.0.0.5/8",
            TooMany,
        ),
        (
            b"ip=10.0.2.80/24 gw=10.0.2.2 gw=10.0.2.3",
            b"gw=10.0.2.3",
            Repeated,
        ),
        (b"gw=10.0.2.2", b"gw=10.0.2.2", NoAddressForGateway),
        (b"ip=dhcp gw=10.0.2.2", b"gw=10.0.2.2", NoAddressForGateway),
        (
            b"ip=10.0.2.80/24 gw=fd00::1",
            b"gw=fd00::1",
            NoAddressForGateway,
        ),
        (
            b"ip=10.0.2.80/24 gw=10.0.3.2",
            b"gw=10.0.3.2",
            GatewayUnreachable,
        ),
        (
            b"ip=fd00::80/64 gw=fd01::1",
            b"gw=fd01::1",
            GatewayUnreachable,
        ),
        (
            b"ip=10.0.2.80/24 gw=10.0.2.80",
            b"gw=10.0.2.80",
            GatewayIsSelf,
        ),
        (
            b"ip=10.0.2.80/24 gw=10.0.2.2/24",
            b"gw=10.0.2.2/24",
            BadAddress,
        ),
        (b"ip=10.0.2.80/24 gw=239.0.0.1", b"gw=239.0.0.1", NotUnicast),
        (b"console=yes", b"console=yes", BadConsole),
        (b"console=maybe", b"console=maybe", BadConsole),
        (b"console=0", b"console=0", BadConsole),
        (b"console=on console=on", b"console=on", Repeated),
        (b"console=on console=off", b"console=off", Repeated),
        (b"quiet \xff\xfe", b"\xff\xfe", NotUtf8),
    ] {
        assert_eq!(
            parse(cmdline, &mut |_| ()),
            Err(CmdlineError { word, fault })
        );
    }
}

#[test]
fn consoles_of_linux_are_taken() {
    for (words, expected) in [
        ("console=hvc0", true),
        ("console=tty0 console=hvc0", true),
        ("console=hvc0 console=hvc0", true),
        ("console=ttyS0,115200n8", true),
        ("console=tty", true),
        ("console=ttyAMA0", true),
        ("console=uart,io,0x3f8,115200n8", true),
        ("console=uart8250,mmio32,0xfe000000", true),
        ("console=brl,ttyS0", true),
        ("console=xvc0 earlyprintk=xen", true),
        ("console=", false),
        ("console=null", false),
        ("console=off console=hvc0", false),
        ("console=hvc0 console=off", false),
        ("console=null console=on", true),
    ] {
        assert_eq!(ok(words).0.console, expected, "{words}");
    }
}

#[test]
fn error_text() {
    let error = parse(b"ip=10.0.2.80\x1b[m", &mut |_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "command line: ip=10.0.2.80\\x1b[m: not an IP address"
    );
}

proptest::proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn never_panics(cmdline in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
        let _ = parse(&cmdline, &mut |_| ());
    }

    #[test]
    fn never_panics_on_words(
        cmdline in "((ip|gw|console)=[0-9a-f.:/]{0,12} ?){0,6}"
    ) {
        if let Ok(config) = parse(cmdline.as_bytes(), &mut |_| ()) {
            proptest::prop_assert!(config.addresses().count() <= MAX_ADDRESSES);
        }
    }
}

#[test]
fn switches_of_the_services() {
    let (config, unknown) = ok("");
    assert_eq!(config.endpoints, Endpoints::DEFAULT);
    assert_eq!(config.rrl, Some(dns::ServerConfig::RATE_LIMIT));
    assert!(config.nsid.is_empty() && unknown.is_empty() && !config.minimal);
    let (config, _) = ok("endpoints=metrics,boot rrl=off nsid=ns1.example minimal-responses=on");
    let expected = Endpoints {
        boot: true,
        metrics: true,
        ..Endpoints::NONE
    };
    assert_eq!(config.endpoints, expected);
    assert_eq!(config.rrl, None);
    assert_eq!(config.nsid, b"ns1.example");
    assert!(config.minimal && config.dns([0; 16]).minimal);
    assert!(!ok("minimal-responses=off").0.minimal);
    assert_eq!(ok("rrl=65535").0.rrl, NonZeroU16::new(65535));
    assert_eq!(ok("endpoints=none").0.endpoints, Endpoints::NONE);
    let long = std::format!("nsid={}", "x".repeat(dns::IDENTITY_MAX + 1));
    let all = ok("endpoints=all").0.endpoints;
    assert!(all.boot && all.metrics && all.healthz && all.payload == 0);
    let some = ok("endpoints=payload:4294967296,boot").0.endpoints;
    assert!(some.boot && !some.healthz && some.payload == 1 << 32);
    for (word, fault) in [
        ("endpoints=", Fault::BadEndpoints),
        ("endpoints=all,boot", Fault::Repeated),
        ("endpoints=none,boot", Fault::BadEndpoints),
        ("endpoints=payload", Fault::PayloadWithoutBound),
        ("endpoints=payload:", Fault::PayloadWithoutBound),
        ("endpoints=payload:0", Fault::PayloadWithoutBound),
        ("endpoints=payload:+5", Fault::PayloadWithoutBound),
        ("endpoints=payload:4294967297", Fault::PayloadWithoutBound),
        ("endpoints=payload:5,payload:6", Fault::Repeated),
        ("endpoints=boot,boot", Fault::Repeated),
        ("rrl=0", Fault::BadRate),
        ("rrl=+5", Fault::BadRate),
        ("rrl=65536", Fault::BadRate),
        ("nsid=", Fault::BadName),
        (long.as_str(), Fault::BadName),
        ("rrl=1 rrl=2", Fault::Repeated),
        ("minimal-responses=yes", Fault::NotOnOff),
        ("minimal-responses=on minimal-responses=on", Fault::Repeated),
    ] {
        let error = parse(word.as_bytes(), &mut |_| ()).unwrap_err();
        assert_eq!(error.fault, fault, "{word}");
    }
}
