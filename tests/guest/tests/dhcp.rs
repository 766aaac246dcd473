//! DHCP: a lease is asked for, used, renewed and given up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::dhcp::{SERVER, SERVER_MAC, Said, Server, instead, usual};
use mayfly_guest_tests::frames::{self, Dhcp, Path, Question};
use mayfly_guest_tests::{GUEST4, Net, Setup};
use smoltcp::wire::IpAddress;

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
        // The address was announced.
        let announced = net.client.log.iter().filter(|(_, frame)| {
            frame[12..14] == [8, 6]
                && frame[28..32] == [10, 0, 2, 80]
                && frame[38..42] == [10, 0, 2, 80]
        });
        assert!(announced.count() >= 4);

        // It is renewed for ten minutes.
        for _ in 0..60 {
            server.run(net, 10.0);
            assert_eq!(net.guest.stack.addresses(), leased);
        }
        assert!(
            (10..40).contains(&server.requests),
            "{} requests",
            server.requests
        );

        // Without a server, the lease ends with its time.
        server.up = false;
        server.run(net, 125.0);
        assert_eq!(net.guest.stack.addresses(), []);
        let steps = net.steps;
        server.run(net, 60.0);
        assert!(net.steps - steps < 200, "{} steps", net.steps - steps);

        // The server comes back and leases another address.
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

/// The gateway to which the guest sends an answer for another network, if it sends it.
fn gateway(net: &mut Net<'_>) -> Option<[u8; 4]> {
    let path = Path::to_guest([2, 0, 0, 0, 0, 9], [192, 0, 2, 1].into(), GUEST4.into());
    net.client.log.clear();
    net.deliver(&frames::echo_request(&path, 1, b"mayfly"));
    net.run_for(1.5);
    net.client.log.iter().find_map(|(_, frame)| {
        match frames::asked_for(frame) {
            Some(std::net::IpAddr::V4(asked)) => return Some(asked.octets()),
            Some(_) => return None,
            None => {}
        }
        let is_reply = frame[12..14] == [8, 0] && frame[23] == 1 && frame[30..34] == [192, 0, 2, 1];
        // The client is the gateway 10.0.2.2.
        (is_reply && frame[..6] == SERVER_MAC).then_some(SERVER)
    })
}

/// Boots a guest beside a server with these answers. Returns the prefix length and the gateway that the guest has after
/// two seconds.
fn comes_up(say: fn(&Dhcp) -> Said) -> (u8, Option<[u8; 4]>) {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server {
            say,
            router: [10, 0, 2, 1],
            ..Server::new(600)
        };
        server.run(net, 2.0);
        let addresses = net.guest.stack.addresses().to_vec();
        assert_eq!(addresses.len(), 1, "it has no address");
        assert_eq!(addresses[0].address(), guest4());
        let gateway = gateway(net);
        assert_eq!(self::addresses(net, guest4()), [GUEST4]);
        assert_eq!(net.violations(), [""; 0]);
        (addresses[0].prefix_len(), gateway)
    })
}

const ROUTER: Option<[u8; 4]> = Some([10, 0, 2, 1]);

#[test]
fn of_several_routers_the_first_is_the_gateway() {
    let say = |dhcp: &Dhcp| instead(dhcp, &[3], &[(3, &[10, 0, 2, 1, 10, 0, 2, 2])]);
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn routers_of_five_bytes_are_read_as_far_as_they_go() {
    let say = |dhcp: &Dhcp| instead(dhcp, &[3], &[(3, &[10, 0, 2, 1, 9])]);
    assert_eq!(comes_up(say), (24, ROUTER));
    let say = |dhcp: &Dhcp| instead(dhcp, &[3], &[(3, &[10, 0, 2])]);
    assert_eq!(comes_up(say), (24, None));
}

#[test]
fn without_a_mask_it_is_that_of_the_class() {
    assert_eq!(comes_up(|dhcp| instead(dhcp, &[1], &[])).0, 8);
    // An invalid mask is ignored.
    let say = |dhcp: &Dhcp| instead(dhcp, &[1], &[(1, &[255, 0, 255, 0])]);
    assert_eq!(comes_up(say).0, 8);
    // With one of zeros every address would be a neighbour's.
    let say = |dhcp: &Dhcp| instead(dhcp, &[1], &[(1, &[0; 4])]);
    assert_eq!(comes_up(say), (8, ROUTER));
}

#[test]
fn values_missing_in_the_acknowledgement_come_from_the_offer() {
    let say = |dhcp: &Dhcp| instead(dhcp, if dhcp.kind == 5 { &[1, 3] } else { &[] }, &[]);
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn a_renewal_may_leave_out_the_mask() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(120);
        server.run(net, 2.0);
        let leased = net.guest.stack.addresses().to_vec();
        server.say = |dhcp| instead(dhcp, &[1, 3], &[]);
        let requests = server.requests;
        for _ in 0..30 {
            server.run(net, 10.0);
            assert_eq!(net.guest.stack.addresses(), leased);
        }
        assert!((3..20).contains(&(server.requests - requests)));
    });
}

#[test]
fn behind_a_relay_the_server_is_asked_to_renew() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server {
            say: |dhcp| (usual(dhcp).0, Vec::new(), [10, 0, 2, 3]),
            ..Server::new(120)
        };
        server.run(net, 2.0);
        net.client.log.clear();
        server.seen = 0;
        server.run(net, 70.0);
        let renewals: Vec<_> = net
            .client
            .log
            .iter()
            .filter(|(_, frame)| frame[12..14] == [8, 0] && frame[34..38] == [0, 68, 0, 67])
            .map(|(_, frame)| <[u8; 4]>::try_from(&frame[30..34]).unwrap())
            .collect();
        assert_eq!(renewals, [SERVER]);
    });
}

#[test]
fn a_lost_discover_is_repeated_as_quickly_as_announcements_are() {
    Setup::new().cmdline("").run(|net| {
        // A bridge that does not forward yet, or a busy host: the first frame is lost.
        let mut server = Server::new(600);
        server.up = false;
        server.run(net, 0.2);
        assert_eq!(server.requests, 1);
        server.up = true;
        server.run(net, 0.3);
        assert_eq!(net.guest.stack.addresses().len(), 1);
    });
}

#[test]
fn a_server_that_comes_late_is_found_within_seconds() {
    for (late, most, within) in [(31.0, 16, 4.5), (3600.0, 160, 33.0)] {
        Setup::new().cmdline("").run(|net| {
            let mut server = Server::new(600);
            server.up = false;
            server.run(net, late);
            // The pauses grow, but not too much.
            assert!(server.requests <= most, "{} requests", server.requests);
            server.up = true;
            server.run(net, within);
            assert_eq!(net.guest.stack.addresses().len(), 1);
        });
    }
}

#[test]
fn a_slow_server_is_waited_for() {
    // The server first checks for a second with a ping whether the address is free, as ISC's does.
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(600);
        for _ in 0..8 {
            net.run_for(1.2);
            server.run(net, 0.000_1);
        }
        assert_eq!(net.guest.stack.addresses().len(), 1);
    });
}

#[test]
fn a_lost_request_is_repeated_after_a_second() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(600);
        net.until(2.0, |net| {
            server.serve(net);
            server.requests == 1
        });
        server.up = false;
        server.run(net, 0.1);
        assert_eq!(server.requests, 2);
        server.up = true;
        server.run(net, 1.1);
        assert_eq!(net.guest.stack.addresses().len(), 1);
    });
}

#[test]
fn a_cloud_with_a_host_route_and_classless_routes() {
    let say = |dhcp: &Dhcp| {
        let routes = [32, 10, 0, 2, 1, 0, 0, 0, 0, 0, 10, 0, 2, 1];
        instead(dhcp, &[1, 3], &[(1, &[255; 4]), (121, &routes)])
    };
    assert_eq!(comes_up(say), (32, ROUTER));
    // The default route is the last of many.
    let say = |dhcp: &Dhcp| {
        let mut routes = Vec::new();
        for net in 0..20 {
            routes.extend([24, 10, 9, net, 10, 0, 2, 7]);
        }
        routes.extend([0, 10, 0, 2, 1]);
        instead(dhcp, &[3], &[(121, &routes)])
    };
    assert_eq!(comes_up(say), (24, ROUTER));
    // RFC 3442: with classless routes, routers don't count.
    let say = |dhcp: &Dhcp| instead(dhcp, &[], &[(121, &[8, 10, 10, 0, 2, 9])]);
    assert_eq!(comes_up(say), (24, None));
    // Routes that are cut off, or wider than an address.
    for say in [
        (|dhcp| instead(dhcp, &[], &[(121, &[0, 10, 0])])) as fn(&Dhcp) -> Said,
        |dhcp| instead(dhcp, &[], &[(121, &[33, 10, 0, 2, 1, 9, 10, 0, 2, 1])]),
        |dhcp| instead(dhcp, &[], &[(121, &[24, 10])]),
    ] {
        assert_eq!(comes_up(say), (24, None));
    }
}

#[test]
fn options_in_any_order_with_pads_and_noise_behind_the_end() {
    let say = |dhcp: &Dhcp| {
        let mut options = dhcp.options();
        options.reverse();
        let mut bytes = vec![0, 0];
        for option in &options {
            bytes.extend(frames::encoded(std::slice::from_ref(option)));
            bytes.extend([0, 0, 0]);
        }
        bytes.extend([255, 1, 200, 3]);
        (bytes, Vec::new(), dhcp.server)
    };
    assert_eq!(comes_up(say), (24, ROUTER));
    // Without an end, and cut off in an option.
    let say = |dhcp: &Dhcp| (frames::encoded(&dhcp.options()), Vec::new(), dhcp.server);
    assert_eq!(comes_up(say), (24, ROUTER));
    let say = |dhcp: &Dhcp| {
        let mut bytes = frames::encoded(&dhcp.options());
        bytes.extend([6, 40, 1]);
        (bytes, Vec::new(), dhcp.server)
    };
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn options_in_the_field_for_a_file() {
    let say = |dhcp: &Dhcp| {
        let (mut bytes, _, from) = instead(dhcp, &[1, 3], &[(52, &[1])]);
        bytes.push(255);
        let file = [(1, vec![255, 255, 255, 0]), (3, vec![10, 0, 2, 1])];
        let mut file = frames::encoded(&file);
        file.push(255);
        (bytes, file, from)
    };
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn an_option_in_two_parts_is_joined() {
    let say = |dhcp: &Dhcp| instead(dhcp, &[], &[(3, &[10, 0, 2, 2])]);
    assert_eq!(comes_up(say), (24, ROUTER));
    let say = |dhcp: &Dhcp| instead(dhcp, &[3], &[(3, &[10, 0]), (3, &[2, 1])]);
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn an_mtu_of_the_server_changes_nothing() {
    for say in [
        (|dhcp| instead(dhcp, &[], &[(26, &[5, 120])])) as fn(&Dhcp) -> Said,
        |dhcp| instead(dhcp, &[], &[(26, &[35, 40])]),
    ] {
        assert_eq!(comes_up(say), (24, ROUTER));
    }
}

#[test]
fn odd_times_lead_to_no_storm() {
    let times = [
        (|dhcp| instead(dhcp, &[51], &[(51, &[255; 4])])) as fn(&Dhcp) -> Said,
        |dhcp| instead(dhcp, &[], &[(58, &[0, 0, 4, 0]), (59, &[0, 0, 3, 0])]),
        |dhcp| instead(dhcp, &[], &[(58, &[0; 4])]),
        |dhcp| instead(dhcp, &[], &[(58, &[0; 4]), (59, &[0, 0, 0, 1])]),
        |dhcp| instead(dhcp, &[], &[(59, &[0; 4])]),
        |dhcp| instead(dhcp, &[], &[(58, &[255; 4]), (59, &[255; 4])]),
        |dhcp| instead(dhcp, &[51], &[]),
        |dhcp| instead(dhcp, &[51], &[(51, &[0; 4])]),
    ];
    for (number, say) in times.into_iter().enumerate() {
        Setup::new().cmdline("").run(|net| {
            let mut server = Server {
                say,
                ..Server::new(600)
            };
            server.run(net, 2.0);
            assert_eq!(net.guest.stack.addresses().len(), 1, "{number}");
            let (steps, requests) = (net.steps, server.requests);
            server.run(net, 300.0);
            assert_eq!(net.guest.stack.addresses().len(), 1, "{number}");
            let requests = server.requests - requests;
            // A lease of zero seconds counts as one of ten.
            let most = if number == 7 { 70 } else { 12 };
            assert!(requests < most, "{number}: {requests} requests");
            assert!(
                net.steps - steps < 300,
                "{number}: {} steps",
                net.steps - steps
            );
        });
    }
}

#[test]
fn the_address_of_the_acknowledgement_counts() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(600);
        net.until(2.0, |net| {
            server.serve(net);
            server.requests == 1
        });
        server.address = [10, 0, 2, 81];
        server.run(net, 2.0);
        let leased = net.guest.stack.addresses().to_vec();
        assert_eq!(leased.len(), 1);
        assert_eq!(leased[0].to_string(), "10.0.2.81/24");
        let new = IpAddress::v4(10, 0, 2, 81);
        assert_eq!(addresses(net, new), [[10, 0, 2, 81]]);
    });
}

#[test]
fn a_client_identifier_of_any_kind_is_no_matter() {
    let say = |dhcp: &Dhcp| instead(dhcp, &[], &[(61, &[255, 1, 2, 3, 4, 5, 6])]);
    assert_eq!(comes_up(say), (24, ROUTER));
}

#[test]
fn a_message_for_another_client_changes_nothing() {
    Setup::new().cmdline("").run(|net| {
        let mut server = Server::new(120);
        server.run(net, 2.0);
        let leased = net.guest.stack.addresses().to_vec();
        for kind in [2, 5, 6] {
            let other = Dhcp {
                kind,
                xid: 7,
                mac: [2, 0, 0, 0, 0, 99],
                address: [10, 0, 2, 99],
                server: [10, 0, 2, 2],
                router: None,
                lease: 7,
            };
            net.deliver(&other.frame(SERVER_MAC));
        }
        server.say = |dhcp| instead(dhcp, &[1], &[]);
        server.run(net, 100.0);
        assert_eq!(net.guest.stack.addresses(), leased);
    });
}
