//! IPv6 addresses by router advertisements (SLAAC).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use std::net::Ipv6Addr;

use mayfly_guest_tests::frames::{self, Path, Question};
use mayfly_guest_tests::{Net, Setup};
use smoltcp::wire::IpAddress;

const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A router advertisement: the router's lifetime in seconds; flags, length and lifetime of the prefix fd00::.
fn advertisement(router: u16, (flags, width, seconds): (u8, u8, u32)) -> Vec<u8> {
    let path = Path {
        mac: ROUTER_MAC,
        to_mac: [0x33, 0x33, 0, 0, 0, 1],
        from: ROUTER.into(),
        to: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
    };
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(router.to_be_bytes());
    message.extend([0; 8]);
    message.extend([3, 4, width, flags]);
    message.extend(seconds.to_be_bytes());
    message.extend(seconds.to_be_bytes());
    message.extend([0; 4]);
    message.extend(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0).octets());
    frames::icmp(&path, 255, message)
}

fn addresses(net: &Net<'_>) -> Vec<String> {
    let all = net.guest.stack.addresses().iter();
    all.map(ToString::to_string).collect()
}

const LINK_LOCAL: &str = "fe80::216:3eff:fe00:1/64";
const AUTO: &str = "fd00::216:3eff:fe00:1/64";

#[test]
fn an_address_is_asked_for_taken_and_given_up() {
    Setup::new().cmdline("ip=auto").run(|net| {
        net.run_for(2.0);
        assert_eq!(addresses(net), [LINK_LOCAL]);
        let asked = net.client.log.iter().filter(|(_, frame)| {
            frame[..6] == [0x33, 0x33, 0, 0, 0, 2]
                && frame[12..14] == [0x86, 0xdd]
                && frame[54] == 133
        });
        assert!(asked.count() >= 2);
        net.deliver(&advertisement(1800, (0xc0, 64, 20_000)));
        net.run_for(1.0);
        assert_eq!(addresses(net), [LINK_LOCAL, AUTO]);
        let own = IpAddress::v6(0xfd00, 0, 0, 0, 0x0216, 0x3eff, 0xfe00, 1);
        assert!(net.dns(own, &Question::a("mayfly.test")).is_some());
        // A forged advertisement cannot shorten the lifetime to less than two hours (RFC 4862 section 5.5.3 e).
        net.deliver(&advertisement(1800, (0xc0, 64, 1)));
        net.run_for(7000.0);
        assert_eq!(addresses(net), [LINK_LOCAL, AUTO]);
        net.run_for(400.0);
        assert_eq!(addresses(net), [LINK_LOCAL]);
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn other_prefixes_are_ignored() {
    Setup::new().cmdline("ip=auto").run(|net| {
        net.run_for(2.0);
        for prefix in [
            (0x80, 64, 600),
            (0xc0, 63, 600),
            (0xc0, 128, 600),
            (0xc0, 64, 0),
        ] {
            net.deliver(&advertisement(1800, prefix));
            net.run_for(0.1);
            assert_eq!(addresses(net), [LINK_LOCAL], "{prefix:?}");
        }
        let mut far = advertisement(1800, (0xc0, 64, 600));
        far[21] = 64;
        net.deliver(&far);
        net.run_for(0.1);
        assert_eq!(addresses(net), [LINK_LOCAL]);
    });
    // Without `ip=auto` no address is taken.
    Setup::new().run(|net| {
        net.run_for(2.0);
        let before = addresses(net);
        net.deliver(&advertisement(1800, (0xc0, 64, 600)));
        net.run_for(0.1);
        assert_eq!(addresses(net), before);
    });
}
