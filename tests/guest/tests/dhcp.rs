//! DHCP: a lease is asked for, used, renewed and given up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::{self, Dhcp, Path, Question};
use mayfly_guest_tests::{GUEST_MAC, GUEST4, Net, Setup};
use smoltcp::wire::IpAddress;

const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SERVER: [u8; 4] = [10, 0, 2, 2];

/// A server that leases one address as long as it is up.
struct Server {
    address: [u8; 4],
    router: [u8; 4],
    from: [u8; 4],
    lease: u32,
    up: bool,
    seen: usize,
    requests: u32,
}

impl Server {
    /// One that leases the usual address for so many seconds, and is the router.
    fn new(lease: u32) -> Self {
        Self {
            address: GUEST4,
            router: SERVER,
            from: SERVER,
            lease,
            up: true,
            seen: 0,
            requests: 0,
        }
    }

    /// Answers what has come since the last call.
    fn serve(&mut self, net: &mut Net<'_>) {
        let new = net.client.log[self.seen..].to_vec();
        self.seen = net.client.log.len();
        for (_, frame) in new {
            // UDP from port 68 to 67.
            if frame[12..14] != [8, 0] || frame[23] != 17 || frame[34..38] != [0, 68, 0, 67] {
                continue;
            }
            let message = &frame[42..];
            assert_eq!(message[..4], [1, 1, 6, 0]);
            assert_eq!(message[28..34], GUEST_MAC);
            let kind = option(message, 53).expect("a message type")[0];
            let kind = match kind {
                1 => 2,
                3 => 5,
                _ => continue,
            };
            self.requests += 1;
            if self.up {
                let answer = Dhcp {
                    kind,
                    xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
                    mac: GUEST_MAC,
                    address: self.address,
                    server: self.from,
                    router: Some(self.router),
                    lease: self.lease,
                };
                net.deliver(&answer.frame(SERVER_MAC));
            }
        }
    }

    fn run(&mut self, net: &mut Net<'_>, seconds: f64) {
        net.until(seconds, |net| {
            self.serve(net);
            false
        });
    }
}

fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    while let [kind, length, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked((*length).into())?;
        if *kind == wanted {
            return Some(value);
        }
        rest = tail;
    }
    None
}

/// The A records of the apex.
fn addresses(net: &mut Net<'_>, to: IpAddress) -> Vec<[u8; 4]> {
    let answer = net.dns(to, &Question::a("mayfly.test")).expect("an answer");
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    (0..count)
        .map(|_| answer[answer.len() - 4..].try_into().unwrap())
        .collect()
}

#[test]
fn a_lease_is_obtained_used_renewed_and_given_up() {
    Setup::new().cmdline("").run(|net| {
        assert_eq!(net.guest.stack.addresses(), []);
        let mut server = Server::new(120);
        server.run(net, 1.0);
        let leased = net.guest.stack.addresses().to_vec();
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].to_string(), "10.0.2.80/24");
        assert_eq!(addresses(net, guest4()), [[10, 0, 2, 80]]);
        // It was announced.
        let announced = net.client.log.iter().filter(|(_, frame)| {
            frame[12..14] == [8, 6]
                && frame[28..32] == [10, 0, 2, 80]
                && frame[38..42] == [10, 0, 2, 80]
        });
        assert!(announced.count() >= 4);

        // Renewed for ten minutes.
        for _ in 0..60 {
            server.run(net, 10.0);
            assert_eq!(net.guest.stack.addresses(), leased);
        }
        assert!(
            (10..40).contains(&server.requests),
            "{} requests",
            server.requests
        );

        // The server is gone: the lease ends with its time.
        server.up = false;
        server.run(net, 125.0);
        assert_eq!(net.guest.stack.addresses(), []);
        let steps = net.steps;
        server.run(net, 60.0);
        assert!(net.steps - steps < 200, "{} steps", net.steps - steps);

        // It is back, with another address.
        server.up = true;
        server.address = [10, 0, 2, 81];
        server.run(net, 60.0);
        assert_eq!(net.guest.stack.addresses()[0].to_string(), "10.0.2.81/24");
        assert_eq!(
            addresses(net, IpAddress::v4(10, 0, 2, 81)),
            [[10, 0, 2, 81]]
        );
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn the_answer_for_a_is_empty_without_a_lease() {
    let v6 = IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 0x80);
    Setup::new().cmdline("ip=dhcp ip=fd00::80/64").run(|net| {
        assert_eq!(addresses(net, v6), [[0; 4]; 0]);
        let mut server = Server::new(60);
        server.run(net, 20.0);
        assert_eq!(addresses(net, v6), [[10, 0, 2, 80]]);
        server.up = false;
        server.run(net, 65.0);
        assert_eq!(addresses(net, v6), [[0; 4]; 0]);
    });
}

#[test]
fn a_lease_fits_beside_all_static_addresses() {
    let cmdline = "ip=dhcp ip=fd00::80/64 ip=fd01::80/64 ip=fd02::80/64 ip=fd03::80/64";
    Setup::new().cmdline(cmdline).run(|net| {
        let mut server = Server::new(60);
        server.run(net, 20.0);
        let addresses = net.guest.stack.addresses();
        assert_eq!(addresses.len(), 6, "{addresses:?}");
    });
}

#[test]
fn a_router_that_is_no_host_is_ignored() {
    for router in [[0; 4], [255; 4], [224, 0, 0, 1]] {
        Setup::new().cmdline("").run(|net| {
            let mut server = Server {
                router,
                ..Server::new(60)
            };
            server.run(net, 20.0);
            // An answer to another network has no way to go.
            let path = Path::to_guest(SERVER_MAC, [192, 0, 2, 1].into(), GUEST4.into());
            net.deliver(&frames::echo_request(&path, 1, b"mayfly"));
            net.run_for(1.0);
            assert_eq!(addresses(net, guest4()), [[10, 0, 2, 80]]);
        });
    }
}

#[test]
fn a_server_that_is_no_host_is_not_asked_to_renew() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(60);
        server.from = [0; 4];
        for _ in 0..20 {
            server.run(net, 0.000_01);
        }
        assert!(server.requests >= 2);
        server.up = false;
        server.run(net, 60.0);
        assert_eq!(net.guest.stack.addresses(), []);
        server.up = true;
        server.from = SERVER;
        server.run(net, 60.0);
        assert_eq!(addresses(net, guest4()), [[10, 0, 2, 80]]);
    });
}
